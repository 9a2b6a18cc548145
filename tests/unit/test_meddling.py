"""Users, administrators and nova-compute in mid-move: whatever they do, the cloud ends whole."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from cellmove.errors import Refused, TakenBack
from cellmove.journal import Mark, State, Verb
from cellmove.plan import SCORES
from cellmove.steps.base import Step
from tests.fakes import others
from tests.fakes.invariants import foreign, home_cell, instances, unsafe
from tests.fakes.world import SERVER
from tests.unit.rehearsal import Rehearsal, rehearsed

BETWEEN = [
    pytest.param(verb, done, id=f"{verb}-before-{step.name}")
    for verb, score in SCORES.items()
    for done, step in enumerate(score)
]
Play = Callable[[Verb], Rehearsal]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """The verb run undisturbed, once."""

    @functools.cache
    def made(verb: Verb) -> Rehearsal:
        return rehearsed(tmp_path_factory.mktemp(verb), verb)

    return made


def taken_back(it: Rehearsal) -> str:
    """Undo; when it refuses because there is no way back, go on instead."""
    try:
        return it.conductor().undo(it.entry, it.steps)
    except Refused:
        it.conductor().conduct(it.number, it.steps, take_back=False)
        return ""


@pytest.mark.parametrize(("verb", "done"), BETWEEN)
def test_a_server_deleted_in_mid_move_leaves_nothing(play: Play, verb: Verb, done: int) -> None:
    it = play(verb)
    it.back_to(it.moments[done])
    before = foreign(it.world)
    whole = others.deletes(it.world)
    if done:
        with pytest.raises(Refused, match="was deleted"):
            it.conductor().conduct(it.number, it.steps, take_back=False)
    said = it.conductor().undo(it.entry, it.steps)
    assert it.entry.state is State.TAKEN_BACK
    if not whole:
        assert "openstack server delete" in said
        assert others.deletes(it.world), "nova's second try is in somebody's way"
    assert others.left_of_the_deleted(it.world) == []
    assert foreign(it.world) == before


@pytest.mark.parametrize(("verb", "done"), BETWEEN[::4])
def test_a_move_whose_server_is_deleted_under_it_clears_up_after_itself(
    play: Play, verb: Verb, done: int
) -> None:
    it = play(verb)
    it.back_to(it.moments[0])

    def watch(step: Step, mark: Mark) -> None:
        if step is it.steps[done] and mark in (Mark.BEGUN, Mark.FOUND):
            others.deletes(it.world)

    with pytest.raises(TakenBack, match=r"deleted meanwhile|openstack server delete"):
        it.conductor(watch).conduct(it.number, it.steps, take_back=True)
    if instances(it.world) and not all(row["deleted"] for row in instances(it.world).values()):
        others.deletes(it.world)
    assert others.left_of_the_deleted(it.world) == []


@pytest.mark.no_cover  # slower by half with it, and nothing new is covered
@pytest.mark.parametrize("state", ["error", "active"])
@pytest.mark.parametrize(("verb", "done"), BETWEEN)
def test_a_reset_state_keeps_nothing_from_being_taken_back(
    play: Play, verb: Verb, done: int, state: str
) -> None:
    it = play(verb)
    it.back_to(it.moments[done])
    others.resets(it.world, state)
    taken_back(it)
    whole_but_for_state(it)


@pytest.mark.no_cover  # slower by half with it, and nothing new is covered
@pytest.mark.parametrize(("verb", "done"), BETWEEN)
def test_a_restarted_nova_compute_keeps_nothing_from_being_taken_back(
    play: Play, verb: Verb, done: int
) -> None:
    it = play(verb)
    it.back_to(it.moments[done])
    others.restarts_compute(it.world)
    taken_back(it)
    whole_but_for_state(it)


def whole_but_for_state(it: Rehearsal) -> None:
    """Over, with one visible row and one guest; what an administrator has set stays set."""
    assert it.entry.state in (State.TAKEN_BACK, State.FINISHED)
    assert unsafe(it.world) == []
    rows = instances(it.world)
    assert [cell for cell, row in rows.items() if not row["hidden"]] == [home_cell(it.world)]
    assert rows[home_cell(it.world)]["task_state"] is None
    guests = [h.name for h in it.world.hosts.by_name.values() if h.domain(SERVER)]
    assert guests == [rows[home_cell(it.world)]["host"]]
    assert [h.tools() for h in it.world.hosts.by_name.values() if any(h.tools().values())] == []
