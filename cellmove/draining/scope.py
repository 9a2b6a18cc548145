"""What is to be emptied, who lives there, and what earlier moves left to be done: one look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import MappedCell, mapped_cells
from cellmove.dbcopy.database import Row
from cellmove.dbcopy.residents import leavers, residents
from cellmove.draining.wishes import Resident, Wishes
from cellmove.errors import Refused
from cellmove.journal import Entry, Mark, State
from cellmove.model import Cell


@dataclass(frozen=True, slots=True)
class Scope:
    """A cell, or one hypervisor of it."""

    cell: Cell
    hosts: tuple[str, ...]
    """All that are emptied."""
    whole: bool
    """Whether it is the whole cell."""
    to_cell: Cell

    @property
    def key(self) -> str:
        """How the journal knows its drain: the same for all conductors."""
        return f"cell:{self.cell.uuid}" if self.whole else f"host:{self.hosts[0]}"

    @property
    def title(self) -> str:
        """What people call it."""
        return f"cell {_name(self.cell)}" if self.whole else f"host {self.hosts[0]}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A server that has left, and whose old disks and records are still here."""

    server: str
    name: str
    host: str
    """Where it was."""
    entry: Entry | None
    """The move that brought it away; None: somebody else did, nova itself perhaps."""

    @property
    def since(self) -> str:
        """When it arrived (ISO 8601); empty when it is not our move."""
        events = self.entry.events if self.entry else ()
        return next((each.at for each in events if each.mark is Mark.FINISHED), "")


@dataclass(frozen=True, slots=True)
class Found:
    """All there is to do, and all there is."""

    wanted: tuple[Resident, ...]
    """To be moved, in order; without those that have an open move."""
    begun: tuple[Entry, ...]
    """Open moves out of the scope: they come first."""
    waiting: tuple[Waiting, ...]
    staying: tuple[Resident, ...]
    """Living here, but not to be moved by this drain."""

    @property
    def empty(self) -> bool:
        """Whether nobody is left who would need the scope."""
        return not (self.wanted or self.begun or self.waiting or self.staying)


def scope_of(cloud: Cloud, wishes: Wishes) -> Scope:
    """What is to be emptied, and into which cell.

    Raises:
        Refused: there is no such cell or host, or the other cell is not clear.
    """
    with cloud.api.read() as rows:
        mapped = [each for each in mapped_cells(rows) if not each.is_cell0]
        of_host = None if wishes.host is None else api.cell_of_host(rows, wishes.host)
        cell = _cell(mapped, wishes, of_host)
        hosts = [wishes.host] if wishes.host else api.hosts_of_cell(rows, cell)
    return Scope(cell, tuple(hosts), wishes.host is None, _target(mapped, cell, wishes.to_cell))


def look(cloud: Cloud, scope: Scope, wishes: Wishes, entries: Iterable[Entry]) -> Found:
    """Who lives there, who waits to be confirmed, and what is half-way; `entries`: the journal's.

    Raises:
        Unreachable: the cell's database does not answer.
    """
    host = None if scope.whole else scope.hosts[0]
    with cloud.cells[scope.cell.uuid].read() as rows:
        here = [_resident(row) for row in residents(rows, host=host)]
        gone = leavers(rows, host=host)
    latest: dict[str, Entry] = {}
    for entry in entries:
        if entry.state is not State.TAKEN_BACK and _leaves(entry, scope):
            latest[entry.move.server] = entry
    begun = [entry for entry in latest.values() if entry.is_open]
    half_way = {entry.move.server for entry in begun}
    wanted = wishes.ordered(each for each in here if each.server not in half_way)
    chosen = half_way | {each.server for each in wanted}
    return Found(
        tuple(wanted),
        tuple(begun),
        tuple(
            Waiting(row["uuid"], row["display_name"] or "", row["host"], _arrival(latest, row))
            for row in gone
            if row["uuid"] not in half_way
        ),
        tuple(each for each in here if each.server not in chosen),
    )


def _cell(mapped: Iterable[MappedCell], wishes: Wishes, of_host: int | None) -> Cell:
    for each in mapped:
        cell = each.cell
        if cell.id == of_host or (not wishes.host and wishes.cell in (cell.name, cell.uuid)):
            return cell
    names = ", ".join(_name(each.cell) for each in mapped)
    if wishes.host:
        raise Refused(
            f"There is no host {wishes.host!r}.",
            "nova maps it to no cell.",
            "See `openstack compute service list`.",
        )
    raise Refused(f"There is no cell {wishes.cell!r}.", f"There are {names}.", "Name one of them.")


def _target(mapped: Iterable[MappedCell], own: Cell, wanted: str | None) -> Cell:
    others = [each.cell for each in mapped if each.cell != own and not each.disabled]
    names = ", ".join(map(_name, others)) or "none"
    found = [each for each in others if wanted in (None, each.name, each.uuid)]
    if len(found) == 1:
        return found[0]
    if wanted is not None:
        raise Refused(
            f"Cell {wanted!r} cannot take the servers.",
            "There is none of this name or UUID beside their own, or it is disabled.",
            f"Cells to choose from: {names}.",
        )
    raise Refused(
        "It is not clear where the servers shall go.",
        f"Cells that could take them: {names}.",
        "Name one with --to-cell.",
    )


def _leaves(entry: Entry, scope: Scope) -> bool:
    source = entry.move.source
    return source.cell.uuid == scope.cell.uuid and (scope.whole or source.name in scope.hosts)


def _arrival(latest: dict[str, Entry], row: Row) -> Entry | None:
    entry = latest.get(row["uuid"])
    return entry if entry and entry.verb == "resize" else None


def _resident(row: Row) -> Resident:
    return Resident(
        server=row["uuid"],
        name=row["display_name"] or "",
        project_id=row["project_id"] or "",
        host=row["host"],
        flavor=row["flavor"],
        created_at=str(row["created_at"] or ""),
        local_gb=row["local_gb"],
        tags=row["tags"],
    )


def _name(cell: Cell) -> str:
    return cell.name or cell.uuid
