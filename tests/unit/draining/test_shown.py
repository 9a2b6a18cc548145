"""What a drain shows, and that its documents are documented."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cellmove.draining.cordon import cordon
from cellmove.draining.happenings import Happening, Outcome
from cellmove.draining.scope import Found, Scope, Waiting
from cellmove.draining.wishes import Resident
from cellmove.errors import Exit, Refused, StepFailed
from cellmove.journal import Mark
from cellmove.model import Transfer
from cellmove.report.drains import Drained, Foreseen
from cellmove.report.live import Board, Guarded, JsonLines, Lines, event_document, shown
from cellmove.services.service import Answer
from tests.unit.samples import One, move
from tests.unit.test_report import keys

MOVE = move()
SCOPE = Scope(MOVE.source.cell, ("cmp1a", "cmp1b"), True, MOVE.target.cell)
ERROR = Refused("It cannot be moved.", "It is paused.", "Unpause it.")
RESIDENT = Resident("s1", "web-9", "p", "cmp1a", "c1", "2026-11-22", 2)
FOUND = Found((RESIDENT,), (), (Waiting("s2", "web-2", "cmp1a", None),), (RESIDENT,))
EMPTY = Found((), (), (), ())
DONE = Outcome("done", MOVE.server, MOVE.name, MOVE.source, MOVE.target, 1)
LEFT = Outcome("left", "s1", "web-9", error=ERROR)
BEGUN = Happening("begun", MOVE.server, "web-1", MOVE.source, MOVE.target, 7, steps=42)
STEP = Happening(
    "step", MOVE.server, "web-1", MOVE.source, MOVE.target, 7, One(MOVE), 3, 42, Mark.BEGUN
)
COPY = Happening("copy", MOVE.server, "web-1", transfer=Transfer("disk", 1 << 20, 3 << 20, 0, 2.0))


@pytest.mark.parametrize(
    ("title", "document"),
    [
        ("A drain", Drained(SCOPE, 1, [DONE, LEFT], FOUND).document()),
        ("A drain looked at", Foreseen(SCOPE, FOUND, [LEFT]).document()),
        ("An event of a drain", event_document(COPY)),
    ],
)
def test_every_key_of_a_document_is_documented(title: str, document: Any) -> None:
    docs = (Path(__file__).parents[3] / "docs" / "json.rst").read_text()
    section = docs.split(f"\n{title}\n---", 1)[1].split("\n---", 1)[0]
    shared = docs.split("\nParts\n---", 1)[1].split("\n---", 1)[0]
    above = docs.split("\nA drain\n---", 1)[1].split("\n---", 1)[0]
    for key in keys(document):
        assert f"``{key}``" in section + shared + above or key == "version", key


@pytest.mark.parametrize(
    ("outcomes", "more", "code"),
    [
        ([], {}, Exit.DONE),
        ([DONE], {}, Exit.DONE),
        ([DONE, LEFT], {}, Exit.SOME_FAILED),
        ([LEFT], {}, Exit.REFUSED),
        (
            [Outcome("failed", "s", "web", number=7, error=StepFailed("It broke."))],
            {},
            Exit.SOME_FAILED,
        ),
        ([Outcome("failed", "s", "web", error=StepFailed("It is away."))], {}, Exit.REFUSED),
        ([DONE], {"stopped": True}, Exit.STOPPED),
        ([DONE], {"given_up": "Too many failed."}, Exit.SOME_FAILED),
    ],
)
def test_the_exit_code_says_how_the_cloud_stands(
    outcomes: list[Outcome], more: dict[str, Any], code: Exit
) -> None:
    assert Drained(SCOPE, 1, outcomes, EMPTY, **more).exit_code == code


def test_nothing_is_retired_while_somebody_waits_or_lives_there() -> None:
    assert not any("delete" in each for each in Drained(SCOPE, 1, [], FOUND).next_commands())
    commands = Drained(SCOPE, 1, [], EMPTY).next_commands()
    assert commands[-1] == f"nova-manage cell_v2 delete_cell --cell_uuid {SCOPE.cell.uuid}"
    assert sum("delete_host" in each for each in commands) == 2


def test_cordoned_hosts_that_are_not_empty_can_be_opened_again() -> None:
    commands = Drained(SCOPE, 1, [], FOUND, cordoned=["cmp1a"]).next_commands()
    assert "openstack compute service set --enable cmp1a nova-compute" in commands
    stopped = Drained(SCOPE, 1, [], FOUND, stopped=True, cordoned=["cmp1a"]).next_commands()
    assert stopped[-1] == "openstack compute service set --enable cmp1a nova-compute"


def test_those_that_are_still_to_move_are_named_but_no_more_than_ten() -> None:
    wanted = tuple(replace(RESIDENT, name=f"web-{number}") for number in range(12))
    console = Console(file=io.StringIO(), width=400)
    with console.capture() as taken:
        Drained(SCOPE, 1, [], replace(FOUND, wanted=wanted)).print(console)
    assert "12 still to move (web-0, web-1, " in taken.get()
    assert "web-9, and 2 more)" in taken.get()


def test_off_a_terminal_each_event_is_a_line() -> None:
    file = io.StringIO()
    lines = Lines(Console(file=file, width=160))
    for each in (BEGUN, STEP, COPY, COPY, DONE.happening(), LEFT.happening()):
        lines.tell(each)
    assert file.getvalue().splitlines() == [
        "web-1: move 7, cmp1a to cmp2a, 42 steps",
        "web-1: 3/42 one",
        "web-1: disk: 1.0 MiB of 3.0 MiB, 512.0 KiB/s, 4.0 s",
        "web-1: has arrived on cmp2a",
        "web-9: left: It cannot be moved. It is paused. Unpause it.",
    ]


def test_on_a_terminal_a_table_shows_who_is_under_way() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, color_system=None)
    board = Board(console, servers=5)
    for each in (BEGUN, STEP, COPY):
        board.tell(each)
    with console.capture() as taken:
        console.print(board._table())
    for word in ("web-1", "cmp1a", "cmp2a", "3/42 one", "1.0 MiB of 3.0 MiB", "512.0 KiB/s"):
        assert word in taken.get()
    board.tell(DONE.happening())
    with console.capture() as taken:
        console.print(board._table())
    assert "web-1" not in taken.get()
    assert "5 servers to move; 1 done" in taken.get()
    board.end()


def test_as_json_each_event_is_a_line_and_copies_come_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = JsonLines()
    for _ in range(3):
        lines.tell(COPY)
    lines.tell(STEP)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["copy", "step"]


def test_what_cannot_be_shown_any_more_falls_silent() -> None:
    class Gone:
        def tell(self, _happening: Happening) -> None:
            raise BrokenPipeError

        def end(self) -> None:
            raise AssertionError

    guarded = Guarded(Gone())
    guarded.tell(STEP)
    guarded.end()


def test_quiet_only_what_is_of_the_whole_is_said() -> None:
    file = io.StringIO()
    display = shown(Console(file=file), 1, as_json=False, quiet=True)
    display.tell(STEP)
    display.say("Outside of the window.")
    assert file.getvalue() == "Outside of the window.\n"


class Compute:
    """nova's list of services."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []

    def get(self, _path: str, **_query: str) -> Answer:
        services = [
            {"id": f"id-{host}", "host": host, "status": status, "disabled_reason": reason}
            for host, status, reason in (
                ("cmp1a", "enabled", None),
                ("cmp1b", "disabled", "broken fan"),
                ("cmp1c", "disabled", "cellmove drain 2"),
                ("cmp2a", "enabled", None),
            )
        ]
        return Answer(200, {"services": services})

    def send(self, method: str, path: str, body: Any = None) -> Answer:
        self.sent.append((method, path, body))
        return Answer(200, {})


def test_a_cordon_disables_the_hosts_that_nobody_else_has_disabled() -> None:
    compute: Any = Compute()
    assert cordon(compute, ["cmp1a", "cmp1b", "cmp1c", "cmp1d"], 3) == ["cmp1a", "cmp1c"]
    disabled = {"status": "disabled", "disabled_reason": "cellmove drain 3"}
    assert compute.sent == [("PUT", "/os-services/id-cmp1a", disabled)]
