"""A process that dies anywhere: the next one finishes the move, or takes all of it back.

The whole sweep is `python -m tests.crash`; here each step dies in every way once, of the
recoveries every eighth is killed too, and a drain dies at every eleventh moment.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from cellmove.journal import Verb
from cellmove.plan import SCORES
from cellmove.steps.network import BindPorts
from tests.crash import drains
from tests.crash.sweep import (
    WHENS,
    Killed,
    Play,
    Tally,
    neighbours_are_untouched,
    places,
    sweep,
)
from tests.unit.conftest import Played
from tests.unit.rehearsal import timeless

CASES = [
    pytest.param(verb, index, id=f"{verb}-{SCORES[verb][index].name}") for verb, index in places()
]
SHARE = 8
MOMENTS = 11


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> drains.Drained:
    """A drain of one server, run undisturbed, once."""
    return drains.Drained(tmp_path_factory.mktemp("drain"))


@pytest.mark.parametrize(("verb", "index"), CASES)
def test_after_a_death_the_move_is_finished_or_wholly_taken_back(
    play: Played, verb: Verb, index: int
) -> None:
    require_clean(sweep(play(verb), index, share=SHARE))


def test_after_a_death_of_a_drain_the_next_one_ends_it(drained: drains.Drained) -> None:
    assert len(drained.deaths) > 100
    for index in range(0, len(drained.deaths), MOMENTS):
        require_clean(drains.sweep(drained, index))


@pytest.mark.parametrize("verb", list(SCORES))
def test_the_neighbours_are_as_they_were(play: Played, verb: Verb) -> None:
    assert neighbours_are_untouched(play(verb))


def test_a_move_that_died_at_every_step_ends_as_the_undisturbed_one(play: Played) -> None:
    for verb in SCORES:
        it = play(verb).it
        it.back_to(it.moments[0])
        for at in range(1, 400):
            it.world.trap.arm(at % 7 + 1, WHENS[at % 3], Killed)
            with suppress(Killed):
                it.conductor().conduct(it.number, it.steps, take_back=False)
                break
        assert timeless(it.world.snapshot()) == timeless(it.end.snapshot)


def test_the_sweep_finds_a_step_that_is_not_taken_back(
    play: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SCORES["resize"].index(BindPorts)
    monkeypatch.setattr(BindPorts, "undo", lambda *_: None)
    tally = sweep(Play(play("resize").it), index, share=99)
    assert any("undo has not given back what was" in each for each in tally.lost)


def require_clean(tally: Tally) -> None:
    assert tally.cases
    assert (tally.lost, tally.left_over, tally.failed) == ([], [], [])
