"""The queue of a drain: which conductor moves which server, however many conductors there are.

A drain is a scope that is being emptied; conductors that name the same scope in the same journal
share it. Before a conductor touches a server it takes its turn; all takings of a drain go through
one locked row, so that a server is nobody else's and the caps hold over all conductors together. A
dead conductor's turn counts no more, and is free.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa

from cellmove.errors import Refused
from cellmove.journal.entries import now
from cellmove.journal.leases import living, taken_over
from cellmove.journal.tables import DRAINS, HOLDERS, TURNS

Result = Literal["done", "failed", "left"]
"""How a turn ended; a server that was left may be taken again, in the same drain."""


class Busy(enum.Enum):
    """Why a server cannot be taken; the first two are of the server, the others pass."""

    TAKEN = "taken"
    """A living conductor (maybe this one) has it."""
    OVER = "over"
    """Its turn in this drain is over, done or failed; or the whole drain is closed."""
    TOTAL = "total"
    """As many servers as may be are under way."""
    HOST = "host"
    """The same for its source or its target host."""
    CELL = "cell"
    """The same for its source or its target cell."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How many turns of one drain may be under way at once, of all conductors together."""

    total: int
    per_host: int | None = None
    """That a host takes part in, as source or target; None: no cap."""
    per_cell: int | None = None
    """The same for a cell."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One server's, as the journal has it."""

    drain: int
    server: str
    source: str
    target: str
    """Host names; empty: not chosen yet."""
    source_cell: str
    target_cell: str
    token: str
    begun_at: str
    by_whom: str = ""
    """`PID on HOST`."""
    result: Result | None = None
    """None: under way, or its conductor died."""
    move: int | None = None
    note: str = ""
    ended_at: str | None = None


def open_drain(db: sa.Connection, scope: str) -> int:
    """The drain of this scope that is open; a new one when there is none."""
    found = db.scalar(sa.select(DRAINS.c.id).where(DRAINS.c.open_scope == scope))
    if found is not None:
        return int(found)
    new = DRAINS.insert().values(scope=scope, open_scope=scope, opened_at=now())
    key = db.execute(new).inserted_primary_key
    assert key is not None
    return int(key[0])


def take_turn(db: sa.Connection, wanted: Turn, holder: str, caps: Caps) -> Turn | Busy:
    """Make a server this holder's, if it is nobody's and no cap is full."""
    if not _lock(db, wanted.drain):
        return Busy.OVER
    alive = _judge(db)
    there = db.execute(_rows(wanted.drain).where(TURNS.c.server == wanted.server)).first()
    if there is not None:
        if there.token == wanted.token:
            return _turn(there)  # taken a moment ago, but the answer was lost
        if there.result in ("done", "failed"):
            return Busy.OVER
        if there.result is None and alive(there.holder):
            return Busy.TAKEN
    if busy := _full(_under_way(db, wanted.drain, alive), wanted, caps):
        return busy
    return _put(db, wanted, holder, known=there is not None)


def aim_turn(db: sa.Connection, turn: Turn, caps: Caps) -> Turn | Busy:
    """Give a turn that is ours the target it now names; when that is busy it keeps the old one.

    Raises:
        TakenOver: it is another conductor's by now.
    """
    if not _lock(db, turn.drain):
        return Busy.OVER
    if busy := _full(_under_way(db, turn.drain, _judge(db)), turn, caps):
        return busy
    aimed = _mine(turn).values(target=turn.target, target_cell=turn.target_cell)
    _require_one(db, aimed, turn)
    return turn


def end_turn(db: sa.Connection, turn: Turn, result: Result, *, move: int | None, note: str) -> None:
    """Write down how a turn ended.

    Raises:
        TakenOver: it is another conductor's by now.
    """
    ended = _mine(turn).values(result=result, move=move, note=note, ended_at=now())
    _require_one(db, ended, turn)


def _mine(turn: Turn) -> sa.Update:
    same = (TURNS.c.drain_id == turn.drain, TURNS.c.server == turn.server)
    return TURNS.update().where(*same, TURNS.c.token == turn.token)


def _require_one(db: sa.Connection, change: sa.Update, turn: Turn) -> None:
    if not db.execute(change).rowcount:
        raise taken_over(f"the turn of server {turn.server}")


def turns(db: sa.Connection, drain: int) -> list[Turn]:
    """All of a drain, in the order in which they were begun."""
    query = _rows(drain).order_by(TURNS.c.begun_at, TURNS.c.server)
    return [_turn(row) for row in db.execute(query)]


def failures(db: sa.Connection, drain: int) -> int:
    """How many turns of a drain have failed."""
    failed = (TURNS.c.drain_id == drain, TURNS.c.result == "failed")
    return int(db.scalar(sa.select(sa.func.count()).select_from(TURNS).where(*failed)) or 0)


def close_drain(db: sa.Connection, drain: int) -> bool:
    """End the drain for all; False while a living conductor has a turn under way."""
    if not _lock(db, drain):
        return True
    if _under_way(db, drain, _judge(db)):
        return False
    closed = DRAINS.update().where(DRAINS.c.id == drain)
    db.execute(closed.values(open_scope=None, closed_at=now()))
    return True


def _lock(db: sa.Connection, drain: int) -> bool:
    """Be alone with this drain until the transaction ends; False: it is closed."""
    row = db.execute(DRAINS.select().where(DRAINS.c.id == drain).with_for_update()).first()
    if row is None:
        raise Refused(
            f"There is no drain {drain}.",
            "The journal does not know it.",
            "Open it first, in the same journal.",
        )
    return row.closed_at is None


def _judge(db: sa.Connection) -> Callable[[str], bool]:
    """Who is alive, each asked once."""
    return cache(lambda holder: living(db, holder) is not None)


def _rows(drain: int) -> sa.Select[Any]:
    return sa.select(TURNS).where(TURNS.c.drain_id == drain)


def _under_way(db: sa.Connection, drain: int, alive: Callable[[str], bool]) -> list[sa.Row[Any]]:
    query = _rows(drain).where(TURNS.c.result.is_(None))
    return [row for row in db.execute(query) if alive(row.holder)]


def _full(under_way: Sequence[sa.Row[Any]], wanted: Turn, caps: Caps) -> Busy | None:
    others = [row for row in under_way if row.server != wanted.server]
    if len(others) >= caps.total:
        return Busy.TOTAL
    hosts = [{row.source, row.target} for row in others]
    if _reached(caps.per_host, hosts, {wanted.source, wanted.target}):
        return Busy.HOST
    cells = [{row.source_cell, row.target_cell} for row in others]
    if _reached(caps.per_cell, cells, {wanted.source_cell, wanted.target_cell}):
        return Busy.CELL
    return None


def _reached(cap: int | None, busy: Sequence[Collection[str]], wanted: set[str]) -> bool:
    if cap is None:
        return False
    return any(sum(name in each for each in busy) >= cap for name in wanted - {""})


def _put(db: sa.Connection, wanted: Turn, holder: str, *, known: bool) -> Turn:
    who = sa.select(HOLDERS.c.pid, HOLDERS.c.host).where(HOLDERS.c.id == holder)
    pid, host = db.execute(who).one()
    turn = replace(wanted, by_whom=f"{pid} on {host}")
    values = {name: getattr(turn, name) for name in Turn.__dataclass_fields__ if name != "drain"}
    values |= {"drain_id": turn.drain, "holder": holder}
    if known:
        same = (TURNS.c.drain_id == turn.drain, TURNS.c.server == turn.server)
        db.execute(TURNS.update().where(*same).values(**values))
    else:
        db.execute(TURNS.insert().values(**values))
    return turn


def _turn(row: sa.Row[Any]) -> Turn:
    names = Turn.__dataclass_fields__.keys() - {"drain"}
    return Turn(drain=row.drain_id, **{name: getattr(row, name) for name in names})
