"""Answers in both forms, and the display while a move runs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cellmove.check import Finding, Looked, Result
from cellmove.choosing import Dropped, Weighed
from cellmove.choosing.weighers import WEIGHERS
from cellmove.dbcopy.compare import Difference
from cellmove.errors import CellmoveError, Exit, Refusals, Refused, Stopped, TakenBack
from cellmove.intake.copies import Compared
from cellmove.intake.estimate import Estimate
from cellmove.intake.explained import Explained
from cellmove.intake.listing import Listed
from cellmove.journal import Entry, Event, Mark
from cellmove.model import Port, Transfer
from cellmove.progress import Alive, Display, Guarded, Lines, Quiet, display
from cellmove.report import outcomes
from cellmove.report.base import VERSION, Report, as_text, console, duration, size
from cellmove.report.checks import Checked, CheckedServer
from cellmove.report.downtime import downtime_seconds
from cellmove.report.failures import Failure
from cellmove.report.history import Moves, Shown, step_line
from cellmove.report.moves import next_commands
from cellmove.report.outcomes import Outcome, Outcomes
from cellmove.report.plans import Plan, Plans
from cellmove.report.samecell import Delegated
from cellmove.report.scripts import Completion
from cellmove.report.servers import Comparison, Servers
from cellmove.steps.base import Finding as Look
from cellmove.steps.base import Status
from tests.unit.samples import GIB, One, Three, Two, move

MOVE = move()
ENTRY = Entry(
    7,
    "resize",
    MOVE,
    "2026-01-02T03:04:05.000+00:00",
    (
        Event("2026-01-02T03:04:05.000+00:00", "one", Mark.BEGUN),
        Event("2026-01-02T03:04:06.500+00:00", "one", Mark.DONE),
        Event("2026-01-02T03:04:07.000+00:00", "two", Mark.BEGUN),
        Event("2026-01-02T03:05:07.000+00:00", "two", Mark.FAILED, note="The cable broke."),
    ),
)
FELT = tuple(
    Event(f"2026-01-02T03:04:{second}+00:00", step, mark)
    for second, step, mark in (
        ("05.000", "stop-source-guest", Mark.BEGUN),
        ("06.000", "stop-source-guest", Mark.DONE),
        ("09.250", "start-target-guest", Mark.BEGUN),
        ("10.500", "start-target-guest", Mark.DONE),
    )
)
REFUSED = Refused("It cannot be moved.", "It has a volume.", "Detach it.")
CELL = MOVE.source.cell
DIFFERENCE = Difference("instances", MOVE.server, "hostname", "a", "b")
EXPECT = Estimate(3 * GIB, 100 * 2**20, 50.7, 20.0, rate_measured=False, measured=0)
WEIGHTS = {weigher.name: 0.5 for weigher in WEIGHERS}
EXPLAINED = Explained(
    server=MOVE.server,
    name=MOVE.name,
    source=MOVE.source,
    flavor="c2",
    fit=[Weighed(MOVE.target, WEIGHTS)],
    dropped=[Dropped(MOVE.source, "elsewhere", "the server is there already")],
    looked_at={MOVE.target.name: ()},
)
REPORTS: dict[str, Report] = {
    "A dry run": Plans(
        "resize",
        [
            Plan(
                MOVE,
                [(One(MOVE), Look(Status.TODO)), (Two(MOVE), Look(Status.BLOCKED, "no"))],
                EXPECT,
            )
        ],
        [Outcome("resize", "web-2", error=REFUSED)],
        [EXPLAINED],
        "plan.json",
    ),
    "A resize within a cell": Delegated(
        MOVE.server, MOVE.name, "cell1", "cmp1b", "c2", "VERIFY_RESIZE"
    ),
    "A result": Outcomes(
        "confirm", [Outcome("confirm", "web-1", MOVE, 7), Outcome("confirm", "x", error=REFUSED)]
    ),
    "A move taken back": outcomes.TakenBack(ENTRY),
    "The moves": Moves([ENTRY], "/var/lib/journal.db"),
    "One move": Shown(ENTRY, ["one", "two", "three"]),
    "The servers": Servers([Listed(MOVE.server, "web", "p", "ACTIVE", "", CELL, "c1")]),
    "A comparison": Comparison(Compared(MOVE.server, "web", CELL, CELL, [DIFFERENCE])),
    "The check": Checked([Finding("Neutron", Result.FAIL, "no extension", "Enable it.")]),
    "The check of a server": CheckedServer(
        Looked(MOVE.server, MOVE.name, MOVE.source, None, [REFUSED])
    ),
    "A completion script": Completion("bash", "complete -F _cellmove cellmove"),
    "An error": Failure(Refusals("It cannot be moved.", [REFUSED])),
}


def printed(report: Report, *, columns: int = 200) -> str:
    file = io.StringIO()
    report.print(Console(file=file, width=columns, highlight=False, markup=False))
    return file.getvalue()


def test_what_others_wrote_does_not_move_the_cursor() -> None:
    file = io.StringIO()
    hostile = "a\x1b[2Kb\x07\r\x9b1Ac\u202ed\ne"
    Failure(Refused(hostile, "it is \x1b]0;mine\x07", "")).print(console(file))
    assert file.getvalue().startswith("Error: a?[2Kb")
    assert {letter for letter in file.getvalue() if not letter.isprintable()} == {"\n"}
    assert "?1Ac?d\ne\n" in file.getvalue()


def keys(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from keys(value)
    elif isinstance(document, list):
        for each in document:
            yield from keys(each)


def test_how_nova_would_end_it_badly_is_told_with_the_plan_and_the_result() -> None:
    port = Port(
        "p", mac="", host="cmp1a", status="ACTIVE", vif_type="ovs", has_resource_request=True
    )
    odd = replace(MOVE, ports=(port,), nvram="/var/lib/x_VARS.fd")
    told: list[Report] = [Outcome("resize", "web-1", odd, 7), Plans("resize", [Plan(odd, ())])]
    for each in told:
        assert "cellmove alone: nova's own revert fails" in printed(each)
        assert "nova's own confirm leaves /var/lib/x_VARS.fd on cmp1a." in printed(each)
    assert len(told[0].document()["warnings"]) == 2
    assert Outcome("revert", "web-1", odd, 8).document()["warnings"] == []
    assert Outcome("resize", "web-1", MOVE, 7).document()["warnings"] == []


@pytest.mark.parametrize("title", REPORTS)
def test_every_key_of_a_document_is_documented(title: str) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "json.rst").read_text()
    section = docs.split(f"\n{title}\n---", 1)[1].split("\n---", 1)[0]
    shared = docs.split("\nParts\n---", 1)[1].split("\n---", 1)[0]
    for key in keys(REPORTS[title].document()):
        assert f"``{key}``" in section + shared, f"{key} is not in docs/json.rst under {title}"


@pytest.mark.parametrize("title", REPORTS)
def test_every_document_is_json_and_bears_its_version(title: str) -> None:
    assert json.loads(as_text(REPORTS[title]))["version"] == VERSION


@pytest.mark.parametrize("title", REPORTS)
def test_no_secret_nor_bulk_of_a_move_is_in_an_answer(title: str) -> None:
    """A move carries what steps need; an answer what people do."""
    assert MOVE.actor_user_id not in as_text(REPORTS[title])


@pytest.mark.parametrize("title", ["The moves", "A dry run", "One move", "The servers"])
@pytest.mark.parametrize("columns", [80, 200])
def test_a_uuid_is_never_cut(title: str, columns: int) -> None:
    assert MOVE.server in printed(REPORTS[title], columns=columns)


def test_markup_in_a_name_is_only_text() -> None:
    hostile = replace(MOVE, name="[red]web[/red] :smile: [/nothing]")
    file = io.StringIO()
    Moves([replace(ENTRY, move=hostile)], "j").print(console(file))
    assert "[red]web[/red] :smile: [/nothing]" in file.getvalue()


def test_a_pipe_gets_no_colours_and_long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    file = io.StringIO()
    REPORTS["The moves"].print(console(file))
    assert "\x1b" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) > 100


def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Screen(), Screen()
    REPORTS["An error"].print(console(coloured))
    monkeypatch.setenv("NO_COLOR", "1")
    REPORTS["An error"].print(console(plain))
    assert "\x1b[1;31m" in coloured.getvalue()
    assert "31m" not in plain.getvalue()


def test_a_step_tells_since_when_how_long_and_what_went_wrong() -> None:
    one, two, three = (step_line(ENTRY, name) for name in ("one", "two", "three"))
    assert (one.mark, one.seconds, one.note) == (Mark.DONE, 1.5, "")
    assert (two.mark, two.seconds, two.note) == (Mark.FAILED, 60.0, "The cable broke.")
    assert (three.mark, three.at, three.seconds) == (None, "", None)


def test_the_time_a_step_waited_for_its_undo_is_not_counted() -> None:
    times = [("00", Mark.BEGUN), ("02", Mark.DONE), ("50", Mark.UNDOING), ("53", Mark.UNDONE)]
    events = tuple(Event(f"2026-01-02T03:04:{at}", "one", mark) for at, mark in times)
    assert step_line(replace(ENTRY, events=events), "one").seconds == 5.0


@pytest.mark.parametrize(
    ("marks", "later", "expected"),
    [
        ([], [], ["cellmove resume 7", "cellmove undo 7"]),
        ([Mark.UNDOING], [], ["cellmove undo 7"]),
        ([Mark.TAKEN_BACK], [], []),
        (
            [Mark.FINISHED],
            [],
            [f"cellmove confirm {MOVE.server}", f"cellmove revert {MOVE.server}"],
        ),
        ([Mark.FINISHED], [Mark.FINISHED], []),
        (
            [Mark.FINISHED],
            [Mark.TAKEN_BACK],
            [f"cellmove confirm {MOVE.server}", f"cellmove revert {MOVE.server}"],
        ),
    ],
)
def test_the_next_command_follows_from_how_the_move_stands(
    marks: list[Mark], later: list[Mark], expected: list[str]
) -> None:
    def entry(number: int, marks: list[Mark]) -> Entry:
        return replace(ENTRY, number=number, events=tuple(Event("", "", mark) for mark in marks))

    after = [entry(8, later)] if later else []
    assert next_commands(entry(7, marks), after) == expected


def test_a_name_with_spaces_is_quoted_in_the_next_command() -> None:
    assert "cellmove confirm 'my server'" in printed(Outcome("resize", "my server", MOVE, 7))


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([None], Exit.DONE),
        ([None, None], Exit.DONE),
        ([REFUSED, REFUSED], Exit.REFUSED),
        ([None, REFUSED], Exit.SOME_FAILED),
        ([TakenBack("x"), REFUSED], Exit.SOME_FAILED),
        ([None, Stopped("x")], Exit.STOPPED),
    ],
)
def test_the_exit_code_of_several_is_what_they_share(
    errors: list[CellmoveError | None], code: Exit
) -> None:
    assert Outcomes("confirm", [Outcome("confirm", "x", error=e) for e in errors]).exit_code is code


def test_a_warning_of_the_check_is_no_finding() -> None:
    assert Checked([Finding("x", Result.WARN)]).exit_code is Exit.DONE
    assert Checked([Finding("x", Result.FAIL)]).exit_code is Exit.FINDINGS


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * GIB, "3.0 GiB"), (2**41, "2.0 TiB")],
)
def test_sizes_are_readable(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Clock:
    """Time that passes when told."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def lines_after(clock: Clock, steps: list[tuple[float, int]]) -> list[str]:
    file = io.StringIO()
    shown = Lines(console(file), clock)
    for seconds, done_bytes in steps:
        clock.seconds = 100.0 + seconds
        shown.transfer(Transfer("disk", done_bytes, 1000 * 1024))
    return file.getvalue().splitlines()


def test_a_copy_says_a_line_every_few_seconds_and_one_at_the_end() -> None:
    kib = 1024
    said = lines_after(
        Clock(), [(0, 0), (1, 100 * kib), (5, 500 * kib), (6, 600 * kib), (8, 1000 * kib)]
    )
    assert said == [
        "  disk: 500.0 KiB of 1000.0 KiB, 100.0 KiB/s, 5.0 s left",
        "  disk: 1000.0 KiB of 1000.0 KiB, 125.0 KiB/s",
    ]


def test_the_rate_of_a_resumed_copy_counts_only_what_was_copied_now() -> None:
    kib = 1024
    said = lines_after(Clock(), [(0, 500 * kib), (5, 600 * kib)])
    assert "20.0 KiB/s" in said[0]


def run_through(shown: Display) -> None:
    steps = [One(MOVE), Two(MOVE), Three(MOVE)]
    shown.begin("Move 7: resize web-1", steps)
    shown.step(steps[0], Mark.FOUND)
    shown.step(steps[1], Mark.BEGUN)
    shown.transfer(Transfer("disk", 0, 3 * GIB))
    shown.transfer(Transfer("disk", GIB, 3 * GIB))
    shown.step(steps[1], Mark.DONE)
    shown.step(steps[2], Mark.BEGUN)
    shown.step(steps[2], Mark.FAILED)
    shown.step(steps[1], Mark.UNDOING)
    shown.step(steps[1], Mark.UNDONE)
    shown.say("That was it.")
    shown.end()


def test_without_a_terminal_each_step_is_a_line() -> None:
    file = io.StringIO()
    run_through(display(console(file), quiet=False))
    assert file.getvalue().splitlines() == [
        "Move 7: resize web-1: 3 steps",
        "1/3 one: there already",
        "2/3 two: make two",
        "3/3 three: make three",
        "3/3 three: failed",
        "2/3 taking back two",
        "That was it.",
    ]


def test_quiet_says_only_what_must_be_said() -> None:
    file = io.StringIO()
    run_through(display(console(file), quiet=True))
    assert file.getvalue() == "That was it.\n"


def test_on_a_terminal_steps_scroll_up_and_bytes_are_a_bar() -> None:
    file = io.StringIO()
    live = Console(file=file, force_terminal=True, width=100, legacy_windows=False)
    shown = Alive(live)
    shown._live.auto_refresh = False
    steps = [One(MOVE), Two(MOVE)]
    shown.begin("Move 7", steps)
    shown.step(steps[0], Mark.BEGUN)
    shown.step(steps[0], Mark.DONE)
    shown.step(steps[1], Mark.BEGUN)
    shown.transfer(Transfer("disk", GIB, 3 * GIB))
    shown._live.refresh()
    out = file.getvalue()
    assert "one" in out
    assert "two: make two" in out
    assert "1.0 GiB of 3.0 GiB" in out
    assert "step 2 of 2" in out
    shown.end()


def test_which_display_fits_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())

    def chosen(console: Console, *, quiet: bool = False) -> type:
        return type(display(console, quiet=quiet)._shown)

    assert chosen(terminal) is Alive
    assert chosen(pipe) is Lines
    assert chosen(terminal, quiet=True) is Quiet
    monkeypatch.setenv("TERM", "dumb")
    assert chosen(Console(file=io.StringIO(), force_terminal=True)) is Lines


def test_a_lost_terminal_never_fails_a_move() -> None:
    """Its console is a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    file = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
    run_through(Guarded(Lines(console(file))))
    run_through(Guarded(Alive(console(file))))
    with suppress(BrokenPipeError):
        file.close()


def test_the_downtime_is_from_the_request_to_shut_down_until_the_guest_runs_elsewhere() -> None:
    felt = replace(ENTRY, events=FELT)

    assert downtime_seconds(felt) == 5.5
    assert "5.5 s, and the guest's own boot" in printed(Shown(felt, []))


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, events=FELT[:-1]),
        replace(ENTRY, events=(*FELT, replace(FELT[-1], mark=Mark.UNDOING))),
        replace(ENTRY, events=FELT, move=replace(MOVE, vm_state="stopped")),
        replace(ENTRY, events=FELT, verb="confirm"),
    ],
    ids=["not yet", "taken back", "was off", "not stopped"],
)
def test_no_downtime_is_told_that_is_not_known(entry: Entry) -> None:
    assert downtime_seconds(entry) is None
