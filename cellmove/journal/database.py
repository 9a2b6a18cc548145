"""Where the journal's rows are: its tables, and a connection that keeps what it was told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cellmove.errors import Refused, Unreachable

FORMAT = 1
"""Version of the tables and of the move's JSON; another one is refused, not guessed at."""

SQLITE = b"SQLite format 3\0"
"""How such a file begins, unless it is new."""

METADATA = sa.MetaData()
FORMATS = sa.Table("format", METADATA, sa.Column("version", sa.Integer, primary_key=True))
MOVES = sa.Table(
    "moves",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("verb", sa.String(16), nullable=False),
    sa.Column("server", sa.String(36), nullable=False, index=True),
    sa.Column("move", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("move_id", sa.String(36), sa.ForeignKey("moves.id"), nullable=False, index=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("mark", sa.String(16), nullable=False),
    sa.Column("saved", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
LEASES = sa.Table(
    "leases",
    METADATA,
    sa.Column("move_id", sa.String(36), sa.ForeignKey("moves.id"), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.String(32), nullable=False),
)


def default_path(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/cellmove/journal.db`."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/")) / ".local/state")
    return Path(base) / "cellmove" / "journal.db"


def file_engine(path: Path) -> sa.Engine:
    """SQLite on a local disk, for nobody else to read.

    Raises:
        Refused: something else has this name; it was not touched.
    """
    _require_ours(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    return url_engine(sa.URL.create("sqlite", database=str(path)))


def _require_ours(path: Path) -> None:
    """A mistyped name must not cost a device or another file its mode, let alone its content."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(len(SQLITE))
        if begins in (b"", SQLITE):
            return
    raise Refused(
        f"{path} cannot be the journal.",
        "It is not a database." if path.is_file() else "It is not a file.",
        "Name another file with --journal, or leave it away.",
    )


def url_engine(url: sa.URL | str) -> sa.Engine:
    """Any database that SQLAlchemy reaches; nothing is connected yet."""
    engine = sa.create_engine(url, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _make_durable)
        # A transaction that looks before it writes must keep others out from its look on.
        sa.event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _make_durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    # FULL: an event that was written stays written when the power goes.
    for pragma in (
        "busy_timeout=10000",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the file system and the driver raise into our errors."""
    try:
        yield
    except (OSError, sa.exc.SQLAlchemyError) as error:
        do = "Name another journal with --journal, or mend this one."
        raise Unreachable(what, f"{_said(error)}.", do) from error


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
