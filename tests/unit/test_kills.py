"""The kill sweep (`python -m tests.crash`) sees what it must, and what it does not try."""

from __future__ import annotations

from contextlib import suppress

import pytest

from cellmove.journal import Verb
from cellmove.plan import SCORES
from cellmove.steps.network import BindPorts
from tests.crash.sweep import WHENS, Killed, Play, neighbours_are_untouched, sweep
from tests.unit.conftest import Played
from tests.unit.rehearsal import timeless


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
