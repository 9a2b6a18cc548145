"""A process that dies anywhere: the next one finishes the move, or takes all of it back.

The whole sweep is `python -m tests.crash`; here each step dies in every way once, and of the
recoveries every eighth is killed too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress

import pytest

from cellmove.journal import Verb
from cellmove.plan import SCORES
from tests.crash.sweep import WHENS, Killed, neighbours_are_untouched, places, rehearsal, sweep
from tests.unit.rehearsal import Rehearsal, timeless

CASES = [
    pytest.param(verb, index, id=f"{verb}-{SCORES[verb][index].name}") for verb, index in places()
]
Play = Callable[[Verb], Rehearsal]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """The verb run undisturbed, once."""

    @functools.cache
    def made(verb: Verb) -> Rehearsal:
        return rehearsal(tmp_path_factory.mktemp(verb), verb)

    return made


@pytest.mark.parametrize(("verb", "index"), CASES)
def test_after_a_death_the_move_is_finished_or_wholly_taken_back(
    play: Play, verb: Verb, index: int
) -> None:
    tally = sweep(play(verb), index, killed_again=8, lost_answers=8)
    assert tally.deaths
    assert (tally.lost, tally.left_over, tally.failed) == ([], [], [])


@pytest.mark.parametrize("verb", list(SCORES))
def test_the_neighbours_are_as_they_were(play: Play, verb: Verb) -> None:
    assert neighbours_are_untouched(play(verb))


def test_a_move_that_died_at_every_step_ends_as_the_undisturbed_one(play: Play) -> None:
    for verb in SCORES:
        it = play(verb)
        it.back_to(it.moments[0])
        for at in range(1, 400):
            it.world.trap.arm(at % 7 + 1, WHENS[at % 3], Killed)
            with suppress(Killed):
                it.conductor().conduct(it.number, it.steps, take_back=False)
                break
        assert timeless(it.world.snapshot()) == timeless(it.end.snapshot)
