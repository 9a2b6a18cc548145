"""Servers that something works on: they are not at rest, so most of what is odd is no finding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cellmove.audit.facts import Facts, Server
from cellmove.audit.findings import Finding, Severity, UnderWay, Where
from cellmove.dbcopy.database import now
from cellmove.journal import State

STUCK_SECONDS: Final = 3600
"""After so long without a written word of it, somebody should look."""
GUARD_SECONDS: Final = 120
"""So long nova may take from its lock to the record of the migration."""
GUARDS: Final = ("resize_prep", "resize_migrating", "resize_migrated", "resize_finish")
WAITING: Final = ("finished",)
"""A migration that waits for the customer's word, and not for nova's."""


def under_way(facts: Facts) -> dict[str, UnderWay]:
    """Server -> who works on it."""
    found: dict[str, UnderWay] = {}
    for key, entry in facts.open_moves.items():
        name = facts.server(key).name or entry.move.name
        why = f"move {entry.number} ({entry.verb}) is {entry.state.value}"
        go_on = "undo" if entry.state is State.UNDOING else "resume"
        do = f"cellmove show {entry.number}, then cellmove {go_on} {entry.number}"
        found[key] = UnderWay(key, name, why, do)
    for key, server in facts.servers.items():
        why = _of_nova(server)
        if why and key not in found:
            found[key] = UnderWay(key, server.name, why, f"openstack server event list {key}")
    return found


def stuck(facts: Facts) -> Iterator[Finding]:
    """What has been under way for too long, and no move of the journal explains it."""
    for key, server in facts.servers.items():
        why = _of_nova(server)
        if not why or key in facts.open_moves:
            continue
        age_seconds = _age_seconds(server)
        here = server.here
        cell = here.cell.name if here else ""
        host = here.host if here else ""
        guard = here is not None and here.task_state in GUARDS and not server.migrations
        if here is not None and guard and age_seconds > GUARD_SECONDS:
            seen = (
                f"{here.cell.name} has it locked ({here.task_state}), and no resize is in flight."
            )
            free = "UPDATE instances SET task_state = NULL WHERE deleted = 0"
            free += f" AND uuid = '{key}' AND task_state = '{here.task_state}'"
            do: tuple[str, ...] = (f'mysql {here.cell.name} -e "{free}"',)
            yield Finding(
                "guard-left",
                Severity.ODD,
                Where(key, server.name, cell, host),
                seen,
                do,
                always=True,
            )
        elif age_seconds > STUCK_SECONDS:
            seen = f"For {age_seconds / 3600:.0f} h nothing was written of it: {why}."
            do = (f"openstack server event list {key}", f"nova reset-state --active {key}")
            yield Finding(
                "stuck", Severity.ODD, Where(key, server.name, cell, host), seen, do, always=True
            )


def _of_nova(server: Server) -> str:
    """Why a server is not at rest, by its rows; empty: it is."""
    rows = server.visible or server.copies
    tasks = [
        f"task_state {each.task_state} in {each.cell.name}" for each in rows if each.task_state
    ]
    cells = {each.cell for each in rows}
    running = [
        f"migration {each.uuid} ({each.kind}) is {each.status} in {each.cell.name}"
        for each in server.migrations
        if each.cell in cells and each.status not in WAITING
    ]
    building = [f"it is {each.vm_state}" for each in rows if each.vm_state in ("building", "")]
    return "; ".join(tasks + running + building)


def _age_seconds(server: Server) -> float:
    times = [each.changed_at for each in server.copies]
    times += [each.changed_at for each in server.migrations]
    known = [each for each in times if each is not None]
    return (now() - max(known)).total_seconds() if known else 0.0
