"""One database: short transactions, and what is known when one of them ends badly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.exc import ResourceClosedError, SQLAlchemyError

from cellmove import errors
from cellmove.dbcopy.connection import Denied, is_sqlite, open_engine, translated
from cellmove.dbcopy.rows import Row, Rows, now
from cellmove.dbcopy.schema import Schema
from cellmove.dbcopy.statements import IdsOf

__all__ = ["Database", "IdsOf", "Row", "Rows", "Schema", "now"]

RETRY_PAUSES_SECONDS = (0.2, 1.0)
"""A connection is tried once more after each of these pauses: nothing has been written by then."""


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
        sqlite = is_sqlite(self._engine)
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
        sqlite = is_sqlite(self._engine)
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
        if is_sqlite(self._engine):
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
        self._schema.forget_what_is_old()
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
        except errors.CellmoveError as lost:
            # What may be open there still would be committed by the next START TRANSACTION.
            connection.invalidate()
            if not isinstance(lost, errors.Unreachable):
                raise
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
        with suppress(ResourceClosedError):  # SQLAlchemy has seen itself that it is broken.
            connection.invalidate()
