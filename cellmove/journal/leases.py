"""A lease on a move: one process at a time works on it, and a dead one's is taken over."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cellmove.errors import Refused
from cellmove.journal.database import LEASES

Mine = dict[str, Any]
"""What tells a process from every other one, before and after it."""


def this_process() -> Mine:
    """How this process signs its leases."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
    }


def take(db: sa.Connection, move: str, mine: Mine) -> None:
    """Write the lease down.

    Raises:
        Refused: another process that still lives has it.
    """
    held = db.execute(LEASES.select().where(LEASES.c.move_id == move)).first()
    if held is not None:
        if _alive(held):
            raise _leased(held)
        # Names the dead holder: whoever took the lease over meanwhile keeps it.
        db.execute(LEASES.delete().where(*(c == held[i] for i, c in enumerate(LEASES.c))))
    try:
        db.execute(LEASES.insert().values(move_id=move, **mine))
    except sa.exc.IntegrityError:
        raise Refused(
            "Another process works on this move.",
            "It took the move a moment ago.",
            "Wait for it, or end it and run the command again.",
        ) from None


def give_back(db: sa.Connection, move: str, mine: Mine) -> None:
    """Forget the lease, if it is still ours."""
    ours = (LEASES.c[name] == value for name, value in mine.items())
    db.execute(LEASES.delete().where(LEASES.c.move_id == move, *ours))


def _leased(held: sa.Row[Any]) -> Refused:
    here = held.host == socket.gethostname()
    return Refused(
        "Another process works on this move.",
        f"Process {held.pid} on {held.host} holds it.",
        "Wait for it, or end it and run the command again."
        if here
        else f"Wait for it; if {held.host} is gone for good, delete the row of `leases`.",
    )


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _born(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when it does not live.

    With it a lease is not mistaken for that of another process that was given the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _alive(lease: sa.Row[Any]) -> bool:
    """Whether a lease's holder may still work; one on another machine is never presumed dead."""
    if lease.host != socket.gethostname():
        return True
    return bool(lease.boot == _boot() and lease.born and _born(lease.pid) == lease.born)
