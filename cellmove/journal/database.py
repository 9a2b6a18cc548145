"""The way to the journal: a file on a local disk, or a server's database by URL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cellmove.errors import Refused
from cellmove.journal.tables import METADATA

SQLITE = b"SQLite format 3\0"
"""How such a file begins, unless it is new."""
BUSY_MS = 10_000
CONNECT_TIMEOUT_SECONDS = 10
ANSWER_TIMEOUT_SECONDS = 30
_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "postgresql": "postgresql+psycopg",
}
_LOOK = "cellmove_look"


def default_path(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/cellmove/journal.db`."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/")) / ".local/state")
    return Path(base) / "cellmove" / "journal.db"


def open_engine(where: Path | str, password: Callable[[], str | None]) -> tuple[sa.Engine, str]:
    """The engine for a path or a URL, and what people may read of where that is.

    `password` is asked when a URL of a server has none.

    Raises:
        Refused: it cannot be a journal; nothing was touched.
        OSError: its directory cannot be made.
    """
    if "://" not in str(where):
        return file_engine(Path(where)), str(where)
    url = _url(str(where))
    if url.get_backend_name() == "sqlite":
        path = url.database if url.database != ":memory:" else None
        return (file_engine(Path(path)) if path else _sqlite_engine(url)), str(url)
    if url.password is None:
        url = url.set(password=password())
    # Its options may hold a password too: they are not shown.
    shown = sa.URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return _server_engine(url), shown.render_as_string()


def for_looking(engine: sa.Engine) -> sa.Engine:
    """The same, for transactions that only read: they keep no writer waiting."""
    return engine.execution_options(**{_LOOK: True})


def _url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
        name = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        name = ""
    if name not in (*_DRIVERS, "sqlite"):
        raise Refused(
            "The journal's URL cannot be used.",
            "It is not shown, for it may hold a password.",
            "Write mysql+pymysql://USER@HOST/DATABASE, postgresql+psycopg://USER@HOST/DATABASE, "
            "or a path.",
        )
    return url


def file_engine(path: Path) -> sa.Engine:
    """SQLite on a local disk, for nobody else to read.

    Raises:
        Refused: something else has this name; it was not touched.
    """
    _require_ours(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    return _sqlite_engine(sa.URL.create("sqlite", database=str(path)))


def _require_ours(path: Path) -> None:
    """A mistyped name must not cost a device or another file its mode, let alone its content."""
    if not path.exists():
        return
    seen = "It is not a file."
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(len(SQLITE))
        if begins == b"" or (begins == SQLITE and not is_foreign(_tables(path))):
            return
        seen = "It is another program's." if begins == SQLITE else "It is not a database."
    raise Refused(
        f"{path} cannot be the journal.",
        seen,
        "Name another file with --journal, or leave it away.",
    )


def is_foreign(tables: set[str]) -> bool:
    """Whether a database with these tables is another program's; a half-made journal is ours."""
    return bool(tables - METADATA.tables.keys())


def _tables(path: Path) -> set[str]:
    """Looked at without changing anything; none, when it is too damaged to tell."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return {str(name) for (name,) in db.execute(query)}
    except (sqlite3.Error, UnicodeDecodeError):
        return set()


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, hide_parameters=True)
    sa.event.listen(engine, "connect", _make_durable)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _begin(db: sa.Connection) -> None:
    # A transaction that looks before it writes must keep others out from its look on.
    looks = db.get_execution_options().get(_LOOK)
    db.exec_driver_sql("BEGIN" if looks else "BEGIN IMMEDIATE")


def _make_durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    # FULL: an event that was written stays written when the power goes.
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _server_engine(url: sa.URL) -> sa.Engine:
    """Nothing is connected yet.

    Raises:
        Refused: the driver is not installed.
    """
    name = url.get_backend_name()
    arguments = _POSTGRESQL if name == "postgresql" else _MYSQL
    if name != "postgresql":
        url = url.update_query_dict({"charset": "utf8mb4"})
    try:
        return sa.create_engine(
            url.set(drivername=_DRIVERS[name]),
            hide_parameters=True,
            # Each statement sees what the lock that it waited for has let it see.
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            max_overflow=20,
            connect_args=arguments,
        )
    except ImportError as error:
        extra = "cellmove[postgresql]" if name == "postgresql" else "cellmove"
        raise Refused(
            f"The journal cannot be opened: a driver for {name} is missing.",
            f"Python says: {error}.",
            f"Run `pip install '{extra}'`.",
        ) from None


_MYSQL = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "read_timeout": ANSWER_TIMEOUT_SECONDS,
    "write_timeout": ANSWER_TIMEOUT_SECONDS,
    # wait_timeout: the locks of a machine that was cut off must not outlive its leases.
    "init_command": (
        "SET SESSION innodb_lock_wait_timeout = 10, lock_wait_timeout = 10, wait_timeout = 30,"
        " sql_mode = 'TRADITIONAL'"
    ),
}
_POSTGRESQL = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "tcp_user_timeout": ANSWER_TIMEOUT_SECONDS * 1000,
    "options": "-c lock_timeout=10s -c statement_timeout=30s"
    " -c idle_in_transaction_session_timeout=30s",
    # A pooler between us and the server may give each transaction another session.
    "prepare_threshold": None,
}
