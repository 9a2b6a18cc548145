"""One database seen through its live schema: short transactions, compare-and-swap writes."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

from cellmove import errors
from cellmove.dbcopy.connection import Denied, open_engine, translated

Row = dict[str, Any]
"""A row as column -> Python value."""

RETRY_PAUSES_SECONDS = (0.2, 1.0)
"""A connection is tried once more after each of these pauses: nothing has been written by then."""


def now() -> datetime.datetime:
    """The time as nova writes it: UTC, naive, whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)


class Schema:
    """The live schema of one database, table by table as they are asked for."""

    def __init__(self) -> None:
        self._metadata = sa.MetaData()
        self._absent: set[str] = set()

    def table(self, connection: sa.Connection, name: str) -> sa.Table | None:
        """The table as the database has it, or None; asked only once."""
        if name in self._absent:
            return None
        known = self._metadata.tables.get(name)
        if known is not None:
            return known
        try:
            return sa.Table(name, self._metadata, autoload_with=connection, resolve_fks=False)
        except NoSuchTableError:
            self._absent.add(name)
            return None


class Rows:
    """Rows of one open transaction. In `where`, None means IS NULL and a list or tuple means IN.

    Times may be given as text (`YYYY-MM-DD HH:MM:SS`). Every call is one statement, whatever the
    number of rows (and a few more when a table is seen for the first time).

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
        found = self._find(table)
        if found is None:
            return []
        query = sa.select(found).where(*self._conditions(found, where))
        result = self._run(query.order_by(*found.primary_key.columns))
        return [dict(row) for row in result.mappings()]

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
        found = self._find(table)
        if found is None:
            return 0
        query = sa.select(sa.func.count()).select_from(found)
        return int(self._run(query.where(*self._conditions(found, where))).scalar_one())

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Insert rows in one statement; returns the new ids in the order of the rows.

        `created_at` and `deleted` are filled where the table has them and the row does not; a
        table whose primary key is no single number gives back no ids.
        """
        if not rows:
            return []
        found = self._table(table)
        filled = [self._filled(found, row) for row in rows]
        names = dict.fromkeys(name for row in filled for name in row)
        values = [{name: row.get(name) for name in names} for row in filled]
        keys = list(found.primary_key.columns)
        if len(keys) != 1 or not isinstance(keys[0].type, sa.Integer):
            self._run(sa.insert(found), values)
            return []
        return self._insert_for_ids(found, keys[0], values)

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
        """Names of all tables that have a column of this name."""
        if self._connection.dialect.name == "sqlite":
            columns = "pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = :value"
            query = f"SELECT m.name FROM sqlite_master m, {columns}"
        else:
            query = (
                "SELECT TABLE_NAME FROM information_schema.COLUMNS"
                " WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_NAME = :value"
            )
        return frozenset(name for (name,) in self._ask(query, column))

    def tables_referring_to(self, table: str) -> dict[str, tuple[str, str]]:
        """Table -> its column with a foreign key to `table`, and the column referred to."""
        if self._connection.dialect.name == "sqlite":
            query = (
                'SELECT m.name, f."from", f."to" FROM sqlite_master m,'
                " pragma_foreign_key_list(m.name) f WHERE m.type = 'table' AND f.\"table\" = :value"
            )
        else:
            query = (
                "SELECT TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME"
                " FROM information_schema.KEY_COLUMN_USAGE"
                " WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME = :value"
            )
        return {name: (column, to) for name, column, to in self._ask(query, table)}

    def _ask(self, query: str, value: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._run(sa.text(query).bindparams(value=value))]

    def _insert_for_ids(
        self, table: sa.Table, key: sa.Column[Any], values: list[dict[str, Any]]
    ) -> list[int]:
        insert = sa.insert(table)
        if len(values) == 1:
            made: Any = self._run(insert.values(values[0])).inserted_primary_key
            return [int(made[0])]
        if self._connection.dialect.insert_executemany_returning:
            # Numbers are given out in the order of VALUES; the answer has no order of its own.
            return sorted(int(each) for each in self._run(insert.returning(key), values).scalars())
        # MySQL proper has no RETURNING.
        return [each for row in values for each in self._insert_for_ids(table, key, [row])]

    def _filled(self, table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
        filled = self._bound(table, row)
        if "created_at" in table.columns:
            filled.setdefault("created_at", now())
        if "deleted" in table.columns:
            filled.setdefault("deleted", 0)
        return filled

    def _narrowed(self, table: sa.Table, where: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
        if not where:
            raise ValueError(f"a change to all rows of {table.name} is never meant")
        return self._conditions(table, where)

    def _conditions(
        self, table: sa.Table, where: Mapping[str, Any]
    ) -> list[sa.ColumnElement[bool]]:
        bound = self._bound(table, where)
        return [_condition(table.columns[name], value) for name, value in bound.items()]

    def _bound(self, table: sa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(values) - set(table.columns.keys()))
        if unknown:
            raise errors.StepFailed(
                f"{table.name} of {self._name} lacks a column.",
                f"It has no {', '.join(unknown)}.",
                "Check that both cells run a nova release that cellmove supports.",
            )
        return {name: _typed(table.columns[name], value) for name, value in values.items()}

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


class Database:
    """One of nova's databases: the API database or a cell's.

    `name` is what messages call it, e.g. `cell cell1`; the URL is never shown. `schema` may be
    shared by databases that are made alike; else it is read as tables are asked for.

    Raises:
        Refused: the URL cannot be read.
    """

    def __init__(self, url: sa.URL | str, *, name: str, schema: Schema | None = None) -> None:
        self.name = name
        self._engine = open_engine(url, name)
        self._schema = schema or Schema()

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    @contextmanager
    def read(self) -> Iterator[Rows]:
        """One consistent snapshot, read-only.

        Raises:
            Unreachable: no connection.
        """
        snapshot = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
        sqlite = self._engine.dialect.name == "sqlite"
        connection = self._begin("BEGIN" if sqlite else snapshot)
        try:
            if sqlite:
                connection.exec_driver_sql("PRAGMA query_only = ON")
            yield Rows(connection, self._schema, self.name)
        finally:
            if sqlite:
                connection.exec_driver_sql("PRAGMA query_only = OFF")
            _close(connection)

    @contextmanager
    def write(self) -> Iterator[Rows]:
        """One transaction: committed when the block ends well, else rolled back.

        Raises:
            Unreachable: no connection.
            Unknown: the connection broke while committing.
        """
        sqlite = self._engine.dialect.name == "sqlite"
        connection = self._begin("BEGIN IMMEDIATE" if sqlite else "START TRANSACTION")
        try:
            yield Rows(connection, self._schema, self.name)
            self._commit(connection)
        finally:
            _close(connection)

    def version(self) -> str:
        """The schema's version, as Alembic (or its forerunner) wrote it; empty without one."""
        with self.read() as rows:
            for table, column in (
                ("alembic_version", "version_num"),
                ("migrate_version", "version"),
            ):
                for row in rows.all(table):
                    return str(row[column])
        return ""

    def grants(self) -> tuple[str, list[str]]:
        """The schema's name, and what our account may do: the lines of SHOW GRANTS.

        They may hold a hash of the password: they are never shown. SQLite has no accounts.
        """
        if self._engine.dialect.name == "sqlite":
            return "main", ["GRANT ALL PRIVILEGES ON *.* TO us"]
        with translated(self.name), self._engine.connect() as connection:
            schema = connection.exec_driver_sql("SELECT DATABASE()").scalar_one()
            return str(schema), [
                str(each) for each in connection.exec_driver_sql("SHOW GRANTS").scalars()
            ]

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._engine.dispose()

    def _begin(self, statement: str) -> sa.Connection:
        for pause_seconds in RETRY_PAUSES_SECONDS:
            try:
                return self._begin_once(statement)
            except errors.Unreachable as unreachable:
                if isinstance(unreachable, Denied):
                    raise
                time.sleep(pause_seconds)
        return self._begin_once(statement)

    def _begin_once(self, statement: str) -> sa.Connection:
        with translated(self.name):
            connection = self._engine.connect()
            try:
                connection.exec_driver_sql(statement)
            except BaseException:
                _close(connection)
                raise
            return connection

    def _commit(self, connection: sa.Connection) -> None:
        try:
            with translated(self.name):
                connection.commit()
        except errors.Unreachable as lost:
            raise errors.Unknown(
                f"Nobody knows whether {self.name} has committed the change.",
                lost.seen,
                "It is looked up before anything else is done.",
            ) from lost


def _close(connection: sa.Connection) -> None:
    """Give a connection back, rolling back what is open; a broken one is thrown away."""
    try:
        connection.close()
    except SQLAlchemyError:
        connection.invalidate()


def _typed(column: sa.Column[Any], value: Any) -> Any:
    if isinstance(value, str) and isinstance(column.type, sa.DateTime):
        return datetime.datetime.fromisoformat(value).replace(tzinfo=None)
    return value


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
