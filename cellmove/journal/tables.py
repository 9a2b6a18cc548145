"""The journal's tables, the same in every database it can live in."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

FORMAT = 2
"""Version of the tables and of the move's JSON; a newer one is refused, not guessed at."""

METADATA = sa.MetaData()
LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
"""MariaDB's TEXT ends at 64 KiB, and a move of many ports does not."""
SECONDS: sa.types.TypeEngine[float] = sa.Double()
"""A moment, in seconds since 1970 by the database's clock."""


def _table(name: str, *columns: sa.Column[Any] | sa.Index) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        *columns,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


FORMATS = _table("format", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
"""One row; who locks it is alone in opening moves."""
MOVES = _table(
    "moves",
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("verb", sa.String(16), nullable=False),
    sa.Column("server", sa.String(36), nullable=False, index=True),
    sa.Column("move", LONG, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)
EVENTS = _table(
    "events",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("move_id", sa.String(36), sa.ForeignKey("moves.id"), nullable=False, index=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("mark", sa.String(16), nullable=False),
    sa.Column("saved", LONG, nullable=False),
    sa.Column("note", LONG, nullable=False),
    # By it an event is found again whose commit was not answered; none in format 1.
    sa.Column("token", sa.String(36), nullable=True),
    sa.Index("events_token", "token", unique=True),
)
HOLDERS = _table(
    "holders",
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.String(32), nullable=False),
    sa.Column("beat_at", SECONDS, nullable=False),
    sa.Column("lease_seconds", SECONDS, nullable=False),
)
"""The processes that work on something; each keeps its own row fresh, whatever it holds."""
LEASES = _table(
    "leases",
    sa.Column("move_id", sa.String(36), sa.ForeignKey("moves.id"), primary_key=True),
    sa.Column("holder", sa.String(36), nullable=False),
)
DRAINS = _table(
    "drains",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("scope", sa.String(255), nullable=False),
    # The scope while it is open, so that there is one open drain of each.
    sa.Column("open_scope", sa.String(255), nullable=True, unique=True),
    sa.Column("opened_at", sa.String(32), nullable=False),
    sa.Column("closed_at", sa.String(32), nullable=True),
)
TURNS = _table(
    "turns",
    sa.Column("drain_id", sa.Integer, sa.ForeignKey("drains.id"), primary_key=True),
    sa.Column("server", sa.String(36), primary_key=True),
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("target", sa.String(255), nullable=False),
    sa.Column("source_cell", sa.String(255), nullable=False),
    sa.Column("target_cell", sa.String(255), nullable=False),
    # Of this one taking: the same process may take the server again later.
    sa.Column("token", sa.String(36), nullable=False),
    sa.Column("holder", sa.String(36), nullable=False),
    # The holder for people to read, when its row is long gone.
    sa.Column("by_whom", sa.String(280), nullable=False),
    sa.Column("begun_at", sa.String(32), nullable=False),
    sa.Column("result", sa.String(16), nullable=True),
    sa.Column("move", sa.Integer, nullable=True),
    sa.Column("note", LONG, nullable=False),
    sa.Column("ended_at", sa.String(32), nullable=True),
)


class Now(FunctionElement[float]):
    """The database's own clock: those of several machines differ."""

    type = SECONDS
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "mysql")
@compiles(Now, "mariadb")
def _now_mysql(*_: Any, **__: Any) -> str:
    # Of UTC: a local time is ambiguous for an hour each autumn.
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)"


@compiles(Now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    # Not now(): that is when the transaction began, before it waited for a lock.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"
