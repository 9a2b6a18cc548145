"""Whole drains over the fake cloud: everybody once, whoever fails, dies or joins in."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellmove.draining.run import Drain, looked
from cellmove.draining.window import Window
from cellmove.draining.wishes import Limit
from cellmove.errors import StepFailed
from cellmove.interrupts import Interrupts
from cellmove.journal import Journal, Mark, State, Turn
from cellmove.steps.base import Step
from cellmove.steps.disks import CopyDisks, MakeTargetDirectory
from tests.unit.draining.town import Town, bury

Made = Callable[[int], Town]


class Killed(BaseException):
    """The process is gone."""


def fail_on(
    monkeypatch: pytest.MonkeyPatch, step: type[Step], broken: Callable[[Any], object]
) -> None:
    """Let a step do its work and then fail, for these moves."""
    real: Any = step.execute

    def execute(self: Any, cloud: Any) -> None:
        real(self, cloud)
        if broken(self.move):
            raise StepFailed(f"{self.move.target.name} is broken.", "It smokes.")

    monkeypatch.setattr(step, "execute", execute)


def ask_to_stop(interrupts: Interrupts) -> None:
    """As a first Ctrl-C does."""
    interrupts._heard(2, None)


def test_all_servers_of_a_cell_leave_and_each_is_whole(town: Made, journal: Journal) -> None:
    here = town(3)
    ended = here.run(journal)
    assert ended.keys() == {"done"}
    assert {each.server for each in ended["done"]} == set(here.servers)
    assert [here.wrong(server) for server in here.servers] == [[]] * 3
    _, found = here.look(journal, here.drain(journal).work.wishes)
    assert found.wanted == ()
    assert {each.server for each in found.waiting} == set(here.servers)


def test_only_the_servers_of_the_host_leave(town: Made, journal: Journal) -> None:
    here = town(4)
    here.run(journal, host="cmp1b")
    assert here.wrong(here.servers[1]) == here.wrong(here.servers[3]) == []
    assert here.wrong(here.servers[0], "cell1") == here.wrong(here.servers[2], "cell1") == []


def test_one_that_cannot_be_moved_is_told_and_keeps_no_other_back(
    town: Made, journal: Journal
) -> None:
    here = town(2)
    paused = here.add("farm-paused", "cmp1a", vm_state="paused")
    ended = here.run(journal)
    (left,) = ended["left"]
    assert left.server == paused
    assert "vm_state is paused" in str(left.error)
    assert {each.server for each in ended["done"]} == set(here.servers) - {paused}
    assert left.number is None


def test_one_that_fails_unfelt_lands_on_the_alternate(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(3)
    first = here.servers[0]
    fail_on(
        monkeypatch,
        MakeTargetDirectory,
        lambda move: move.server == first and move.target.name == "cmp2a",
    )
    ended = here.run(journal)
    assert len(ended["done"]) == 3
    assert here.rows(first)["cell2"]["host"] == "cmp2b"
    assert here.wrong(first) == []
    assert any("Now trying cmp2b." in each.note for each in here.heard)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_whose_conductor_died_in_the_undo_lands_on_the_alternate_too(
    town: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(1)
    fail_on(monkeypatch, MakeTargetDirectory, lambda move: move.target.name == "cmp2a")
    journal = _dead_in_an_undo(here, tmp_path / "journal.db")
    (done,) = here.run(journal)["done"]
    assert done.number == 2
    assert [entry.state for entry in journal.entries()] == [State.TAKEN_BACK, State.FINISHED]
    assert here.rows(here.servers[0])["cell2"]["host"] == "cmp2b"
    assert here.wrong(here.servers[0]) == []
    assert any(
        "Move 1 was taken back. cmp2a is broken." in each.note
        and each.note.endswith("Now trying cmp2b.")
        for each in here.heard
    )
    journal.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_whose_conductor_died_in_an_undo_that_was_felt_is_left_at_home(
    town: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(1)
    fail_on(monkeypatch, CopyDisks, lambda move: move.target.name == "cmp2a")
    journal = _dead_in_an_undo(here, tmp_path / "journal.db")
    (left,) = here.run(journal)["left"]
    assert left.note == "Move 1 was brought to its end: it is here."
    assert [entry.state for entry in journal.entries()] == [State.TAKEN_BACK]
    assert here.wrong(here.servers[0], "cell1") == []
    journal.close()


def test_a_host_that_does_not_answer_is_passed_over_and_told_with_the_result(
    town: Made, journal: Journal
) -> None:
    here = town(1)
    here.world.hosts.unreachable.add("cmp2a")
    (done,) = here.run(journal)["done"]
    assert done.target is not None
    assert done.target.name == "cmp2b"
    assert "cmp2a is passed over: cmp2a cannot be the target." in done.note
    assert any(each.note == done.note for each in here.heard if each.kind == "note")
    (turn,) = journal.turns(1)
    assert turn.note == done.note


def test_what_is_kept_of_a_failure_holds_nothing_of_the_cloud(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(1)
    here.add("farm-paused", "cmp1a", vm_state="paused", task_state="rebooting")
    fail_on(monkeypatch, CopyDisks, lambda _move: True)
    outcomes = [each for ended in here.run(journal).values() for each in ended]
    errors = [each.error for each in outcomes if each.error]
    assert len(errors) == 2
    for error in (*errors, *(each for it in errors for each in getattr(it, "reasons", ()))):
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_one_that_fails_for_good_is_at_home_and_told_with_every_host(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(3)
    first = here.servers[0]
    fail_on(monkeypatch, MakeTargetDirectory, lambda move: move.server == first)
    ended = here.run(journal)
    (failed,) = ended["failed"]
    assert failed.server == first
    assert "All of 2 hosts failed" in str(failed.error)
    assert journal.failures(1) == 1
    assert here.wrong(first, "cell1") == []
    assert len(ended["done"]) == 2


def test_a_later_run_tries_the_failed_one_again_and_lets_the_others_be(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(3)
    with monkeypatch.context() as trouble:
        fail_on(trouble, CopyDisks, lambda move: move.server == here.servers[0])
        assert len(here.run(journal)["failed"]) == 1
    new = here.add("farm-new", "cmp1a")
    ended = here.run(journal)
    assert {each.server for each in ended["done"]} == {here.servers[0], new}
    assert [here.wrong(server) for server in here.servers] == [[]] * 4


def test_too_many_failures_end_the_drain(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(3)
    fail_on(monkeypatch, CopyDisks, lambda _move: True)
    drain = here.drain(journal, parallel=1, max_failures=Limit(1))
    assert [each.kind for each in drain.run()] == ["failed", "failed"]
    assert drain.given_up
    assert [here.wrong(server, "cell1") for server in here.servers] == [[]] * 3


def test_asked_to_stop_the_steps_under_way_are_finished_and_a_later_run_goes_on(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(2)
    interrupts = Interrupts(lambda _text: None)
    with monkeypatch.context() as moment:
        fail_on(moment, MakeTargetDirectory, lambda _move: ask_to_stop(interrupts))
        drain = here.drain(journal, interrupts, parallel=1)
        (stopped,) = drain.run()
    assert (stopped.kind, drain.stopped) == ("stopped", True)
    (entry,) = journal.entries(only_open=True)
    marks = {event.step: event.mark for event in entry.events}
    assert marks[MakeTargetDirectory.name] is Mark.DONE
    assert set(marks.values()) == {Mark.DONE}
    assert len(here.run(journal)["done"]) == 2
    assert [here.wrong(server) for server in here.servers] == [[]] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_and_run_again_every_server_is_there_once_and_nothing_is_left_over(
    town: Made, tmp_path: Path, seed: int
) -> None:
    here = town(3)
    chance = random.Random(seed)
    for death in range(chance.randint(2, 4)):
        journal = Journal(tmp_path / "journal.db")
        drain = here.drain(journal)
        _die_after(here, drain, chance.randint(30, 700))
        drain.run()
        _live(here)
        bury(journal)
        for server in here.servers:
            shown = [row for row in here.rows(server).values() if not row["hidden"]]
            assert shown, f"death {death}: {server} is gone"
    journal = Journal(tmp_path / "journal.db")
    here.run(journal)
    assert journal.entries(only_open=True) == []
    journal.close()
    assert [here.wrong(server) for server in here.servers] == [[]] * 3


def _dead_in_an_undo(here: Town, path: Path) -> Journal:
    """What a drain left that was killed when it had begun to take a move back."""
    journal = Journal(path)
    drain = here.drain(journal)

    def dead() -> None:
        if any(entry.state is State.UNDOING for entry in journal.entries()):
            drain.given_up = True  # workers that wait for something to do are dead too
            raise Killed

    here.world.trap.watch = dead
    drain.run()
    _live(here)
    assert [entry.state for entry in journal.entries()] == [State.UNDOING]
    bury(journal)
    return Journal(path)


def _die_after(here: Town, drain: Drain, calls: int) -> None:
    """From this outside call on no call is made any more, by no thread."""
    trap = here.world.trap
    trap.calls = 0

    def dead() -> None:
        if trap.calls >= calls:
            drain.given_up = True  # workers that wait for something to do are dead too
            raise Killed

    trap.watch = dead


def _live(here: Town) -> None:
    here.world.trap.watch = lambda: None


def test_two_conductors_share_a_drain_and_no_server_is_moved_twice(
    town: Made, tmp_path: Path
) -> None:
    here = town(6)
    journals = [Journal(tmp_path / "journal.db") for _ in range(2)]
    drains = [here.drain(journal, parallel=2) for journal in journals]
    assert drains[0].work.drain == drains[1].work.drain
    threads = [threading.Thread(target=drain.run) for drain in drains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moved = [
        {each.server for each in drain.outcomes if each.kind == "done" and each.target}
        for drain in drains
    ]
    assert moved[0] | moved[1] == set(here.servers)
    assert not moved[0] & moved[1]
    assert all(moved)
    assert len(journals[0].entries()) == 6
    assert [here.wrong(server) for server in here.servers] == [[]] * 6
    for journal in journals:
        journal.close()


def test_what_a_dead_conductor_began_is_finished_by_the_one_that_lives(
    town: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(1)
    dying, living = (Journal(tmp_path / "journal.db") for _ in range(2))
    drain = here.drain(living)
    other = here.drain(dying, Interrupts(lambda _text: None))
    (task,) = other._tasks()
    turn = other.work.turn(task)
    assert isinstance(turn, Turn)
    with monkeypatch.context() as moment:
        heard = other.work.holds
        fail_on(moment, MakeTargetDirectory, lambda _move: ask_to_stop(heard._interrupts))
        moment.setattr(dying, "end_turn", lambda *_args, **_more: None)
        other.work.moved(task, turn)
    monkeypatch.setattr("cellmove.draining.run.HELD_SECONDS", 0.1)
    waits = threading.Thread(target=drain.run)
    waits.start()
    waits.join(1.0)
    assert waits.is_alive()
    bury(dying)
    waits.join(20)
    assert [each.kind for each in drain.outcomes] == ["done"]
    assert here.wrong(here.servers[0]) == []
    assert len(living.entries()) == 1
    living.close()


def test_no_host_has_more_moves_at_a_time_than_its_cap(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(4)
    seen: list[int] = []

    def under_way(move: Any) -> bool:
        turns = [each for each in journal.turns(1) if each.result is None]
        for host in (move.source.name, move.target.name):
            busy = sum(host in (each.source, each.target) for each in turns)
            seen.append(busy)
        return False

    fail_on(monkeypatch, MakeTargetDirectory, under_way)
    assert len(here.run(journal, parallel=4, per_host=1)["done"]) == 4
    assert max(seen) == 1
    assert {here.rows(server)["cell2"]["host"] for server in here.servers} == {"cmp2a", "cmp2b"}


def test_each_is_confirmed_when_its_time_has_come(town: Made, journal: Journal) -> None:
    here = town(2)
    ended = here.run(journal, confirm_after_seconds=0.5)
    assert {each.server for each in ended["confirmed"]} == set(here.servers)
    assert [list(here.rows(server)) for server in here.servers] == [["cell2"]] * 2
    assert [here.wrong(server) for server in here.servers] == [[]] * 2


def test_those_of_an_earlier_run_are_confirmed_when_they_are_due(
    town: Made, journal: Journal
) -> None:
    here = town(2)
    here.run(journal)
    ended = here.run(journal, confirm_after_seconds=0.0)
    assert {each.server for each in ended["confirmed"]} == set(here.servers)
    assert [list(here.rows(server)) for server in here.servers] == [["cell2"]] * 2


def test_outside_of_the_window_nothing_is_begun_and_until_when_is_told(
    town: Made, journal: Journal
) -> None:
    here = town(1)
    interrupts = Interrupts(lambda _text: None)
    monday_noon = 1795435200.0  # 2026-11-23 12:00 UTC
    window = Window.parse("Tue 13:00-14:00")
    drain = here.drain(journal, interrupts, clock=lambda: monday_noon, window=window)
    waits = threading.Thread(target=drain.run)
    waits.start()
    waits.join(0.3)
    assert waits.is_alive()
    interrupts._heard(2, None)
    waits.join(5)
    assert drain.outcomes == []
    assert journal.entries() == []
    assert any("nothing is begun until Tue 24 Nov 13:00" in each.note for each in here.heard)


def test_a_dry_run_takes_every_server_in_and_touches_nothing(town: Made, journal: Journal) -> None:
    here = town(2)
    paused = here.add("farm-paused", "cmp1a", vm_state="paused")
    drain = here.drain(journal)
    before = here.world.snapshot()
    outcomes = looked(drain.work, drain.found)
    assert here.world.snapshot() == before
    assert {each.server: each.kind for each in outcomes} == {
        here.servers[0]: "done",
        here.servers[1]: "done",
        paused: "left",
    }
    assert journal.entries() == []


def test_a_server_that_others_confirm_is_no_failure(town: Made, journal: Journal) -> None:
    here = town(1)
    here.run(journal)
    drain = here.drain(journal, confirm_after_seconds=0.0)
    here.run(journal, confirm_after_seconds=0.0)
    assert drain.run() == []


def test_a_defect_in_one_keeps_no_other_back(
    town: Made, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = town(2)

    drain = here.drain(journal)
    intake = type(drain.work)._intake

    def intake_with_a_bug(self: Any, opened: Any, task: Any, *more: Any) -> Any:
        if task.server == here.servers[0]:
            raise RuntimeError("a bug")
        return intake(self, opened, task, *more)

    monkeypatch.setattr(type(drain.work), "_intake", intake_with_a_bug)
    outcomes = {each.server: each for each in drain.run()}
    assert outcomes[here.servers[0]].kind == "failed"
    assert "a bug" in str(outcomes[here.servers[0]].error)
    assert outcomes[here.servers[1]].kind == "done"
