"""Lanes that run at the same time: whatever their turns, the move ends, or is undone, the same."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from cellmove.conductor import Conductor
from cellmove.errors import StepFailed, Stopped, TakenBack
from cellmove.journal import Journal, Mark, Verb
from cellmove.plan import ABREAST, SCORES, stretches
from cellmove.steps.base import Step
from tests.fakes.invariants import unsafe, unsound
from tests.unit.rehearsal import Rehearsal, rehearsed, timeless
from tests.unit.samples import Ground, One, Sample, Three, Two, move

STRETCHES = [
    pytest.param(verb, number, id=f"{verb}-{number}")
    for verb, found in ABREAST.items()
    for number in range(len(found))
]
UNDONE = [
    each
    for each in STRETCHES
    if each.values in {("resize", 0), ("resize", 1), ("resize", 2), ("revert", 0)}
]
"""Those that can be taken back whole; after the others there is no way back, or nothing left."""
TURNS = 2
"""Orders that are tried of each stretch: in each another lane goes first."""


class Killed(BaseException):
    """The process is gone."""


class Stretch:
    """One stretch of a rehearsed verb."""

    def __init__(self, play: Rehearsal, verb: Verb, number: int) -> None:
        self.play = play
        kinds = set(chain.from_iterable(ABREAST[verb][number]))
        [self.lanes] = [
            lanes
            for lanes in stretches(verb, play.steps)
            if {type(step) for lane in lanes for step in lane} & kinds
        ]
        self.begin = min(play.steps.index(lane[0]) for lane in self.lanes)
        self.end = self.begin + sum(map(len, self.lanes))

    def restart(self) -> None:
        """The world just before it."""
        self.play.back_to(self.play.moments[self.begin])

    def orders(self) -> Iterator[list[Step]]:
        """The whole plan, with the lanes' turns as they may come; each lane keeps its order."""
        before, after = self.play.steps[: self.begin], self.play.steps[self.end :]
        for turn in range(TURNS):
            rest = [list(lane) for lane in self.lanes]
            chance = random.Random(turn)
            ahead = rest[-1 - turn % len(rest)]
            merged = [ahead.pop(0)]
            while any(rest):
                merged.append(chance.choice([lane for lane in rest if lane]).pop(0))
            yield [*before, *merged, *after]

    def walk(self, steps: Sequence[Step], count: int) -> None:
        """A fresh conductor goes on with these steps, for so many."""
        answers = iter([False] * count + [True])
        with suppress(Stopped):
            self.play.conductor(should_stop=lambda: next(answers)).run(self.play.entry, steps)


@pytest.fixture(scope="module")
def stretch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Verb, int], Stretch]:
    plays: dict[Verb, Rehearsal] = {}

    def made(verb: Verb, number: int) -> Stretch:
        if verb not in plays:
            plays[verb] = rehearsed(tmp_path_factory.mktemp(verb), verb)
        return Stretch(plays[verb], verb, number)

    return made


@pytest.mark.parametrize("verb", list(SCORES))
def test_lanes_are_parts_of_the_score_in_its_order(verb: Verb) -> None:
    score = SCORES[verb]
    for lanes in ABREAST[verb]:
        places = [[score.index(kind) for kind in lane] for lane in lanes]
        every = sorted(chain.from_iterable(places))
        assert all(lane == sorted(lane) for lane in places)
        # What stands between two of them must be one of them, or it would have to wait.
        assert every == list(range(every[0], every[-1] + 1))
    kinds = [*chain.from_iterable(chain.from_iterable(ABREAST[verb]))]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("verb", list(SCORES))
def test_all_steps_of_a_plan_are_in_its_stretches_once(tmp_path: Path, verb: Verb) -> None:
    play = rehearsed(tmp_path, verb)
    found = [step for lanes in stretches(verb, play.steps) for lane in lanes for step in lane]
    assert sorted(found, key=play.steps.index) == list(play.steps)


@pytest.mark.parametrize("verb", list(SCORES))
def test_lanes_are_begun_in_the_order_in_which_they_are_declared(
    tmp_path: Path, verb: Verb
) -> None:
    declared = [*chain.from_iterable(chain.from_iterable(ABREAST[verb]))]
    for lanes in stretches(verb, rehearsed(tmp_path, verb).steps):
        begun = [declared.index(type(lane[0])) for lane in lanes if len(lanes) > 1]
        assert begun == sorted(begun)


@pytest.mark.no_cover  # slower by half with it, and nothing new is covered
@pytest.mark.parametrize(("verb", "number"), STRETCHES)
def test_whatever_the_turns_the_stretch_ends_the_same_and_never_unsafe(
    stretch: Callable[[Verb, int], Stretch], verb: Verb, number: int
) -> None:
    part = stretch(verb, number)
    expected = timeless(part.play.moments[part.end].snapshot)
    for steps in part.orders():
        part.restart()
        for _ in range(part.begin, part.end):
            part.walk(steps, 1)
            assert unsafe(part.play.world) == []
        assert timeless(part.play.world.snapshot()) == expected


@pytest.mark.no_cover  # slower by half with it, and nothing new is covered
@pytest.mark.parametrize(("verb", "number"), UNDONE)
def test_whatever_the_turns_all_that_was_begun_is_taken_back(
    stretch: Callable[[Verb, int], Stretch], verb: Verb, number: int
) -> None:
    part = stretch(verb, number)
    for steps in part.orders():
        for count in range(1, part.end - part.begin):
            part.restart()
            part.walk(steps, count)
            part.play.conductor().undo(part.play.entry, part.play.steps)
            assert part.play.world.snapshot() == part.play.moments[0].snapshot, count
            assert unsound(part.play.world) == [], count


@pytest.mark.parametrize(("verb", "number"), UNDONE)
def test_a_death_inside_two_lanes_at_once_is_finished_or_taken_back(
    stretch: Callable[[Verb, int], Stretch], verb: Verb, number: int
) -> None:
    part = stretch(verb, number)
    play, expected = part.play, timeless(part.play.moments[part.end].snapshot)
    before, after = play.steps[: part.begin], play.steps[part.end :]
    for one, other in combinations(part.lanes, 2):
        for finishing in (True, False):
            part.restart()
            for lane in (one, other):
                rest = [step for each in part.lanes if each is not lane for step in each]
                play.world.trap.arm(2, "after", Killed)
                with suppress(Killed):
                    part.walk([*before, *lane, *rest, *after], 1)
                play.world.trap.arm(0, "before")
            if finishing:
                part.walk(play.steps, part.end - part.begin)
                assert timeless(play.world.snapshot()) == expected
            else:
                play.conductor().undo(play.entry, play.steps)
                assert play.world.snapshot() == play.moments[0].snapshot


class Stage:
    """A conductor that walks two lanes, one and two beside three, at the same time."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal = journal
        self.ground = Ground()
        self.steps = [kind(move()) for kind in (One, Two, Three)]
        self.number = journal.open_move("resize", self.steps[0].move)
        self.stop = threading.Event()
        self.seen: list[tuple[str, Mark]] = []
        monkeypatch.setattr("cellmove.conductor.stretches", self._stretches)

    def _stretches(self, _verb: Verb, steps: Sequence[Step]) -> list[list[Sequence[Step]]]:
        return [[steps[:2], steps[2:]]]

    def conduct(self) -> None:
        conductor = Conductor(
            self.journal,
            self.ground.as_cloud(),
            lambda step, mark: self.seen.append((step.name, mark)),
            self.stop.is_set,
            abreast=True,
        )
        conductor.conduct(self.number, self.steps, take_back=True)

    def marks(self, step: str) -> list[Mark]:
        return [e.mark for e in self.journal.entry(str(self.number)).events if e.step == step]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    journal = Journal(tmp_path / "journal.db")
    yield Stage(journal, monkeypatch)
    journal.close()


def instead(monkeypatch: pytest.MonkeyPatch, kind: type[Sample], do: Callable[[], None]) -> None:
    """The step does this, then its work."""
    execute: Any = kind.execute

    def doing(step: Sample, cloud: Any) -> None:
        do()
        execute(step, cloud)

    monkeypatch.setattr(kind, "execute", doing)


def together(meeting: threading.Barrier) -> None:
    """Wait for the others."""
    meeting.wait()


def test_lanes_run_at_the_same_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=60)
    instead(monkeypatch, One, lambda: together(meeting))
    instead(monkeypatch, Three, lambda: together(meeting))
    stage.conduct()
    assert stage.ground.made == {"one", "two", "three"}
    assert all(stage.marks(s) == [Mark.BEGUN, Mark.DONE] for s in ("one", "two", "three"))


def test_when_a_lane_fails_the_others_end_after_their_step_and_all_is_taken_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, failed = threading.Event(), threading.Event()

    def fail() -> None:
        assert begun.wait(60)
        raise StepFailed("The cable broke.")

    def watch(_journal: Journal, *told: Any, **more: Any) -> None:
        write(_journal, *told, **more)
        if told[2] is Mark.FAILED:
            failed.set()

    def slow() -> None:
        begun.set()
        assert failed.wait(60)

    write = Journal.write
    monkeypatch.setattr(Journal, "write", watch)
    instead(monkeypatch, Three, fail)
    instead(monkeypatch, One, slow)
    with pytest.raises(TakenBack, match="The cable broke"):
        stage.conduct()
    assert stage.ground.made == set()
    assert stage.marks("one") == [Mark.BEGUN, Mark.DONE, Mark.UNDOING, Mark.UNDONE]
    assert stage.marks("two") == []


def test_a_stop_ends_all_lanes_after_their_steps(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(2, action=stage.stop.set, timeout=60)
    instead(monkeypatch, One, lambda: together(meeting))
    instead(monkeypatch, Three, lambda: together(meeting))
    with pytest.raises(Stopped, match="Stopped before two"):
        stage.conduct()
    assert stage.ground.made == {"one", "three"}


def test_nobody_leaves_a_lane_behind_even_when_interrupted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def slow() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupted.wait(60)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        instead(monkeypatch, One, slow)
        with pytest.raises(Stopped):
            stage.conduct()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stage.marks("one") == [Mark.BEGUN, Mark.DONE]
    assert stage.marks("two") == []
