"""Calls of each step of each verb meet faults: not felt, or the move stands, and ends whole.

All calls with all faults: `python -m tests.faults`. Here each step meets some of them.
"""

from __future__ import annotations

import pytest

from cellmove.journal import Verb
from cellmove.plan import SCORES
from cellmove.steps.network import BindPorts
from tests.crash.sweep import Play, places
from tests.faults.moves import sweep
from tests.unit.conftest import Played

SHARE = 61
"""Of all faults of a step every so-manieth is met, counted from another one in each step."""


@pytest.mark.parametrize("verb", list(SCORES))
def test_after_a_fault_the_step_is_done_or_the_move_goes_on_or_back(
    play: Played, verb: Verb
) -> None:
    met = 0
    for each, index in places():
        if each == verb:
            tally = sweep(play(verb), index, share=SHARE, first=7 * index)
            assert (tally.lost, tally.left_over, tally.failed) == ([], [], [])
            met += tally.cases
    assert met >= len(SCORES[verb])


def test_the_sweep_finds_a_step_that_is_not_taken_back(
    play: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SCORES["resize"].index(BindPorts)
    monkeypatch.setattr(BindPorts, "undo", lambda *_: None)
    tally = sweep(Play(play("resize").it), index, share=9)
    assert any("undo has not given back what was" in each for each in tally.lost)
