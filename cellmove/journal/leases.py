"""Leases: one process at a time works on a move or a turn; a dead one's are taken over.

A process that works on anything has one row in `holders`, which it keeps fresh. What it holds
(leases of moves, turns of drains) names that row. Somebody else takes over when it is certain that
the holder is dead, or when its row has not been fresh for as long as it promised. Whoever was only
asleep finds another name in its place at its next write, and stops.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cellmove.errors import Refused, Stopped
from cellmove.journal.tables import HOLDERS, LEASES, TURNS, Now

LEASE_SECONDS = 60.0
"""For how long a process of another machine is believed to be alive after it was last heard of."""


class TakenOver(Stopped):
    """Another process works on it now: this one was away for longer than its lease."""


def taken_over(what: str) -> TakenOver:
    """The error of the one who was away."""
    return TakenOver(
        f"Another process took {what} over.",
        "This one was not heard of for longer than its lease: stopped, or cut off.",
        "Leave it to the other one; see `cellmove moves`.",
    )


def boot_of_this_machine() -> str:
    """What tells this run of this machine, and this namespace of process ids, from all others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink().name.removeprefix('pid:')}"


def born(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when it does not live.

    With it a lease is not mistaken for that of another process that was given the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def keep_fresh(db: sa.Connection, holder: str, lease_seconds: float) -> None:
    """Write down that this process is alive; its row is made when there is none."""
    if beat(db, holder):
        return
    db.execute(
        HOLDERS.insert().values(
            id=holder,
            host=socket.gethostname(),
            boot=boot_of_this_machine(),
            pid=os.getpid(),
            born=born(os.getpid()),
            beat_at=Now(),
            lease_seconds=lease_seconds,
        )
    )


def beat(db: sa.Connection, holder: str) -> bool:
    """Freshen the row; False: there is none any more."""
    mine = HOLDERS.update().where(HOLDERS.c.id == holder).values(beat_at=Now())
    return db.execute(mine).rowcount > 0


def living(db: sa.Connection, holder: str) -> sa.Row[Any] | None:
    """The row of one who may still work; None: what it holds may be taken."""
    age = (Now() - HOLDERS.c.beat_at).label("age")
    row = db.execute(sa.select(HOLDERS, age).where(HOLDERS.c.id == holder)).first()
    return row if row is not None and _alive(row, db.dialect.name == "sqlite") else None


def _alive(row: sa.Row[Any], one_machine: bool) -> bool:  # noqa: FBT001 - named above
    """Certain of the processes of this machine; by the clock for those of others."""
    here = boot_of_this_machine()
    if row.boot == here:
        return bool(row.born) and born(row.pid) == row.born
    kernels = [boot.partition("/")[0] for boot in (row.boot, here)]
    if one_machine and row.host == socket.gethostname() and len(set(kernels)) > 1:
        return False  # this machine was started anew since
    return bool(row.age < row.lease_seconds)


def take(db: sa.Connection, move: str, holder: str) -> None:
    """Write the lease down.

    Raises:
        Refused: another process has it and may still work.
    """
    held = db.scalar(sa.select(LEASES.c.holder).where(LEASES.c.move_id == move).with_for_update())
    if held is None:
        db.execute(LEASES.insert().values(move_id=move, holder=holder))
    elif held != holder:
        if row := living(db, held):
            raise _leased(row)
        db.execute(LEASES.update().where(LEASES.c.move_id == move).values(holder=holder))


def refusal(db: sa.Connection, move: str) -> Refused | None:
    """The error for whoever wants this move while a process may still work on it."""
    held = db.scalar(sa.select(LEASES.c.holder).where(LEASES.c.move_id == move))
    row = living(db, held) if held else None
    return _leased(row) if row else None


def _leased(row: sa.Row[Any]) -> Refused:
    here = row.boot == boot_of_this_machine()
    return Refused(
        "Another process works on this move.",
        f"Process {row.pid} on {row.host} holds it, last heard of {max(row.age, 0):.0f} s ago.",
        "Wait for it, or end it and run the command again."
        if here
        else f"Wait for it; when it is not heard of for {row.lease_seconds:.0f} s, it is dead.",
    )


def require(db: sa.Connection, move: str, holder: str | None) -> None:
    """The fence: nothing is written to a move that is somebody else's by now.

    Locks the lease, so that nobody takes it over before this transaction has ended.

    Raises:
        TakenOver: it is not `holder`'s; None: it is somebody's.
    """
    query = sa.select(LEASES.c.holder).where(LEASES.c.move_id == move).with_for_update()
    if db.scalar(query) != holder:
        raise taken_over("the move")


def give_back(db: sa.Connection, move: str, holder: str) -> None:
    """Forget the lease, if it is still ours."""
    db.execute(LEASES.delete().where(LEASES.c.move_id == move, LEASES.c.holder == holder))


def held_by(db: sa.Connection, holder: str) -> set[str]:
    """The moves that this one has leased, and the tokens of its turns."""
    moves = sa.select(LEASES.c.move_id).where(LEASES.c.holder == holder)
    turns = sa.select(TURNS.c.token).where(TURNS.c.holder == holder, TURNS.c.result.is_(None))
    return {str(each) for query in (moves, turns) for each in db.scalars(query)}


def forget(db: sa.Connection, holder: str) -> None:
    """Remove a process's row, unless something is still in its name."""
    if not held_by(db, holder):
        db.execute(HOLDERS.delete().where(HOLDERS.c.id == holder))
