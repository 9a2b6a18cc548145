"""`cellmove drain` as it is typed: its answers, its exit codes, what it asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cellmove.cli import desk
from cellmove.errors import StepFailed
from cellmove.steps.disks import CopyDisks
from tests.fakes.world import SERVER
from tests.unit.conftest import Ran, Terminal

DRAIN = ("drain", "--cell", "cell1", "--name", "web-*")


def lines(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(_self: Any, _cloud: Any) -> None:
        raise StepFailed("The copy is broken.", "It smokes.")

    monkeypatch.setattr(CopyDisks, "execute", execute)


def test_a_drain_tells_what_happens_and_what_is_left(terminal: Terminal) -> None:
    ran = terminal.type(*DRAIN, "--yes")
    assert ran.code == 0
    assert "1 moved, 0 confirmed." in ran.out
    assert "Left on cell cell1: 1 that this drain is not to move, the old disks" in ran.out
    assert f"Keep them there: cellmove confirm {SERVER}" in ran.out
    assert "web-1: move 1, cmp1a to cmp2a" in ran.err
    assert "web-1: has arrived on cmp2a" in ran.err


def test_as_json_each_line_is_an_event_and_the_last_one_the_summary(terminal: Terminal) -> None:
    *events, over = lines(terminal.type(*DRAIN, "--yes", "--json"))
    assert [each["event"] for each in events][:1] == ["begun"]
    assert [each["event"] for each in events][-1:] == ["done"]
    marks = {(each["step"], each["mark"]) for each in events if each["event"] == "step"}
    assert ("copy-disks", "done") in marks
    assert (over["event"], over["exit_code"], over["moved"]) == ("over", 0, 1)
    assert over["waiting"] == [SERVER]
    assert [each["name"] for each in over["remaining"]] == ["other-cell1"]


@pytest.mark.parametrize("flatten", [False, True])
def test_what_disks_lie_on_goes_along_unless_one_file_was_asked_for(
    terminal: Terminal, flatten: bool
) -> None:
    assert terminal.type(*DRAIN, "--yes", *["--flatten"] * flatten).code == 0
    target = terminal.world.hosts.by_name["cmp2a"]
    assert bool(target.bases) is not flatten
    assert bool(target.directories[SERVER]["disk"].base) is not flatten


def test_when_nobody_is_left_the_commands_that_retire_the_host_are_told(terminal: Terminal) -> None:
    ran = terminal.type("drain", "--host", "cmp1b", "--yes")
    assert ran.code == 0
    assert "Nothing is left on host cmp1b." in ran.out
    assert "openstack compute service set --disable cmp1b nova-compute" in ran.out
    assert "nova-manage cell_v2 delete_host --cell_uuid" in ran.out
    assert "delete_cell" not in ran.out


def test_a_failure_is_told_with_its_reason_and_ends_with_six(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    ran = terminal.type(*DRAIN, "--yes")
    assert ran.code == 6
    assert f"web-1 ({SERVER}) failed: " in ran.out
    assert "It smokes." in ran.out
    assert "1 still to move" in ran.out


def test_where_nothing_can_be_moved_nothing_is_touched_and_it_ends_with_one(
    terminal: Terminal,
) -> None:
    terminal.world.hosts.unreachable.add("cmp1a")
    before = terminal.world.snapshot()
    ran = terminal.type(*DRAIN, "--yes")
    assert "cannot be reached" in ran.out
    assert ran.code == 1
    assert terminal.world.snapshot() == before


def test_a_dry_run_says_who_would_go_where_and_touches_nothing(terminal: Terminal) -> None:
    before = terminal.world.snapshot()
    ran = terminal.type(*DRAIN, "--dry-run", "--json")
    assert (ran.code, terminal.world.snapshot()) == (0, before)
    (one,) = ran.json["servers"]
    assert (one["server"], one["target"]) == (SERVER, "cmp2a")
    said = terminal.type(*DRAIN, "--dry-run").out
    assert f"web-1 ({SERVER}): to cmp2a as it looks now" in said
    assert "Nothing was changed." in said


def test_without_a_terminal_it_wants_to_be_told_yes(terminal: Terminal) -> None:
    ran = terminal.type(*DRAIN)
    assert ran.code == 2
    assert "Add --yes if you are sure." in ran.err


def test_on_a_terminal_it_asks(terminal: Terminal, answers: Callable[[str], None]) -> None:
    answers("n\n")
    ran = terminal.type(*DRAIN)
    assert ran.code == 1
    assert "1 servers leave cell cell1 for cell2" in ran.err
    answers("y\n")
    assert terminal.type(*DRAIN).code == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "Give either --cell or --host."),
        (("--cell", "cell1", "--host", "cmp1a"), "Give either --cell or --host."),
        (("--cell", "cell9"), "There is no cell 'cell9'."),
        (("--host", "cmp9"), "There is no host 'cmp9'."),
        (("--cell", "cell1", "--to-cell", "cell1"), "Cell 'cell1' cannot take the servers."),
        (("--cell", "cell1", "--window", "later"), "no window of time"),
        (("--cell", "cell1", "--max-failures", "few"), "no number of failures"),
        (("--cell", "cell1", "--confirm-after", "soon"), "no length of time"),
    ],
)
def test_what_cannot_be_drained_is_refused(
    terminal: Terminal, argv: tuple[str, ...], said: str
) -> None:
    ran = terminal.type("drain", *argv, "--yes")
    assert ran.code in (1, 2)
    assert said in ran.err


def test_confirmed_servers_leave_nothing_behind(terminal: Terminal) -> None:
    ran = terminal.type(*DRAIN, "--yes", "--confirm-after", "0s")
    assert ran.code == 0
    assert "1 moved, 1 confirmed." in ran.out
    assert "wait to be confirmed" not in ran.out


def test_of_a_long_journal_the_newest_moves_can_be_listed_alone(terminal: Terminal) -> None:
    terminal.type(*DRAIN, "--yes", "--confirm-after", "0s")
    assert [each["number"] for each in terminal.type("moves", "--json").json["moves"]] == [1, 2]
    (newest,) = terminal.type("moves", "--last", "1", "--json").json["moves"]
    assert (newest["number"], newest["verb"]) == (2, "confirm")
    assert "Moves 1 to 1 are not shown." in terminal.type("moves", "--last", "1").out
    assert "not shown" not in terminal.type("moves", "--last", "9").out


def test_the_rate_is_shared_by_the_workers(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []
    opened = terminal.open_cloud

    def spied(*args: Any, **more: Any) -> Any:
        asked.append((more["bwlimit"], more["compress"]))
        return opened(*args, **more)

    monkeypatch.setattr(desk, "open_cloud", spied)
    terminal.type(*DRAIN, "--yes", "--parallel", "4", "--bwlimit", "8M", "--compress")
    assert (2 << 20, True) in asked
