"""A process that dies anywhere: the next one finishes the move, or takes all of it back.

Death is blown at each outside call of each step: before it, inside its transaction, after it. What
the next process finds is the world and the journal; where two deaths leave the same of both, it is
tried once. That the step then ends as if undisturbed is enough: the next one begins there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import Refused, Stopped
from cellmove.journal import Mark, Verb
from cellmove.plan import SCORES
from tests.fakes.invariants import foreign, unsafe, unsound
from tests.fakes.trap import When
from tests.unit.rehearsal import Moment, Rehearsal, rehearsed, timeless

CASES = [
    pytest.param(verb, index, id=f"{verb}-{step.name}")
    for verb, score in SCORES.items()
    for index, step in enumerate(score)
]
WHENS: tuple[When, ...] = ("before", "inside", "after")


class Killed(BaseException):
    """The process is gone: nobody handles it, nothing is written down."""


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Verb], Rehearsal]:
    """The verb run undisturbed, once."""

    @functools.cache
    def made(verb: Verb) -> Rehearsal:
        return rehearsed(tmp_path_factory.mktemp(verb), verb)

    return made


def only(steps: int) -> Callable[[], bool]:
    """A `should_stop` that lets this many steps be done."""
    answers = iter([False] * steps + [True])
    return lambda: next(answers)


def advance(play: Rehearsal) -> None:
    """A fresh conductor goes on, for one step."""
    with suppress(Stopped):
        play.conductor(should_stop=only(1)).conduct(play.number, play.steps, take_back=False)


def wrecks(play: Rehearsal, index: int) -> Iterator[tuple[str, Moment]]:
    """What each death inside this step leaves, each different one once."""
    play.back_to(play.moments[index])
    advance(play)
    calls = play.world.trap.calls
    seen: list[Any] = []
    for at in range(1, calls + 1):
        for when in WHENS:
            play.back_to(play.moments[index])
            play.world.trap.arm(at, when, Killed)
            with suppress(Killed):
                advance(play)
                continue  # not a call that has such a moment
            events = [(event.step, event.mark, event.saved) for event in play.entry.events]
            left = timeless(play.world.snapshot()), events
            if left not in seen:
                seen.append(left)
                state, journal = play.world.save(), play.journal.content()
                yield f"call {at}, {when}", Moment(state, journal, play.world.snapshot())


@pytest.mark.parametrize(("verb", "index"), CASES)
def test_after_a_death_the_move_is_finished_or_wholly_taken_back(
    rehearsal: Callable[[Verb], Rehearsal], verb: Verb, index: int
) -> None:
    play = rehearsal(verb)
    expected = timeless(play.moments[index + 1].snapshot)
    for how, wreck in wrecks(play, index):
        with watched(play) as harm:
            play.back_to(wreck)
            advance(play)
            assert timeless(play.world.snapshot()) == expected, how
            assert play.entry.last(play.steps[index].name) in (Mark.DONE, Mark.FOUND), how
            play.back_to(wreck)
            take_back(play, wreck, how)
        assert harm == [], how


@contextmanager
def watched(play: Rehearsal) -> Iterator[list[str]]:
    """What is unsafe after any outside call of the block."""
    harm: list[str] = []
    play.world.trap.watch = lambda: harm.extend(unsafe(play.world))
    yield harm
    play.world.trap.watch = lambda: None


def take_back(play: Rehearsal, wreck: Moment, how: str) -> None:
    """Undo gives back the very first snapshot, or refuses and touches nothing."""
    begun = {event.step for event in play.entry.events}
    final = any(step.name in begun and not step.reversible for step in play.steps)
    if final:
        with pytest.raises(Refused):
            play.conductor().undo(play.entry, play.steps)
        assert play.world.snapshot() == wreck.snapshot, how
        return
    play.conductor().undo(play.entry, play.steps)
    assert play.world.snapshot() == play.moments[0].snapshot, how
    assert unsound(play.world) == [], how


@pytest.mark.parametrize("verb", list(SCORES))
def test_the_neighbours_are_as_they_were(
    rehearsal: Callable[[Verb], Rehearsal], verb: Verb
) -> None:
    play = rehearsal(verb)
    play.back_to(play.moments[0])
    before = foreign(play.world)
    play.back_to(play.end)
    assert foreign(play.world) == before


def test_a_move_that_died_at_every_step_ends_as_the_undisturbed_one(
    rehearsal: Callable[[Verb], Rehearsal], tmp_path: Path
) -> None:
    for verb in SCORES:
        play = rehearsal(verb)
        play.back_to(play.moments[0])
        for at in range(1, 400):
            play.world.trap.arm(at % 7 + 1, WHENS[at % 3], Killed)
            with suppress(Killed):
                play.conductor().conduct(play.number, play.steps, take_back=False)
                break
        assert timeless(play.world.snapshot()) == timeless(play.end.snapshot)
