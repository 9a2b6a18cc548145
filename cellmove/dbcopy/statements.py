"""Statements for MariaDB and MySQL as text with a `%s` for each value: many rows, one round trip.

What SQLAlchemy would make of them takes longer to make than to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

Values = list[Any]

MOST_BYTES = 4 * 2**20
"""An INSERT is not longer than this, though the server may take more at once."""
_OTHER_BYTES = 32
"""A number, a time or NULL, as text, is shorter."""
_HEAD_BYTES = 4096
"""INSERT INTO, and the names of a table's columns, are shorter."""


@dataclass(frozen=True, slots=True)
class IdsOf:
    """In `where`: any of the ids of these rows of another table, looked up by the database."""

    table: str
    where: Mapping[str, Any]


def select(
    table: str, columns: Iterable[str], where: Mapping[str, Any], order: Iterable[str]
) -> tuple[str, Values]:
    """SELECT ... WHERE ... ORDER BY, and its values."""
    conditions, values = _conditions(where)
    by = f" ORDER BY {_names(order)}" if order else ""
    return f"SELECT {_names(columns)} FROM {_quoted(table)}{conditions}{by}", values


def insert(
    connection: sa.Connection,
    table: sa.Table,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    packet_bytes: int | None,
    ids: bool,
) -> list[int]:
    """Insert the rows' columns of these names; a column that a row lacks becomes NULL.

    One statement, or as many as `packet_bytes` make necessary (None: it is SQLite). Gives back the
    new ids in the order of the rows; none without `ids`, or when the key is no single number.
    """
    key = _number_key(table) if ids else None
    if packet_bytes is None:
        filled = [{name: row.get(name) for name in names} for row in rows]
        return _insert_into_sqlite(connection, table, key, filled)
    made: list[int] = []
    limit = min(packet_bytes - _HEAD_BYTES, MOST_BYTES)
    for part in _parts([[row.get(name) for name in names] for row in rows], limit):
        text = f"INSERT INTO {_quoted(table.name)} ({_names(names)}) VALUES {_places(part)}"
        values = tuple(value for row in part for value in row)
        if key is None:
            connection.exec_driver_sql(text, values)
        elif key in names:
            connection.exec_driver_sql(text, values)
            made += [int(row[names.index(key)]) for row in part]
        else:
            made += _insert_for_ids(connection, text, values, key=key, count=len(part))
    return made


def _insert_for_ids(
    connection: sa.Connection, text: str, values: tuple[Any, ...], *, key: str, count: int
) -> list[int]:
    if connection.dialect.insert_returning and count > 1:
        found = connection.exec_driver_sql(f"{text} RETURNING {_quoted(key)}", values)
        # Numbers are given out in the order of VALUES; the answer has no order of its own.
        return sorted(int(each) for each in found.scalars())
    first = int(connection.exec_driver_sql(text, values).lastrowid)
    step = 1 if count == 1 else _step(connection)
    return [first + place * step for place in range(count)]


def _step(connection: sa.Connection) -> int:
    """By how much one row's number is larger than the last one's: more than 1 in a cluster.

    MySQL has no RETURNING; the numbers of an INSERT ... VALUES are consecutive in every mode of
    `innodb_autoinc_lock_mode`.
    """
    return int(connection.exec_driver_sql("SELECT @@auto_increment_increment").scalar_one())


def _insert_into_sqlite(
    connection: sa.Connection, table: sa.Table, key: str | None, rows: list[dict[str, Any]]
) -> list[int]:
    statement = sa.insert(table)
    if key is None:
        connection.execute(statement, rows)
        return []
    found = connection.execute(statement.returning(table.columns[key]), rows).scalars()
    return sorted(int(each) for each in found)


def _parts(rows: list[Values], limit_bytes: int) -> Iterator[list[Values]]:
    texts = "".join([value for row in rows for value in row if type(value) is str])
    if 8 * len(texts) + _OTHER_BYTES * len(rows) * len(rows[0]) < limit_bytes:
        # As it nearly always is, and to find out costs less than to weigh each value.
        yield rows
        return
    part: list[Values] = []
    size = 0
    for row in rows:
        more = 3 + sum(_bytes(value) for value in row)
        if part and size + more > limit_bytes:
            yield part
            part, size = [], 0
        part.append(row)
        size += more
    if part:
        yield part


def _bytes(value: Any) -> int:
    """At most so many bytes it takes as text, quoted, each of its bytes escaped."""
    if isinstance(value, str):
        return 2 * (len(value) if value.isascii() else len(value.encode())) + 4
    return 2 * len(value) + 16 if isinstance(value, bytes) else _OTHER_BYTES


def _conditions(where: Mapping[str, Any]) -> tuple[str, Values]:
    texts: list[str] = []
    values: Values = []
    for name, value in where.items():
        text, bound = _condition(_quoted(name), value)
        texts.append(text)
        values += bound
    return f" WHERE {' AND '.join(texts)}" if texts else "", values


def _condition(name: str, value: Any) -> tuple[str, Values]:
    if value is None:
        return f"{name} IS NULL", []
    if isinstance(value, IdsOf):
        text, values = select(value.table, ["id"], value.where, [])
        return f"{name} IN ({text})", values
    if isinstance(value, list | tuple):
        present = [each for each in value if each is not None]
        texts = [f"{name} IS NULL"] if len(present) < len(value) else []
        texts += [f"{name} IN ({','.join(['%s'] * len(present))})"] if present else []
        return f"({' OR '.join(texts) or 'FALSE'})", present
    return f"{name} = %s", [value]


def _number_key(table: sa.Table) -> str | None:
    keys = list(table.primary_key.columns)
    return keys[0].name if len(keys) == 1 and isinstance(keys[0].type, sa.Integer) else None


def _places(part: list[Values]) -> str:
    row = f"({','.join(['%s'] * len(part[0]))})"
    return ",".join([row] * len(part))


def _names(names: Iterable[str]) -> str:
    return ",".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"
