"""Rows of one open transaction, seen through the live schema: compare-and-swap writes."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cellmove import errors
from cellmove.dbcopy import statements
from cellmove.dbcopy.connection import ask_several, is_sqlite, translated
from cellmove.dbcopy.schema import Schema
from cellmove.dbcopy.statements import IdsOf

Row = dict[str, Any]
"""A row as column -> Python value."""


def now() -> datetime.datetime:
    """The time as nova writes it: UTC, naive, whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)


class Rows:
    """Rows of one open transaction. In `where`, None means IS NULL and a list or tuple means IN.

    Times may be given as text (`YYYY-MM-DD HH:MM:SS`). Every call is one round trip, whatever the
    number of rows (and one more when the first table is asked for; and rows that fill more than
    one packet take one for each).

    Raises (every method):
        Conflict: another transaction is in the way, or a unique or foreign key is.
        Unreachable: the connection broke; nothing of this transaction was written.
        StepFailed: the database refuses the statement (a grant, an unknown column).
    """

    def __init__(self, connection: sa.Connection, schema: Schema, name: str) -> None:
        self._connection = connection
        self._schema = schema
        self._name = name

    def columns(self, table: str) -> frozenset[str]:
        """Names of the table's columns; empty when the table does not exist."""
        found = self._find(table)
        return frozenset() if found is None else frozenset(found.columns.keys())

    def all(self, table: str, **where: Any) -> list[Row]:
        """Matching rows ordered by primary key; none when the table does not exist."""
        return self.several((table, where))[0]

    def several(self, *wanted: tuple[str, Mapping[str, Any]]) -> list[list[Row]]:
        """For each table and its `where` what `all` would give, together in one round trip."""
        found = [(self._find(table), where) for table, where in wanted]
        if is_sqlite(self._connection):
            return [self._all(table, where) for table, where in found]
        there = [(table, where) for table, where in found if table is not None]
        with translated(self._name):
            queries = [self._query(table, where) for table, where in there]
            answers = iter(ask_several(self._connection, queries) if queries else [])
        return [
            [] if table is None else _rows(table.columns.keys(), next(answers))
            for table, _ in found
        ]

    def counts(self, *wanted: tuple[str, Mapping[str, Any]]) -> list[int]:
        """For each table and its `where` what `count` would give, together in one round trip."""
        found = [self._find(table) for table, _ in wanted]
        counting = [
            sa.select(sa.literal(place).label("place"), sa.func.count().label("many"))
            .select_from(table)
            .where(*self._conditions(table, where))
            for place, (table, (_, where)) in enumerate(zip(found, wanted, strict=True))
            if table is not None
        ]
        counted = dict.fromkeys(range(len(wanted)), 0)
        if counting:
            counted |= {row.place: row.many for row in self._run(sa.union_all(*counting))}
        return list(counted.values())

    def stream(
        self, tables: Sequence[str], query_of: Callable[..., sa.Select[Any]]
    ) -> Iterator[Row]:
        """Rows of a query over these tables, as they come: few of them are in memory at once.

        Nothing else can be asked in this transaction until they have all been taken.
        """
        query = query_of(*map(self._table, tables))
        with translated(self._name):
            result = self._connection.execute(query, execution_options={"yield_per": 1000})
            yield from map(dict, result.mappings())

    def one(self, table: str, **where: Any) -> Row | None:
        """The only matching row, or None.

        Raises:
            Conflict: there are several.
        """
        rows = self.all(table, **where)
        if len(rows) > 1:
            raise errors.Conflict(
                f"{table} of {self._name} should hold one row of this kind.",
                f"There are {len(rows)} with {_shown(where)}.",
                "Find out which one is right and remove the others.",
            )
        return rows[0] if rows else None

    def count(self, table: str, **where: Any) -> int:
        """How many rows match; 0 when the table does not exist."""
        return self.counts((table, where))[0]

    def insert(
        self, table: str, rows: Sequence[Mapping[str, Any]], *, ids: bool = True
    ) -> list[int]:
        """Insert rows in one statement; returns the new ids in the order of the rows.

        `created_at` and `deleted` are filled where the table has them and the row does not; a
        table whose primary key is no single number gives back no ids. Without `ids` nobody asks
        for them, which spares MySQL a round trip.
        """
        if not rows:
            return []
        found = self._table(table)
        names = dict.fromkeys(itertools.chain.from_iterable(rows))
        self._check_names(found, names)
        always = {"created_at": now(), "deleted": 0}
        always = {name: value for name, value in always.items() if name in found.columns}
        values = [{**always, **row} for row in rows]
        for name in names:
            if isinstance(found.columns[name].type, sa.DateTime):
                for row in values:
                    if isinstance(row.get(name), str):
                        row[name] = _time(row[name])
        with translated(self._name):
            return statements.insert(
                self._connection,
                found,
                [*(always | names)],
                values,
                packet_bytes=self.packet_bytes(),
                ids=ids,
            )

    def change(
        self,
        table: str,
        values: Mapping[str, Any],
        /,
        expect: int | None = 1,
        **where: Any,
    ) -> int:
        """UPDATE ... WHERE; sets `updated_at` where the table has it. Returns the matching rows.

        Raises:
            Conflict: the count of matching rows is not `expect` (None: any count will do).
        """
        found = self._table(table)
        new = self._bound(found, values)
        if "updated_at" in found.columns:
            new.setdefault("updated_at", now())
        statement = sa.update(found).where(*self._narrowed(found, where)).values(new)
        matched = self._run(statement).rowcount
        if expect is not None and matched != expect:
            raise errors.Conflict(
                f"{table} of {self._name} is no longer as this change expects it.",
                f"{matched} instead of {expect} row(s) have {_shown(where)}.",
                "Somebody else works on this server: look at it before trying again.",
            )
        return matched

    def delete(self, table: str, **where: Any) -> int:
        """DELETE ... WHERE; returns how many rows went (0 when the table does not exist)."""
        found = self._find(table)
        if found is None:
            return 0
        return self._run(sa.delete(found).where(*self._narrowed(found, where))).rowcount

    def tables_with(self, column: str) -> frozenset[str]:
        """Names of all tables that have a column of this name; no shadow table is among them."""
        with translated(self._name):
            return self._schema.tables_with(self._connection, column)

    def tables_referring_to(self, table: str) -> dict[str, tuple[str, str]]:
        """Table -> its column with a foreign key to `table`, and the column referred to."""
        with translated(self._name):
            return self._schema.referring_to(self._connection, table)

    def packet_bytes(self) -> int | None:
        """The longest statement that the server takes; None: SQLite takes any."""
        if is_sqlite(self._connection):
            return None
        with translated(self._name):
            return self._schema.packet_bytes(self._connection)

    def table(self, name: str) -> sa.Table | None:
        """The table as the live schema has it, or None."""
        return self._find(name)

    def _all(self, table: sa.Table | None, where: Mapping[str, Any]) -> list[Row]:
        if table is None:
            return []
        query = sa.select(table).where(*self._conditions(table, where))
        result = self._run(query.order_by(*table.primary_key.columns))
        return [dict(row) for row in result.mappings()]

    def _query(self, table: sa.Table, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        self._check_names(table, where)
        order = table.primary_key.columns.keys()
        return statements.select(table.name, table.columns.keys(), where, order)

    def _narrowed(self, table: sa.Table, where: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
        if not where:
            raise ValueError(f"a change to all rows of {table.name} is never meant")
        return self._conditions(table, where)

    def _conditions(
        self, table: sa.Table, where: Mapping[str, Any]
    ) -> list[sa.ColumnElement[bool]]:
        bound = self._bound(table, where)
        return [self._condition(table.columns[name], value) for name, value in bound.items()]

    def _condition(self, column: sa.Column[Any], value: Any) -> sa.ColumnElement[bool]:
        if isinstance(value, IdsOf):
            parent = self._table(value.table)
            ids = sa.select(parent.columns["id"]).where(*self._conditions(parent, value.where))
            return column.in_(ids)
        return _condition(column, value)

    def _bound(self, table: sa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
        self._check_names(table, values)
        return {
            name: _time(value) if isinstance(table.columns[name].type, sa.DateTime) else value
            for name, value in values.items()
        }

    def _check_names(self, table: sa.Table, names: Iterable[str]) -> None:
        unknown = sorted(set(names) - set(table.columns.keys()))
        if unknown:
            raise errors.StepFailed(
                f"{table.name} of {self._name} lacks a column.",
                f"It has no {', '.join(unknown)}.",
                "Check that both cells run a nova release that cellmove supports.",
            )

    def _table(self, name: str) -> sa.Table:
        found = self._find(name)
        if found is None:
            raise errors.StepFailed(
                f"{self._name} lacks a table.",
                f"It has no table {name}, or this account may not see it.",
                "Check the database's URL, its schema and the account's grants.",
            )
        return found

    def _find(self, name: str) -> sa.Table | None:
        with translated(self._name):
            return self._schema.table(self._connection, name)

    def _run(self, statement: sa.Executable, values: Any = None) -> sa.CursorResult[Any]:
        with translated(self._name):
            return self._connection.execute(statement, values)


def _time(value: Any) -> Any:
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value).replace(tzinfo=None)
    return value


def _rows(names: Sequence[str], found: Sequence[tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(names, row, strict=True)) for row in found]


def _condition(column: sa.Column[Any], value: Any) -> sa.ColumnElement[bool]:
    if value is None:
        return column.is_(None)
    if isinstance(value, list | tuple):
        if None in value:
            present = [each for each in value if each is not None]
            return sa.or_(column.is_(None), column.in_(present))
        return column.in_(value)
    equal: sa.ColumnElement[bool] = column == value
    return equal


def _shown(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in where.items())
