"""The laws every step keeps, each tried where its score has brought the fake cloud.

A new step is under them as soon as it stands in a score.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellmove.journal import Verb
from cellmove.plan import SCORES, plan
from cellmove.steps.base import Status, Step
from tests.fakes.trap import Blown, When
from tests.fakes.world import World, perform

CASES = [
    pytest.param(verb, index, vm_state, id=f"{verb}-{vm_state}-{step.name}")
    for verb, score in SCORES.items()
    for index, step in enumerate(score)
    for vm_state in ("active", "stopped")
]
WHENS: tuple[When, ...] = ("before", "inside", "after")


class Score:
    """A score run once over a fake cloud, with the state before each of its steps kept."""

    def __init__(self, folder: Path, verb: Verb, vm_state: str) -> None:
        self.world = World(folder, vm_state)
        if verb != "resize":
            for step in plan("resize", self.world.move("resize")):
                perform(step, self.world)
        self.steps = plan(verb, self.world.move(verb))
        self.states = []
        for step in self.steps:
            self.states.append(self.world.save())
            perform(step, self.world)

    def before(self, index: int) -> tuple[World, Step]:
        """The world in which all steps before this one have been done."""
        self.world.load(self.states[index])
        return self.world, self.steps[index]

    def blows(self, index: int) -> Iterator[tuple[World, Step, str]]:
        """The step's `execute`, to be cut off at each of its outside calls in each way."""
        world, step = self.before(index)
        world.trap.arm(0, "before")
        step.execute(world.cloud)
        for at in range(1, world.trap.calls + 1):
            for when in WHENS:
                world, step = self.before(index)
                world.trap.arm(at, when)
                yield world, step, f"call {at}, {when}"


Stage = Callable[[Verb, str], Score]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    @functools.cache
    def made(verb: Verb, vm_state: str) -> Score:
        return Score(tmp_path_factory.mktemp(f"{verb}-{vm_state}"), verb, vm_state)

    return made


def cut_off(world: World, step: Step) -> None:
    """Run into the trap that is set; some of a step's calls come after its work is done."""
    with contextlib.suppress(Blown):
        step.execute(world.cloud)
    world.trap.arm(0, "before")


@pytest.mark.parametrize(("verb", "index", "vm_state"), CASES)
def test_looking_changes_nothing(stage: Stage, verb: Verb, index: int, vm_state: str) -> None:
    world, step = stage(verb, vm_state).before(index)
    before = world.snapshot()
    step.inspect(world.cloud)
    assert before == world.snapshot()
    perform(step, world)
    after = world.snapshot()
    step.inspect(world.cloud)
    assert after == world.snapshot()


@pytest.mark.parametrize(("verb", "index", "vm_state"), CASES)
def test_twice_is_once(stage: Stage, verb: Verb, index: int, vm_state: str) -> None:
    world, step = stage(verb, vm_state).before(index)
    perform(step, world)
    once = world.snapshot()
    step.execute(world.cloud)
    assert step.inspect(world.cloud).status is Status.DONE
    assert once == world.snapshot()


@pytest.mark.parametrize(("verb", "index", "vm_state"), CASES)
def test_undo_after_whole_or_none_gives_back_what_was(
    stage: Stage, verb: Verb, index: int, vm_state: str
) -> None:
    world, step = stage(verb, vm_state).before(index)
    if not step.reversible:
        return  # the conductor refuses to undo it
    before = world.snapshot()
    saved = step.inspect(world.cloud).saved
    step.undo(world.cloud, saved)
    assert before == world.snapshot()
    ours, saved = perform(step, world)
    if ours:
        step.undo(world.cloud, saved)
        step.undo(world.cloud, saved)
        assert before == world.snapshot()


# no_cover: tests that go over lines a thousand times that others go over as well; counting the
# lines makes them half as slow again.
@pytest.mark.no_cover
@pytest.mark.parametrize(("verb", "index", "vm_state"), CASES)
def test_undo_after_half_gives_back_what_was(
    stage: Stage, verb: Verb, index: int, vm_state: str
) -> None:
    score = stage(verb, vm_state)
    world, step = score.before(index)
    look = step.inspect(world.cloud)
    if look.status is Status.DONE or not step.reversible:
        return  # found or irreversible: the conductor never undoes it
    before = world.snapshot()
    for cut, again, how in score.blows(index):
        cut_off(cut, again)
        again.undo(cut.cloud, look.saved)
        assert before == cut.snapshot(), how


@pytest.mark.no_cover
@pytest.mark.parametrize(("verb", "index", "vm_state"), CASES)
def test_an_undo_that_was_cut_off_goes_on_to_what_was(
    stage: Stage, verb: Verb, index: int, vm_state: str
) -> None:
    world, step = stage(verb, vm_state).before(index)
    if not step.reversible:
        return  # the conductor refuses to undo it
    before = world.snapshot()
    ours, saved = perform(step, world)
    if not ours:
        return
    done = world.save()
    world.trap.arm(0, "before")
    step.undo(world.cloud, saved)
    for at in range(1, world.trap.calls + 1):
        for when in WHENS:
            world.load(done)
            world.trap.arm(at, when)
            with contextlib.suppress(Blown):
                step.undo(world.cloud, saved)
            world.trap.arm(0, "before")
            step.undo(world.cloud, saved)
            assert before == world.snapshot(), f"call {at}, {when}"


@pytest.mark.no_cover
@pytest.mark.parametrize(("verb", "index", "vm_state"), CASES)
def test_execute_converges_from_half(stage: Stage, verb: Verb, index: int, vm_state: str) -> None:
    for world, step, how in stage(verb, vm_state).blows(index):
        cut_off(world, step)
        step.execute(world.cloud)
        assert step.inspect(world.cloud).status is Status.DONE, how


@pytest.mark.parametrize("vm_state", ["active", "stopped"])
@pytest.mark.parametrize("verb", list(SCORES))
def test_a_look_asked_too_early_is_no_error_and_changes_nothing(
    stage: Stage, verb: Verb, vm_state: str
) -> None:
    world, _ = stage(verb, vm_state).before(0)
    before = world.snapshot()
    for step in plan(verb, world.move(verb)):
        assert step.describe()
        assert step.inspect(world.cloud).status in (Status.TODO, Status.DONE), step.name
    assert before == world.snapshot()


def test_names_are_unique_in_each_score() -> None:
    for score in SCORES.values():
        names = [step.name for step in score]
        assert len(set(names)) == len(names)
