"""The live schema of one database: of MariaDB and MySQL asked once, for all tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import NoSuchTableError

from cellmove.dbcopy.connection import ask_several, is_sqlite

SHADOW_PREFIX = "shadow_"
"""`nova-manage db archive_deleted_rows` moves deleted rows there. Nothing refers to them, and they
are half of the schema: they are left out."""

KEPT_SECONDS = 600

CHARSET = "charset"
MAX_BYTES = "max_bytes"
REQUIRED = "required"
"""Keys of a column's `info` (not of SQLite's): character set; width of a text in bytes; whether an
INSERT must give it."""

_SETTINGS = "SELECT @@max_allowed_packet"
_COLUMNS = f"""SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_KEY = 'PRI', IS_NULLABLE = 'YES',
 COLUMN_DEFAULT IS NULL AND EXTRA = '', CHARACTER_MAXIMUM_LENGTH, CHARACTER_SET_NAME
 FROM information_schema.COLUMNS
 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE '{SHADOW_PREFIX.replace("_", "|_")}%%'
 ESCAPE '|' ORDER BY TABLE_NAME, ORDINAL_POSITION"""
_REFERENCES = """SELECT REFERENCED_TABLE_NAME, TABLE_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME
 FROM information_schema.KEY_COLUMN_USAGE
 WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME IS NOT NULL"""
_SQLITE_COLUMNS = """SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c
 WHERE m.type = 'table' AND c.name = ?"""
_SQLITE_REFERENCES = """SELECT m.name, f."from", f."to" FROM sqlite_master m,
 pragma_foreign_key_list(m.name) f WHERE m.type = 'table' AND f."table" = ?"""

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_TIMES = frozenset({"datetime", "timestamp"})

Found = Sequence[tuple[Any, ...]]


class _Loaded:
    """What a MariaDB or MySQL has told about itself."""

    def __init__(self, settings: Found, columns: Found, references: Found) -> None:
        self.packet_bytes = int(settings[0][0])
        self.columns: dict[str, list[tuple[Any, ...]]] = {}
        for table, *facts in columns:
            self.columns.setdefault(table, []).append(tuple(facts))
        self.references = references


class Schema:
    """Tables, columns and foreign keys as the database has them, without the shadow tables.

    Read at the first question, in one round trip, and kept for some minutes: nova may be upgraded
    while a cell is drained. SQLite is asked table by table. Several threads may ask.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Ask anew at the next question."""
        with self._lock:
            self._metadata = sa.MetaData()
            self._tables: dict[str, sa.Table | None] = {}
            self._loaded: _Loaded | None = None
            self._began = time.monotonic()

    def forget_what_is_old(self) -> None:
        """Ask anew when it is `KEPT_SECONDS` since; between two transactions."""
        if time.monotonic() - self._began > KEPT_SECONDS:
            self.forget()

    def table(self, connection: sa.Connection, name: str) -> sa.Table | None:
        """The table as the database has it, or None; asked only once."""
        with self._lock:
            if name not in self._tables:
                make = self._sqlite_table if is_sqlite(connection) else self._table
                self._tables[name] = make(connection, name)
            return self._tables[name]

    def tables_with(self, connection: sa.Connection, column: str) -> frozenset[str]:
        """Names of all tables that have a column of this name."""
        if is_sqlite(connection):
            found = connection.exec_driver_sql(_SQLITE_COLUMNS, (column,)).scalars()
            return frozenset(name for name in found if not name.startswith(SHADOW_PREFIX))
        tables = self._load(connection).columns
        return frozenset(
            name for name, its in tables.items() if column in {each[0] for each in its}
        )

    def referring_to(self, connection: sa.Connection, table: str) -> dict[str, tuple[str, str]]:
        """Table -> its column with a foreign key to `table`, and the column referred to."""
        if is_sqlite(connection):
            keys = connection.exec_driver_sql(_SQLITE_REFERENCES, (table,)).all()
            return {name: (column, to) for name, column, to in keys}
        found = self._load(connection).references
        return {name: (column, to) for parent, name, column, to in found if parent == table}

    def packet_bytes(self, connection: sa.Connection) -> int:
        """The longest statement that the server takes (`max_allowed_packet`)."""
        return self._load(connection).packet_bytes

    def _load(self, connection: sa.Connection) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                queries = [(query, ()) for query in (_SETTINGS, _COLUMNS, _REFERENCES)]
                self._loaded = _Loaded(*ask_several(connection, queries))
            return self._loaded

    def _table(self, connection: sa.Connection, name: str) -> sa.Table | None:
        columns = self._load(connection).columns.get(name)
        if columns is None:
            return None
        return sa.Table(name, self._metadata, *(_column(each) for each in columns))

    def _sqlite_table(self, connection: sa.Connection, name: str) -> sa.Table | None:
        try:
            return sa.Table(name, self._metadata, autoload_with=connection, resolve_fks=False)
        except NoSuchTableError:
            return None


def _column(facts: tuple[Any, ...]) -> sa.Column[Any]:
    name, kind, in_key, nullable, no_default, length, charset = facts
    info: dict[str, Any] = {CHARSET: charset, REQUIRED: bool(no_default) and not nullable}
    made: sa.types.TypeEngine[Any] = sa.types.NullType()
    if kind in _INTEGERS:
        made = sa.Integer()
    elif kind in _TIMES:
        made = sa.DateTime()
    elif kind in ("char", "varchar"):
        made = sa.String(length)
    elif length is not None:
        # Of a text the server says how many bytes it takes, not how many characters.
        info[MAX_BYTES] = length
    return sa.Column(name, made, primary_key=bool(in_key), nullable=bool(nullable), info=info)
