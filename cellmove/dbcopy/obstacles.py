"""Why a server's records cannot be copied into another cell: found before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from cellmove.dbcopy.copy import PER_CELL, Records, leftovers, read_records
from cellmove.dbcopy.database import Database, Row, Rows
from cellmove.dbcopy.schema import CHARSET, MAX_BYTES, REQUIRED
from cellmove.dbcopy.tables import CENSUS, COPIED, Fate, unknown_tables
from cellmove.errors import Refused

STALE_STATUSES = ("finished", "confirming")
"""nova's confirm, revert and delete take the first migration of such a status that they find
(nova 26: db/main/api.py:migration_get_by_instance_and_status), so there may be only the move's."""

_OF_THE_COPY = frozenset({"id", "action_id", "created_at", "deleted"})
"""Columns that a copy fills by itself."""


def obstacles(source: Database, target: Database, server: str) -> list[Refused]:
    """Every reason to refuse; empty: none.

    Raises:
        Conflict: the source cell does not have the server.
    """
    with source.read() as rows:
        records = read_records(rows, server)
        found = [*_refused_rows(rows, server, source.name), *_stale_migrations(records)]
    found += _unknown_rows(source, records)
    with target.read() as rows:
        found += _what_does_not_fit(records, rows, target.name)
        found += _leftovers(rows, server, target.name)
    return found


def _refused_rows(rows: Rows, server: str, cell: str) -> Iterator[Refused]:
    looked = [table for table in CENSUS if table.fate is Fate.REFUSE]
    counted = rows.counts(*((table.name, {table.key: server}) for table in looked))
    for table, count in zip(looked, counted, strict=True):
        if count:
            yield Refused(
                f"The server has something that does not travel: {table.why}.",
                f"{table.name} of {cell} has {count} row(s) of it.",
                "Detach what they stand for, or delete them if nothing does.",
            )


def _stale_migrations(records: Records) -> Iterator[Refused]:
    for row in records.tables["migrations"]:
        if row["status"] in STALE_STATUSES:
            yield Refused(
                "nova would take an old migration of the server for this move.",
                f"Migration {row['uuid']} still has status {row['status']}.",
                "See that nothing runs for it any more, then set its status to `error`.",
            )


def _unknown_rows(database: Database, records: Records) -> Iterator[Refused]:
    unknown = unknown_tables(database)
    with database.read() as rows:
        wanted = [(n, {column: records.instance[to]}) for n, (column, to) in unknown.items()]
        counted = rows.counts(*wanted)
    for name, count in zip(unknown, counted, strict=True):
        if count:
            yield Refused(
                f"{database.name} has a table that this version of cellmove does not know.",
                f"{name} has {count} row(s) of the server, which would be lost.",
                "Use a cellmove that knows this release of nova.",
            )


def _what_does_not_fit(records: Records, rows: Rows, cell: str) -> Iterator[Refused]:
    for table in COPIED:
        found = records.tables[table.name]
        there = rows.table(table.name)
        if not found:
            continue
        if there is None:
            yield _lost(cell, f"no table {table.name}", f"{len(found)} row(s) there")
            continue
        only_here = found[0].keys() - set(there.columns.keys())
        for column in sorted(only_here - set(PER_CELL.get(table.name, ()))):
            # A flag that is off, or an empty text, says no more than a release without it.
            if filled := sum(bool(row[column]) for row in found):
                yield _lost(cell, f"no column {table.name}.{column}", f"{filled} value(s) in it")
        for each in there.columns:
            yield from _column_reasons(cell, table.name, each, found)
        yield from _too_long(cell, table.name, found, rows.packet_bytes())


def _lost(cell: str, lacks: str, holds: str) -> Refused:
    return Refused(
        "Something that the server has would be lost: the cells are of different releases.",
        f"{cell} has {lacks}, and the server has {holds}.",
        "Bring both cells to the same release of nova, or empty it if it is of no use.",
    )


def _column_reasons(
    cell: str, table: str, column: sa.Column[Any], found: tuple[Row, ...]
) -> Iterator[Refused]:
    name = f"{table}.{column.name}"
    values = [row.get(column.name) for row in found]
    if column.info.get(REQUIRED) and None in values and column.name not in _OF_THE_COPY:
        yield Refused(
            "The target cell wants to know something that the source cell does not say.",
            f"{name} of {cell} must not be NULL, and the server has nothing for it.",
            "Bring both cells to the same release of nova, or fill it in.",
        )
    texts = [value for value in values if isinstance(value, str)]
    if any(not _fits(column, value) for value in texts):
        yield Refused(
            "The target cell cannot hold something that the server has.",
            f"{name} of {cell} is too narrow for it ({column.info.get(CHARSET) or column.type}).",
            "Change it to what the source cell has, or shorten what the server has there.",
        )


def _fits(column: sa.Column[Any], value: str) -> bool:
    if column.info.get(CHARSET) in ("utf8", "utf8mb3") and any(c > "\uffff" for c in value):
        return False
    if isinstance(column.type, sa.String) and column.type.length is not None:
        return len(value) <= column.type.length
    most_bytes = column.info.get(MAX_BYTES)
    return most_bytes is None or len(value.encode()) <= most_bytes


def _too_long(
    cell: str, table: str, found: tuple[Row, ...], packet_bytes: int | None
) -> Iterator[Refused]:
    if packet_bytes is None:
        return
    longest = max(_bytes(row) for row in found)
    # Quotes, commas and the statement's own words.
    if longest + 4096 > packet_bytes:
        yield Refused(
            "A record of the server is larger than the target cell takes in one statement.",
            f"A row of {table} has {longest} bytes; `max_allowed_packet` of {cell} is "
            f"{packet_bytes}.",
            "Raise `max_allowed_packet` of the target cell's database.",
        )


def _bytes(row: Row) -> int:
    return sum(len(value.encode()) for value in row.values() if isinstance(value, str))


def _leftovers(rows: Rows, server: str, cell: str) -> Iterator[Refused]:
    for name, count in leftovers(rows, server).items():
        yield Refused(
            f"{cell} already has records of the server.",
            f"{name} has {count} row(s) of it (soft-deleted ones count).",
            "Undo or finish the move that left them, or purge them with nova-manage.",
        )
