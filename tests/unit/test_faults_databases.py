"""What a database's faults become: not felt, nothing written, or nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmove.errors import CellmoveError, Conflict, Unknown, Unreachable
from cellmove.model import Cell
from tests.fakes.databases import CELL1
from tests.fakes.world import SERVER, World
from tests.faults.databases import DbFault, Spoilt, spoiling

HERE: Cell = CELL1
CHANGED = "renamed meanwhile"
CONNECT, BEGIN, CHANGE, COMMIT = 1, 2, 3, 4
"""What a transaction with one change sends, in order."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("cellmove.dbcopy.database.RETRY_PAUSES_SECONDS", (0.0, 0.0))
    return World(tmp_path)


@pytest.fixture
def spoilt(world: World) -> Iterator[Spoilt]:
    with spoiling([world.cells[HERE.uuid]._engine]) as spoilt:
        yield spoilt


def rename(world: World) -> None:
    with world.cells[HERE.uuid].write() as rows:
        rows.change("instances", {"display_name": CHANGED}, uuid=SERVER)


def is_renamed(world: World) -> bool:
    query = "SELECT display_name FROM instances WHERE uuid = ?"
    return world.query(HERE.uuid, query, SERVER) == [{"display_name": CHANGED}]


@pytest.mark.parametrize("at", [CONNECT, BEGIN])
@pytest.mark.parametrize("fault", [DbFault.FULL, DbFault.GONE, DbFault.LOST])
def test_before_the_first_statement_a_fault_that_passes_is_not_felt(
    world: World, spoilt: Spoilt, fault: DbFault, at: int
) -> None:
    spoilt.arm(fault, at)
    rename(world)
    assert spoilt.met == 1
    assert is_renamed(world)


@pytest.mark.parametrize("fault", [DbFault.FULL, DbFault.GONE])
def test_a_fault_that_stays_is_unreachable_and_asked_three_times(
    world: World, spoilt: Spoilt, fault: DbFault
) -> None:
    spoilt.arm(fault, CONNECT, for_ever=True)
    with pytest.raises(Unreachable, match="cell cell1 cannot be reached") as caught:
        rename(world)
    require_three_sentences(caught.value)
    assert spoilt.met == 3
    assert not is_renamed(world)


@pytest.mark.parametrize("at", [CHANGE, COMMIT])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (DbFault.LOST, Unreachable),
        (DbFault.GONE, Unreachable),
        (DbFault.DEADLOCK, Conflict),
        (DbFault.LOCKED, Conflict),
    ],
)
def test_in_a_transaction_nothing_was_written_or_nobody_knows(
    world: World, spoilt: Spoilt, fault: DbFault, expected: type[CellmoveError], at: int
) -> None:
    spoilt.arm(fault, at)
    with pytest.raises(CellmoveError) as caught:
        rename(world)
    assert type(caught.value) is (Unknown if fault.breaks and at == COMMIT else expected)
    require_three_sentences(caught.value)
    assert not is_renamed(world)
    spoilt.disarm()
    rename(world)
    assert is_renamed(world)


def test_a_commit_whose_answer_is_lost_is_unknown_and_was_done(
    world: World, spoilt: Spoilt
) -> None:
    spoilt.arm(DbFault.ANSWER_LOST, COMMIT)
    with pytest.raises(Unknown, match="Nobody knows whether cell cell1"):
        rename(world)
    assert is_renamed(world)


def require_three_sentences(error: CellmoveError) -> None:
    assert all(part.endswith(".") for part in (error.what, error.seen, error.do)), error
