"""A server's records: read as one value, written into another cell, deleted as nova does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cellmove import errors
from cellmove.dbcopy.database import Row, Rows
from cellmove.dbcopy.tables import (
    ACTIONS,
    BY_NAME,
    CENSUS,
    COPIED,
    DELETION_ORDER,
    EVENTS,
    Fate,
)

PER_CELL = {
    "instances": ("compute_id",),
    "migrations": ("dest_compute_id",),
    "instance_extra": ("migration_context",),
}
"""Columns that hold ids of their own cell: NULL in a copy, for their steps to fill."""

EC2_IDS = "instance_id_mappings"


@dataclass(frozen=True, slots=True)
class Records:
    """All that one cell knows about a server: a frozen snapshot, soft-deleted rows left out."""

    server: str
    tables: Mapping[str, tuple[Row, ...]]
    """In the order of the census; rows in the order they were made."""

    @property
    def instance(self) -> Row:
        """The server's row in `instances`."""
        return self.tables["instances"][0]


def read_records(rows: Rows, server: str) -> Records:
    """Everything that is copied of a server.

    Raises:
        Conflict: this cell does not have the server.
    """
    tables: dict[str, tuple[Row, ...]] = {}
    for table in COPIED:
        where: dict[str, Any] = {table.key: server}
        if table.name == EVENTS:
            where = {table.key: _ids(tables[ACTIONS])}
        if "deleted" in rows.columns(table.name):
            where["deleted"] = 0
        tables[table.name] = tuple(sorted(rows.all(table.name, **where), key=_age))
    if not tables["instances"]:
        raise errors.Conflict(
            "The server's records cannot be read.",
            f"This cell has no server {server}.",
            "Look for it with `nova-manage cell_v2 verify_instance`.",
        )
    return Records(server, MappingProxyType(tables))


def write_records(rows: Rows, records: Records, *, instance: Mapping[str, Any]) -> None:
    """Insert a server's records into a cell that has none of it, under new ids.

    One statement a table, however many rows. `instance` overrides columns of the server's own
    row (`hidden`...). Times are kept; what holds ids of the source cell (`PER_CELL`) is NULL; the
    EC2 id is kept where it is free. Columns that this cell lacks are left out: `obstacles` has
    made sure that they hold nothing.

    Raises:
        Conflict: a record is in the way; the transaction is to be rolled back.
    """
    new_actions: dict[int, int] = {}
    for table in COPIED:
        found = records.tables[table.name]
        values = _portable(table.name, found, rows.columns(table.name))
        if table.name == "instances":
            values = [{**row, **instance} for row in values]
        elif table.name == EC2_IDS:
            values = _with_free_ids(rows, found, values)
        elif table.name == EVENTS:
            values = [row | {"action_id": new_actions[row["action_id"]]} for row in values]
        ids = rows.insert(table.name, values)
        if table.name == ACTIONS:
            new_actions = dict(zip(_ids(found), ids, strict=True))


def delete_records(rows: Rows, server: str) -> None:
    """Delete a server from a cell for good, soft-deleted rows too, in nova's own order.

    nova 26: db/main/api.py:instance_destroy(hard_delete=True). Nothing happens when there is none.

    Raises:
        Conflict: a table outside of the census refers to the server.
    """
    actions = _ids(rows.all(ACTIONS, instance_uuid=server))
    for name in DELETION_ORDER:
        key = BY_NAME[name].key
        if name != EVENTS:
            rows.delete(name, **{key: server})
        elif actions:
            rows.delete(name, **{key: actions})


def leftovers(rows: Rows, server: str) -> dict[str, int]:
    """Table -> how many rows this cell has of the server, soft-deleted ones too; not the zeros."""
    found = {}
    for table in CENSUS:
        if table.fate is Fate.STAY or table.name == EVENTS:
            continue
        count = rows.count(table.name, **{table.key: server})
        if count:
            found[table.name] = count
    return found


def _portable(name: str, found: Sequence[Row], columns: frozenset[str]) -> list[Row]:
    """The rows without their ids and what only their own cell understands."""
    gone = {column: None for column in PER_CELL.get(name, ()) if column in columns}
    return [
        {column: value for column, value in row.items() if column != "id" and column in columns}
        | gone
        for row in found
    ]


def _with_free_ids(rows: Rows, found: Sequence[Row], values: Sequence[Row]) -> list[Row]:
    """The EC2 id becomes the guest's `instance-id`: another one looks like a first boot to it."""
    ids = _ids(found)
    if not ids or rows.count(EC2_IDS, id=ids):
        return list(values)
    return [row | {"id": id_} for id_, row in zip(ids, values, strict=True)]


def _ids(found: Sequence[Row]) -> list[int]:
    return [row["id"] for row in found]


def _age(row: Row) -> tuple[str, int]:
    """Oldest first: ids alone lie where nova has copied newest first."""
    return str(row.get("created_at") or ""), row.get("id") or 0
