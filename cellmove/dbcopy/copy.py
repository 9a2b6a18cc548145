"""A server's records: read as one value, written into another cell, deleted as nova does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cellmove import errors
from cellmove.dbcopy.database import IdsOf, Row, Rows
from cellmove.dbcopy.tables import (
    ACTIONS,
    BY_NAME,
    CENSUS,
    COPIED,
    DELETION_ORDER,
    EVENTS,
    Fate,
    Table,
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
    """Everything that is copied of a server, in one round trip.

    Raises:
        Conflict: this cell does not have the server.
    """
    found = rows.several(*((table.name, _alive(rows, table, server)) for table in COPIED))
    tables = {
        table.name: tuple(sorted(its, key=_age)) for table, its in zip(COPIED, found, strict=True)
    }
    if not tables["instances"]:
        raise errors.Conflict(
            "The server's records cannot be read.",
            f"This cell has no server {server}.",
            "Look for it with `nova-manage cell_v2 verify_instance`.",
        )
    return Records(server, MappingProxyType(tables))


def _alive(rows: Rows, table: Table, server: str) -> dict[str, Any]:
    where: dict[str, Any] = {table.key: server}
    if table.name == EVENTS:
        where = {table.key: IdsOf(ACTIONS, {"instance_uuid": server, "deleted": 0})}
    return where | ({"deleted": 0} if "deleted" in rows.columns(table.name) else {})


def write_records(rows: Rows, records: Records, *, instance: Mapping[str, Any]) -> None:
    """Insert a server's records into a cell that has none of it, under new ids; then read them.

    One statement a table, however many rows, and one round trip for all that is read again: what
    the cell has is compared with what it was given. `instance` overrides columns of the server's
    own row (`hidden`...). Times are kept; what holds ids of the source cell (`PER_CELL`) is NULL;
    the EC2 id is kept where it is free. Columns that this cell lacks are left out: `obstacles` has
    made sure that they hold nothing.

    Raises:
        Conflict: a record is in the way; the transaction is to be rolled back.
        StepFailed: the cell does not hold what was written; the transaction is to be rolled back.
    """
    new_actions: dict[int, int] = {}
    written: dict[str, list[Row]] = {}
    for table in COPIED:
        found = records.tables[table.name]
        values = _portable(table.name, found, rows.columns(table.name))
        if table.name == "instances":
            # NULL counts as visible; nova's own queries treat it so only here and there.
            values = [{**row, "hidden": bool(row["hidden"]), **instance} for row in values]
        elif table.name == EC2_IDS:
            values = _with_free_ids(rows, found, values)
        elif table.name == EVENTS:
            values = [row | {"action_id": new_actions[row["action_id"]]} for row in values]
        ids = rows.insert(table.name, values, ids=table.name == ACTIONS)
        if table.name == ACTIONS:
            new_actions = dict(zip(_ids(found), ids, strict=True))
        written[table.name] = values
    _check_written(written, read_records(rows, records.server))


def _check_written(written: Mapping[str, Sequence[Row]], there: Records) -> None:
    """What a column cannot hold is an error of the database; what it changes in silence is not."""
    for name, values in written.items():
        given, found = sorted(values, key=_tag), sorted(there.tables[name], key=_tag)
        wrong = {
            column
            for row, its in zip(given, found, strict=False)
            for column, value in row.items()
            if its[column] != value
        }
        if wrong or len(given) != len(found):
            raise errors.StepFailed(
                "The copy of the server's records is not exact.",
                f"{name} holds {len(found)} instead of {len(given)} row(s), or not what was "
                f"written into {', '.join(sorted(wrong)) or 'them'}.",
                "Nothing was written; compare the definition of this table in both cells.",
            )


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
    looked = [table for table in CENSUS if table.fate is not Fate.STAY and table.name != EVENTS]
    counted = rows.counts(*((table.name, {table.key: server}) for table in looked))
    return {table.name: count for table, count in zip(looked, counted, strict=True) if count}


def _portable(name: str, found: Sequence[Row], columns: frozenset[str]) -> list[Row]:
    """The rows without their ids and what only their own cell understands."""
    gone = {column: None for column in PER_CELL.get(name, ()) if column in columns}
    kept = [column for column in (found[0] if found else ()) if column in columns - {"id"}]
    return [{column: row[column] for column in kept} | gone for row in found]


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


def _tag(row: Row) -> str:
    """The order of the rows without an age; all others stay as they are."""
    return str(row.get("tag") or "") if "resource_id" in row else ""
