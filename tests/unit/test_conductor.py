"""The conductor's rules, each with a test that goes red without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cellmove.conductor import Conductor
from cellmove.errors import (
    Refused,
    StepFailed,
    Stopped,
    TakenBack,
    UndoIncomplete,
    Unknown,
    Unreachable,
)
from cellmove.journal import Entry, Journal, Mark, State
from cellmove.model import Move
from cellmove.steps.base import Step
from tests.unit.samples import Final, Ground, One, Sample, Three, Two, failing, move


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


class Stage:
    """A conductor over a ground, and one move of three steps."""

    def __init__(self, journal: Journal, kinds: Sequence[type[Sample]] = (One, Two, Three)) -> None:
        self.journal = journal
        self.ground = Ground()
        self.move: Move = move()
        self.number = journal.open_move("resize", self.move)
        self.steps: tuple[Step, ...] = tuple(kind(self.move) for kind in kinds)
        self.seen: list[tuple[str, Mark]] = []
        self.stop = False
        self.conductor = Conductor(
            journal,
            self.ground.as_cloud(),
            lambda step, mark: self.seen.append((step.name, mark)),
            lambda: self.stop,
        )

    @property
    def entry(self) -> Entry:
        return self.journal.entry(str(self.number))

    @property
    def marks(self) -> list[tuple[str, Mark]]:
        return [(event.step, event.mark) for event in self.entry.events]

    def conduct(self, *, take_back: bool = True) -> None:
        self.conductor.conduct(self.number, self.steps, take_back=take_back)

    def undo(self) -> None:
        self.conductor.undo(self.entry, self.steps)


@pytest.fixture
def stage(journal: Journal) -> Stage:
    return Stage(journal)


def test_all_steps_are_run_in_order_and_the_move_is_finished(stage: Stage) -> None:
    stage.conduct()
    assert stage.ground.made == {"one", "two", "three"}
    assert stage.marks == [
        ("one", Mark.BEGUN),
        ("one", Mark.DONE),
        ("two", Mark.BEGUN),
        ("two", Mark.DONE),
        ("three", Mark.BEGUN),
        ("three", Mark.DONE),
        ("", Mark.FINISHED),
    ]


def test_begun_is_on_disk_before_the_touch(stage: Stage) -> None:
    at_touch: list[Mark | None] = []
    stage.ground.before_execute["one"] = lambda: at_touch.append(stage.entry.last("one"))
    stage.conduct()
    assert at_touch == [Mark.BEGUN]


def test_undoing_is_on_disk_before_the_touch_back(stage: Stage) -> None:
    at_touch: list[Mark | None] = []
    stage.ground.on_undo["one"] = lambda: at_touch.append(stage.entry.last("one"))
    stage.ground.on_execute["two"] = failing()
    with pytest.raises(TakenBack):
        stage.conduct()
    assert at_touch == [Mark.UNDOING]


def test_undo_is_given_what_the_first_look_saved(stage: Stage) -> None:
    """A second look, after a half-made change, would save our own work."""
    stage.ground.on_execute["one"] = failing()
    with pytest.raises(UndoIncomplete):
        stage.conduct(take_back=False)
    stage.ground.on_execute["two"] = failing()
    with pytest.raises(UndoIncomplete):
        stage.conduct(take_back=False)
    stage.undo()
    assert stage.ground.log[-2:] == ["undo two to one", "undo one to "]


def test_what_was_there_before_is_found_and_stays(stage: Stage) -> None:
    stage.ground.made.add("one")
    stage.ground.on_execute["three"] = failing()
    with pytest.raises(TakenBack):
        stage.conduct()
    assert stage.ground.made == {"one"}
    assert "execute one" not in stage.ground.log
    assert ("one", Mark.FOUND) in stage.marks


def test_a_step_that_was_begun_is_ours_even_when_its_effect_is_whole(stage: Stage) -> None:
    """The crash came after the touch and before DONE: then it is not found but done."""
    stage.journal.write(stage.move.id, "one", Mark.BEGUN, {"made": []})
    stage.ground.made.add("one")
    stage.conduct()
    assert "execute one" not in stage.ground.log
    assert stage.entry.last("one") is Mark.DONE


def test_a_half_done_step_is_executed_again(stage: Stage) -> None:
    stage.journal.write(stage.move.id, "one", Mark.BEGUN, {"made": []})
    stage.conduct()
    assert stage.ground.log.count("execute one") == 1
    assert [mark for mark in stage.marks if mark == ("one", Mark.BEGUN)] == [("one", Mark.BEGUN)]


def test_finished_steps_are_not_looked_at_again(stage: Stage) -> None:
    """Later steps consume what earlier ones made: a look would find it gone."""
    stage.ground.on_execute["two"] = failing()
    with pytest.raises(UndoIncomplete):
        stage.conduct(take_back=False)
    stage.ground.on_execute.clear()
    stage.ground.log.clear()
    stage.ground.made.discard("one")
    stage.conduct()
    assert "inspect one" not in stage.ground.log
    assert stage.entry.state is State.FINISHED


def test_an_effect_that_is_not_there_is_a_failure(stage: Stage) -> None:
    stage.ground.weak.add("two")
    with pytest.raises(TakenBack) as taken_back:
        stage.conduct()
    assert "two had no effect" in taken_back.value.seen


def test_an_unknown_outcome_is_settled_by_looking(stage: Stage) -> None:
    stage.ground.on_execute["two"] = failing("no answer", Unknown)
    stage.conduct()
    assert stage.entry.state is State.FINISHED


def test_an_unknown_outcome_without_effect_is_the_failure_that_is_told(stage: Stage) -> None:
    stage.ground.weak.add("two")
    stage.ground.on_execute["two"] = failing("no answer", Unknown)
    with pytest.raises(TakenBack) as taken_back:
        stage.conduct()
    assert "no answer" in taken_back.value.seen


def test_a_blocked_step_is_not_executed(stage: Stage) -> None:
    stage.ground.blocked.add("two")
    with pytest.raises(TakenBack) as taken_back:
        stage.conduct()
    assert "execute two" not in stage.ground.log
    assert "somebody sits on it" in taken_back.value.seen


def test_a_failure_is_taken_back_newest_first(stage: Stage) -> None:
    stage.ground.on_execute["three"] = failing("no luck")
    with pytest.raises(TakenBack) as taken_back:
        stage.conduct()
    assert stage.ground.made == set()
    undone = [line.split()[1] for line in stage.ground.log if line.startswith("undo")]
    assert undone == ["three", "two", "one"]
    assert stage.entry.state is State.TAKEN_BACK
    assert "no luck" in taken_back.value.seen


def test_a_defect_in_a_step_is_taken_back_too(stage: Stage) -> None:
    stage.ground.on_execute["two"] = failing("oops", ZeroDivisionError)
    with pytest.raises(TakenBack) as taken_back:
        stage.conduct()
    assert taken_back.value.seen == "ZeroDivisionError: oops"


def test_a_failure_stands_when_that_is_asked_for(stage: Stage) -> None:
    stage.ground.on_execute["two"] = failing()
    with pytest.raises(UndoIncomplete) as stands:
        stage.conduct(take_back=False)
    assert stage.ground.made == {"one", "two"}
    assert f"cellmove resume {stage.number}" in stands.value.do


def test_undo_stops_at_the_first_thing_that_resists(stage: Stage) -> None:
    stage.ground.on_execute["three"] = failing("first")
    stage.ground.on_undo["two"] = failing("stuck")
    with pytest.raises(UndoIncomplete) as incomplete:
        stage.conduct()
    assert stage.ground.made == {"one", "two"}
    assert not any(line.startswith("undo one") for line in stage.ground.log)
    assert "not taken back: two, one" in incomplete.value.what
    assert "first" in incomplete.value.what
    assert "stuck" in incomplete.value.seen
    assert f"cellmove undo {stage.number}" in incomplete.value.do
    assert stage.entry.state is State.UNDOING


def test_an_undo_that_stopped_goes_on_where_it_stopped(stage: Stage) -> None:
    stage.ground.on_execute["three"] = failing()
    stage.ground.on_undo["two"] = failing()
    with pytest.raises(UndoIncomplete):
        stage.conduct()
    stage.ground.on_undo.clear()
    stage.ground.log.clear()
    stage.undo()
    assert stage.ground.log == ["undo two to one", "undo one to "]
    assert stage.entry.state is State.TAKEN_BACK


def test_a_move_whose_undo_was_begun_never_goes_forward(stage: Stage) -> None:
    stage.ground.on_execute["three"] = failing()
    stage.ground.on_undo["two"] = failing()
    with pytest.raises(UndoIncomplete):
        stage.conduct()
    stage.ground.log.clear()
    with pytest.raises(Refused):
        stage.conduct()
    assert stage.ground.log == []


@pytest.mark.parametrize("mark", [Mark.FINISHED, Mark.TAKEN_BACK])
def test_a_move_that_is_over_is_not_touched_again(stage: Stage, mark: Mark) -> None:
    stage.journal.write(stage.move.id, "", mark)
    with pytest.raises(Refused):
        stage.conduct()
    with pytest.raises(Refused):
        stage.undo()
    assert stage.ground.log == []


def test_an_irreversible_step_refuses_undo_before_anything_is_touched(journal: Journal) -> None:
    stage = Stage(journal, (One, Final, Three))
    stage.ground.on_execute["three"] = failing("no luck")
    with pytest.raises(UndoIncomplete) as stands:
        stage.conduct()
    assert stands.value.seen == "no luck"
    assert f"cellmove resume {stage.number}" in stands.value.do
    with pytest.raises(Refused) as refused:
        stage.undo()
    assert "final was begun" in refused.value.seen
    assert stage.ground.made == {"one", "final", "three"}
    assert not any(line.startswith("undo") for line in stage.ground.log)


def test_before_an_irreversible_step_undo_is_possible(journal: Journal) -> None:
    stage = Stage(journal, (One, Final, Three))
    stage.ground.blocked.add("final")
    with pytest.raises(TakenBack):
        stage.conduct()
    assert stage.ground.made == set()


def test_a_request_to_stop_finishes_the_step_under_way(stage: Stage) -> None:
    def ask() -> None:
        stage.stop = True

    stage.ground.on_execute["one"] = ask
    with pytest.raises(Stopped) as stopped:
        stage.conduct()
    assert stage.entry.last("one") is Mark.DONE
    assert stage.entry.last("two") is None
    assert "before two" in stopped.value.what
    assert stage.ground.made == {"one"}


def test_a_stop_inside_a_step_is_covered_by_the_journal(stage: Stage) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    stage.ground.on_execute["two"] = interrupt
    with pytest.raises(Stopped):
        stage.conduct()
    assert stage.entry.last("two") is Mark.BEGUN
    stage.ground.on_execute.clear()
    stage.conduct()
    assert stage.entry.state is State.FINISHED


def test_steps_of_another_version_are_refused(stage: Stage) -> None:
    stage.journal.write(stage.move.id, "warp-space", Mark.BEGUN)
    for attempt in (stage.conduct, stage.undo):
        with pytest.raises(Refused) as refused:
            attempt()
        assert "warp-space" in refused.value.seen
    assert stage.ground.log == []


def test_the_watcher_is_told_of_every_step(stage: Stage) -> None:
    stage.ground.made.add("one")
    stage.ground.on_execute["three"] = failing()
    with pytest.raises(TakenBack):
        stage.conduct()
    assert stage.seen == [
        ("one", Mark.FOUND),
        ("two", Mark.BEGUN),
        ("two", Mark.DONE),
        ("three", Mark.BEGUN),
        ("three", Mark.FAILED),
        ("three", Mark.UNDOING),
        ("three", Mark.UNDONE),
        ("two", Mark.UNDOING),
        ("two", Mark.UNDONE),
    ]


class Broken(Journal):
    """A journal whose disk is full from some event on."""

    refuses: Mark | None = None

    def write(self, move: str, step: str, mark: Mark, *rest: object, **more: object) -> None:
        if mark is self.refuses:
            raise Unreachable("The journal did not take it.", "disk full.")
        super().write(move, step, mark, *rest, **more)  # type: ignore[arg-type]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Stage]:
    journal = Broken(tmp_path / "journal.db")
    yield Stage(journal)
    journal.close()


def test_nothing_is_touched_that_the_journal_does_not_take(full: Stage) -> None:
    assert isinstance(full.journal, Broken)
    full.journal.refuses = Mark.BEGUN
    with pytest.raises(TakenBack):
        full.conduct()
    assert not any(line.startswith("execute") for line in full.ground.log)


@pytest.mark.parametrize("mark", [Mark.UNDOING, Mark.UNDONE, Mark.TAKEN_BACK])
def test_a_journal_that_fails_while_taking_back_is_never_called_taken_back(
    full: Stage, mark: Mark
) -> None:
    assert isinstance(full.journal, Broken)
    full.journal.refuses = mark
    full.ground.on_execute["two"] = failing("first")
    with pytest.raises(UndoIncomplete) as incomplete:
        full.conduct()
    assert "first" in str(incomplete.value)
    assert "disk full" in str(incomplete.value)


def test_a_failure_that_cannot_be_written_down_is_told_all_the_same(full: Stage) -> None:
    assert isinstance(full.journal, Broken)
    full.journal.refuses = Mark.FAILED
    full.ground.on_execute["two"] = failing("first")
    with pytest.raises(TakenBack) as taken_back:
        full.conduct()
    assert "first" in taken_back.value.seen


def test_run_and_undo_raise_what_a_step_raised(stage: Stage) -> None:
    stage.ground.on_execute["one"] = failing("no luck")
    with pytest.raises(StepFailed, match="no luck"):
        stage.conductor.run(stage.entry, stage.steps)
