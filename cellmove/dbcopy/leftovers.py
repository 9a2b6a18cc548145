"""What the databases say of all servers at once: a few statements a database, however many.

Only what an audit compares is read, and only as many columns as it needs.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from cellmove.dbcopy.database import Row, Rows
from cellmove.model import Cell

OVER: Final = ("confirmed", "reverted", "error", "failed", "completed", "cancelled", "done")
"""A migration of any other status is in flight.

nova 26: db/main/api.py:migration_get_in_progress_by_host_and_node.
"""
_FLAVOR_OF_ROW: Final = '$.cur."nova_object.data".flavorid'
_FLAVOR_OF_SPEC: Final = '$."nova_object.data".flavor."nova_object.data".flavorid'
_AT_ONCE: Final = 500
"""Names in one IN."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One row of `instances` that is not deleted."""

    server: str
    name: str
    cell: Cell
    hidden: bool
    vm_state: str
    task_state: str
    """Empty: nova does nothing with it."""
    host: str
    """Empty: none."""
    node: str
    changed_at: datetime.datetime | None
    """UTC, naive."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One row of `migrations`."""

    uuid: str
    server: str
    cell: Cell
    id: int
    status: str
    kind: str
    """`resize`, `migration`, `live-migration` or `evacuation`."""
    cross_cell: bool
    source: str
    target: str
    """Host; empty until it is known."""
    changed_at: datetime.datetime | None

    @property
    def in_flight(self) -> bool:
        """Whether nova or cellmove still works with it; so is one that waits for its end."""
        return self.status not in OVER


@dataclass(frozen=True, slots=True)
class Device:
    """A server's volume as a cell's block device mapping names it."""

    server: str
    cell: Cell
    volume: str
    attachment: str


@dataclass(frozen=True, slots=True)
class CellRecords:
    """All that an audit wants of a cell."""

    cell: Cell
    copies: tuple[Copy, ...]
    deleted: frozenset[str]
    """Servers whose row is soft-deleted: there may be many more of them than of others."""
    migrations: tuple[Migration, ...]
    """Those in flight."""
    failed: frozenset[str]
    """Uuids of migrations across cells that nova has given up here."""
    devices: tuple[Device, ...]
    contexts: Mapping[str, int]
    """Server -> id of the migration that its migration context names."""
    noted: frozenset[str]
    """Servers with a note of the state that they are to go back to after a resize."""
    flavors: Mapping[str, str]
    """Server -> flavorid."""
    nodes: Mapping[tuple[str, str], str]
    """Host and node -> uuid of the compute node, which is its provider's in Placement."""
    hypervisors: frozenset[str]
    """Hosts whose guests libvirt keeps."""


@dataclass(frozen=True, slots=True)
class ApiRecords:
    """All that an audit wants of the API database."""

    cells: Mapping[str, int | None] = field(default_factory=dict)
    """Server -> row id of the cell it is mapped to; None: it is being built."""
    doomed: frozenset[str] = frozenset()
    """Servers that are deleted as far as the API is concerned."""
    flavors: Mapping[str, str] = field(default_factory=dict)
    """Server -> flavorid of its request spec."""


def read_api(rows: Rows, server: str | None = None) -> ApiRecords:
    """Mappings and request specs of all servers, or of one."""

    def mappings(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        query = sa.select(of.instance_uuid, of.cell_id, of.queued_for_delete)
        return query if server is None else query.where(of.instance_uuid == server)

    def specs(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        flavor = _extracted(of.spec, _FLAVOR_OF_SPEC).label("flavor")
        query = sa.select(of.instance_uuid, flavor)
        return query if server is None else query.where(of.instance_uuid == server)

    found = list(rows.stream(("instance_mappings",), mappings))
    return ApiRecords(
        {row["instance_uuid"]: row["cell_id"] for row in found},
        frozenset(row["instance_uuid"] for row in found if row["queued_for_delete"]),
        {
            row["instance_uuid"]: _text(row["flavor"])
            for row in rows.stream(("request_specs",), specs)
        },
    )


def read_cell(rows: Rows, cell: Cell, server: str | None = None) -> CellRecords:
    """Everything of one cell, of all its servers or of one."""
    nodes = rows.all("compute_nodes", deleted=0)
    return CellRecords(
        cell,
        tuple(_copies(rows, cell, server)),
        frozenset(_deleted(rows, server)),
        tuple(_migrations(rows, cell, server)),
        frozenset(_failed(rows, server)),
        tuple(_devices(rows, cell, server)),
        dict(_contexts(rows, server)),
        frozenset(_noted(rows, server)),
        {row["instance_uuid"]: _text(row["flavor"]) for row in _flavors(rows, server)},
        {(row["host"], row["hypervisor_hostname"]): row["uuid"] for row in nodes},
        frozenset(row["host"] for row in nodes if row["hypervisor_type"] in ("QEMU", "KVM")),
    )


def migrations_named(rows: Rows, cell: Cell, uuids: Collection[str]) -> Iterator[Migration]:
    """The migrations of these uuids, whatever their status, soft-deleted ones too."""
    wanted = sorted(uuids)
    for at in range(0, len(wanted), _AT_ONCE):
        found = rows.all("migrations", uuid=wanted[at : at + _AT_ONCE])
        yield from (_migration(row, cell) for row in found)


def migrations_of(rows: Rows, cell: Cell, server: str) -> Iterator[Migration]:
    """All migrations of a server, whatever their status."""
    for row in rows.all("migrations", instance_uuid=server):
        yield _migration(row, cell)


def _copies(rows: Rows, cell: Cell, server: str | None) -> Iterator[Copy]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        found = sa.select(
            *(of.uuid, of.display_name, of.hidden, of.vm_state, of.task_state),
            *(of.host, of.node, of.updated_at, of.created_at),
        ).where(of.deleted == 0)
        return found if server is None else found.where(of.uuid == server)

    for row in rows.stream(("instances",), query):
        yield Copy(
            row["uuid"],
            row["display_name"] or "",
            cell,
            bool(row["hidden"]),
            row["vm_state"] or "",
            row["task_state"] or "",
            row["host"] or "",
            row["node"] or "",
            row["updated_at"] or row["created_at"],
        )


def _deleted(rows: Rows, server: str | None) -> Iterator[str]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        found = sa.select(of.uuid).where(of.deleted != 0)
        return found if server is None else found.where(of.uuid == server)

    for row in rows.stream(("instances",), query):
        yield row["uuid"]


def _migrations(rows: Rows, cell: Cell, server: str | None) -> Iterator[Migration]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        found = sa.select(table).where(of.deleted == 0, of.status.not_in(OVER))
        return found if server is None else found.where(of.instance_uuid == server)

    for row in rows.stream(("migrations",), query):
        yield _migration(row, cell)


def _failed(rows: Rows, server: str | None) -> Iterator[str]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        across = sa.and_(of.deleted == 0, of.status == "error", of.cross_cell_move == sa.true())
        found = sa.select(of.uuid).where(across)
        return found if server is None else found.where(of.instance_uuid == server)

    for row in rows.stream(("migrations",), query):
        yield row["uuid"] or ""


def _migration(row: Row, cell: Cell) -> Migration:
    return Migration(
        row["uuid"] or "",
        row["instance_uuid"] or "",
        cell,
        row["id"],
        row["status"] or "",
        row["migration_type"] or "",
        bool(row["cross_cell_move"]),
        row["source_compute"] or "",
        row["dest_compute"] or "",
        row["updated_at"] or row["created_at"],
    )


def _devices(rows: Rows, cell: Cell, server: str | None) -> Iterator[Device]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        found = sa.select(of.instance_uuid, of.volume_id, of.attachment_id).where(
            of.deleted == 0, of.attachment_id.is_not(None)
        )
        return found if server is None else found.where(of.instance_uuid == server)

    for row in rows.stream(("block_device_mapping",), query):
        yield Device(row["instance_uuid"], cell, row["volume_id"] or "", row["attachment_id"])


def _contexts(rows: Rows, server: str | None) -> Iterator[tuple[str, int]]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        found = sa.select(of.instance_uuid, of.migration_context).where(
            of.deleted == 0, of.migration_context.is_not(None)
        )
        return found if server is None else found.where(of.instance_uuid == server)

    for row in rows.stream(("instance_extra",), query):
        try:
            data = json.loads(row["migration_context"])["nova_object.data"]
            yield row["instance_uuid"], int(data["migration_id"])
        except (ValueError, LookupError, TypeError):
            continue  # nova writes "null", too.


def _noted(rows: Rows, server: str | None) -> Iterator[str]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        found = sa.select(of.instance_uuid).where(of.deleted == 0, of.key == "old_vm_state")
        return found if server is None else found.where(of.instance_uuid == server)

    for row in rows.stream(("instance_system_metadata",), query):
        yield row["instance_uuid"]


def _flavors(rows: Rows, server: str | None) -> Iterator[Row]:
    def query(table: sa.Table) -> sa.Select[Any]:
        of = table.c
        flavor = _extracted(of.flavor, _FLAVOR_OF_ROW).label("flavor")
        found = sa.select(of.instance_uuid, flavor).where(of.deleted == 0)
        return found if server is None else found.where(of.instance_uuid == server)

    yield from rows.stream(("instance_extra",), query)


def _extracted(column: sa.Column[Any], path: str) -> sa.ColumnElement[Any]:
    return sa.case((sa.func.json_valid(column) == 1, sa.func.json_extract(column, path)))


def _text(found: Any) -> str:
    """MariaDB and MySQL answer as JSON, SQLite as text."""
    text = "" if found is None else str(found)
    return str(json.loads(text)) if text[:1] == text[-1:] == '"' and len(text) > 1 else text
