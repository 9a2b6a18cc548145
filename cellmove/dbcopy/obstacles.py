"""Why a server's records cannot be copied into another cell: found before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator

from cellmove.dbcopy.copy import Records, leftovers, read_records
from cellmove.dbcopy.database import Database, Rows
from cellmove.dbcopy.tables import CENSUS, COPIED, Fate, unknown_tables

STALE_STATUSES = ("finished", "confirming")
"""nova's confirm, revert and delete take the first migration of such a status that they find
(nova 26: db/main/api.py:migration_get_by_instance_and_status), so there may be only the move's."""


def obstacles(source: Database, target: Database, server: str) -> list[str]:
    """Reasons to refuse, one sentence each: what, what was seen, what to do. Empty: none.

    Raises:
        Conflict: the source cell does not have the server.
    """
    with source.read() as rows:
        records = read_records(rows, server)
        found = [*_refused_rows(rows, server, source.name), *_stale_migrations(records)]
    found += _unknown_rows(source, records)
    with target.read() as rows:
        found += _lost_columns(records, rows, target.name)
        found += _leftovers(rows, server, target.name)
    return found


def _refused_rows(rows: Rows, server: str, cell: str) -> Iterator[str]:
    for table in CENSUS:
        if table.fate is Fate.REFUSE:
            count = rows.count(table.name, **{table.key: server})
            if count:
                yield (
                    f"The server has {count} row(s) in {table.name} of {cell} ({table.why}): "
                    "detach what they stand for."
                )


def _stale_migrations(records: Records) -> Iterator[str]:
    for row in records.tables["migrations"]:
        if row["status"] in STALE_STATUSES:
            yield (
                f"An old migration of the server, {row['uuid']}, still has status "
                f"{row['status']} and nova would take it for this move: set it to `error`."
            )


def _unknown_rows(database: Database, records: Records) -> Iterator[str]:
    unknown = unknown_tables(database)
    with database.read() as rows:
        for name, (column, refers_to) in unknown.items():
            count = rows.count(name, **{column: records.instance[refers_to]})
            if count:
                yield (
                    f"The table {name} of {database.name} has {count} row(s) of the server and "
                    "this version of cellmove does not know the table: use one that does."
                )


def _lost_columns(records: Records, rows: Rows, cell: str) -> Iterator[str]:
    for table in COPIED:
        columns = rows.columns(table.name)
        filled = {
            column
            for row in records.tables[table.name]
            for column, value in row.items()
            if value is not None
        }
        for column in sorted(filled - columns):
            yield (
                f"{cell} has no column {table.name}.{column} and what the server has in it would "
                "be lost: bring both cells to the same nova release."
            )


def _leftovers(rows: Rows, server: str, cell: str) -> Iterator[str]:
    for name, count in leftovers(rows, server).items():
        yield (
            f"{cell} already has {count} row(s) of the server in {name} (soft-deleted ones count): "
            "undo or finish the move that left them, or purge them with nova-manage."
        )
