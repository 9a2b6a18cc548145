"""What all sources say, put together: each server with its copies, migrations and places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cellmove.dbcopy.leftovers import ApiRecords, CellRecords, Copy, Device, Migration
from cellmove.hosts.inventory import Inventory
from cellmove.journal import Entry
from cellmove.model import Attachment, Cell, ServerPort

LIVE = "live-migration"
SETTLED = ("active", "stopped", "paused", "suspended", "resized", "error")
"""States of a server that, if it is on a host, is there with all it has."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server over all cells."""

    id: str
    copies: tuple[Copy, ...] = ()
    """Rows that are not deleted."""
    deleted: tuple[Cell, ...] = ()
    """Cells with a soft-deleted row."""
    migrations: tuple[Migration, ...] = ()
    """Those in flight."""
    is_mapped: bool = False
    mapped_to: int | None = None
    """Row id of the cell; None: in no cell, which is being built."""

    @property
    def visible(self) -> tuple[Copy, ...]:
        """Rows that nova's API may show."""
        return tuple(each for each in self.copies if not each.hidden)

    @property
    def here(self) -> Copy | None:
        """The row that counts: the visible one of the mapped cell, else the only visible one."""
        mapped = [each for each in self.visible if each.cell.id == self.mapped_to]
        found = mapped or self.visible
        return found[0] if len(found) == 1 else None

    @property
    def name(self) -> str:
        """What people call it; empty when there is no row."""
        return next((each.name for each in (*self.visible, *self.copies)), "")

    @property
    def places(self) -> frozenset[str]:
        """Hosts that have to do with it: its own, and both of each migration in flight."""
        ends = {end for each in self.migrations for end in (each.source, each.target)}
        rows = self.visible or self.copies
        return frozenset({each.host for each in rows} | ends) - {""}

    @property
    def is_there(self) -> bool:
        """Whether some cell has it."""
        return bool(self.copies)

    @property
    def is_resized(self) -> bool:
        """Whether a resize waits for its confirmation, be it within a cell."""
        return any(each.vm_state == "resized" for each in self.visible)

    @property
    def is_live(self) -> bool:
        """Whether it migrates live, so that two hosts may rightly run it."""
        return any(each.kind == LIVE for each in self.migrations)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A source that did not answer."""

    what: str
    seen: str
    do: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One look at everything."""

    servers: Mapping[str, Server]
    cells: tuple[CellRecords, ...]
    spec_flavors: Mapping[str, str]
    open_moves: Mapping[str, Entry] = field(default_factory=dict)
    """Server -> its move in the journal that is neither finished nor taken back."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Migration of a move in the journal -> its server."""
    held: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """Consumer -> what it holds, by provider."""
    behind: Mapping[str, tuple[Migration, ...]] = field(default_factory=dict)
    """Consumer that is no server -> the migrations of this uuid."""
    ports: Mapping[str, ServerPort] = field(default_factory=dict)
    bound: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Host -> ports with a binding there."""
    attachments: Mapping[str, tuple[Attachment, ...]] = field(default_factory=dict)
    knows_volumes: bool = True
    hosts: Mapping[str, Inventory] = field(default_factory=dict)
    """Those that were reached."""
    troubles: tuple[Trouble, ...] = ()

    outside: frozenset[str] = frozenset()
    """Servers that live in no cell of ours: being built, or never placed (cell0)."""
    host_of: Mapping[str, str] = field(default_factory=dict)
    """Provider -> host, of all compute nodes."""
    cell_of: Mapping[str, Cell] = field(default_factory=dict)
    """Host -> its cell."""

    def server(self, server: str) -> Server:
        """The server; one without a row when nobody has it."""
        found = self.servers.get(server)
        return found or Server(server, deleted=deleted_in(self.cells, server))

    def provider_of(self, copy: Copy) -> str:
        """Uuid of the provider of the compute node that a row names; empty: none."""
        of = next(each for each in self.cells if each.cell == copy.cell)
        return of.nodes.get((copy.host, copy.node), "")

    def devices(self) -> Iterable[Device]:
        """The volumes that any cell names."""
        return (device for cell in self.cells for device in cell.devices)


def facts_of(api: ApiRecords, cells: tuple[CellRecords, ...]) -> Facts:
    """What the databases say."""
    ours = {each.cell.id for each in cells}
    nodes = [(*key, provider, each.cell) for each in cells for key, provider in each.nodes.items()]
    return Facts(
        servers_of(api, cells),
        cells,
        api.flavors,
        outside=frozenset(key for key, cell in api.cells.items() if cell not in ours),
        host_of={provider: host for host, _node, provider, _cell in nodes},
        cell_of={host: cell for host, _node, _provider, cell in nodes},
    )


def servers_of(api: ApiRecords, cells: Sequence[CellRecords]) -> dict[str, Server]:
    """Each server that a row or a mapping names; those that are mapped to be deleted have a row."""
    copies: dict[str, list[Copy]] = defaultdict(list)
    migrations: dict[str, list[Migration]] = defaultdict(list)
    for cell in cells:
        for copy in cell.copies:
            copies[copy.server].append(copy)
        for migration in cell.migrations:
            migrations[migration.server].append(migration)
    return {
        key: Server(
            key,
            tuple(copies.get(key, ())),
            deleted_in(cells, key),
            tuple(migrations.get(key, ())),
            key in api.cells,
            api.cells.get(key),
        )
        for key in (api.cells.keys() - api.doomed) | copies.keys()
    }


def deleted_in(cells: Iterable[CellRecords], server: str) -> tuple[Cell, ...]:
    """Cells with a soft-deleted row of the server."""
    return tuple(each.cell for each in cells if server in each.deleted)


def only(facts: Facts, server: str) -> Facts:
    """The facts of one server, for those sources that are always asked about all."""
    hosts = {host: _only(found, server) for host, found in facts.hosts.items()}
    return replace(facts, hosts=hosts)


def _only(found: Inventory, server: str) -> Inventory:
    return Inventory(
        {key: value for key, value in found.guests.items() if key == server},
        {key: value for key, value in found.directories.items() if value == server},
        found.is_shared,
        {key: value for key, value in found.halves.items() if key == server},
        {key: value for key, value in found.checkpoints.items() if key == server},
        {key: value for key, value in found.exports.items() if key == server},
        {key: value for key, value in found.plugs.items() if key == server},
    )
