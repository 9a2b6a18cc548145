"""What an incomplete undo leaves is named as commands to paste, for each step there is."""

from __future__ import annotations

import functools
import shlex
import sqlite3
from collections.abc import Callable

import pytest

from cellmove.errors import UndoIncomplete
from cellmove.journal import Verb
from cellmove.plan import SCORES
from cellmove.report.base import as_text
from cellmove.report.failures import Failure
from cellmove.report.history import Shown
from cellmove.steps import byhand
from tests.unit.rehearsal import Rehearsal, rehearsed

REVERSIBLE = [
    pytest.param(verb, step.name, id=f"{verb}-{step.name}")
    for verb, score in SCORES.items()
    for step in score
    if step.reversible
]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Verb], Rehearsal]:
    @functools.cache
    def made(verb: Verb) -> Rehearsal:
        return rehearsed(tmp_path_factory.mktemp(verb), verb)

    return made


@pytest.mark.parametrize(("verb", "name"), REVERSIBLE)
def test_every_step_that_can_be_undone_names_a_command_with_real_ids(
    play: Callable[[Verb], Rehearsal], verb: Verb, name: str
) -> None:
    it = play(verb)
    step = next(step for step in it.steps if step.name == name)
    told = byhand.commands(step, it.entry.saved(name))
    assert told
    move = it.move
    ids = {move.server, move.migration, move.source.name, move.target.name, move.request_id}
    ids |= {volume.mapping for volume in move.volumes}
    assert name in byhand._WAYS
    assert any(each in command for each in ids for command in told)
    for command in told:
        assert "{" not in command or command.startswith(("UPDATE", "INSERT")), command
        if command.startswith(("openstack", "ssh", "cellmove")):
            assert shlex.split(command, comments=True)
        else:
            assert sqlite3.complete_statement(command.partition("  -- ")[0]), command


def test_an_incomplete_undo_prints_them_and_show_goes_on_printing_them(
    play: Callable[[Verb], Rehearsal],
) -> None:
    it = play("resize")
    it.back_to(it.moments[-1])  # all is done, but not written down as finished
    it.world.hosts.unreachable.add("cmp1a")
    with pytest.raises(UndoIncomplete) as resists:
        it.conductor().undo(it.entry, it.steps)
    it.world.hosts.unreachable.clear()
    left = resists.value.remains
    assert left
    assert left[0] in as_text(Failure(resists.value))
    assert as_text(Shown(it.entry, [])).count(f"delete {it.move.server}") >= 1
    it.conductor().undo(it.entry, it.steps)
    assert it.world.snapshot() == it.moments[0].snapshot


def test_a_statement_gives_back_what_was_there_whatever_it_holds(
    play: Callable[[Verb], Rehearsal],
) -> None:
    it = play("resize")
    it.back_to(it.moments[1])  # the guard has been set
    step = it.steps[0]
    assert it.world.snapshot() != it.moments[0].snapshot
    told = byhand.commands(step, it.entry.saved(step.name))
    file = it.world.cells[it.move.source.cell.uuid]._engine.url.database
    with sqlite3.connect(str(file)) as raw:
        for statement in told:
            raw.execute(statement.partition(";  -- ")[0])
    raw.close()
    assert it.world.snapshot() == it.moments[0].snapshot
