"""The journal's tables are made, or brought up from an older format, where they are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from cellmove.errors import Refused
from cellmove.journal.database import is_foreign
from cellmove.journal.leases import boot_of_this_machine, born
from cellmove.journal.tables import EVENTS, FORMAT, FORMATS, METADATA, MOVES

_ALONE = 0x63656C6C
"""The name of PostgreSQL's lock for it; MariaDB's is a text."""


def is_ready(db: sa.Connection) -> bool:
    """Whether this database holds a journal of our format.

    Raises:
        Refused: of a newer one, or another program's tables; nothing was touched.
    """
    tables = set(sa.inspect(db).get_table_names())
    if is_foreign(tables):
        raise Refused(
            "This database cannot be the journal.",
            f"It has tables of another program: {', '.join(sorted(tables)[:3])}.",
            "Make a database of its own for the journal.",
        )
    if FORMATS.name not in tables:
        return False
    version = db.scalar(sa.select(FORMATS.c.version))
    if version not in (None, 1, FORMAT):
        raise Refused(
            "The journal was written by another version of cellmove.",
            f"Its format is {version}; this version reads 1 to {FORMAT}.",
            "Finish its moves with the version that wrote it.",
        )
    return bool(version == FORMAT)


def make_ready(db: sa.Connection) -> None:
    """Make what is missing, each step so that it can be done again: MariaDB commits each by itself.

    Raises:
        Refused: a process of the older version works on a move.
    """
    with _alone(db):
        if is_ready(db):
            return
        inspector = sa.inspect(db)
        known = inspector.get_table_names()
        if "leases" in known and "born" in _columns(inspector, "leases"):
            _drop_old_leases(db)
        if db.dialect.name in ("mysql", "mariadb"):
            _widen(db, [table for table in (FORMATS, MOVES, EVENTS) if table.name in known])
        if "events" in known and "token" not in _columns(inspector, "events"):
            db.execute(sa.text("ALTER TABLE events ADD COLUMN token VARCHAR(36)"))
        METADATA.create_all(db)
        for index in EVENTS.indexes:
            index.create(db, checkfirst=True)
        db.execute(FORMATS.delete())
        db.execute(FORMATS.insert().values(version=FORMAT))


def _columns(inspector: sa.Inspector, table: str) -> set[str]:
    return {column["name"] for column in inspector.get_columns(table)}


@contextmanager
def _alone(db: sa.Connection) -> Iterator[None]:
    """One process at a time; SQLite's transactions are that by themselves."""
    if db.dialect.name == "postgresql":
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_ALONE)))
    if db.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    name = sa.func.concat("cellmove ", sa.func.left(sa.func.database(), 50))
    if db.scalar(sa.select(sa.func.get_lock(name, 30))) != 1:
        raise Refused(
            "The journal cannot be brought to a new format now.",
            "Another process has been doing so for 30 s.",
            "Wait for it and run the command again.",
        )
    try:
        yield
        # Before the lock is released, whatever the transaction around this does later.
        db.exec_driver_sql("COMMIT")
    finally:
        db.execute(sa.select(sa.func.release_lock(name)))


def _drop_old_leases(db: sa.Connection) -> None:
    """A version that knows no fence may still be at work: it must end first."""
    for row in db.execute(sa.text("SELECT host, boot, pid, born FROM leases")):
        if _may_live(row):
            raise Refused(
                "The journal cannot be brought to a new format now.",
                f"Process {row.pid} on {row.host} works with it, of an older version.",
                f"Wait for it; if {row.host} is gone for good, delete the row of `leases`.",
            )
    db.execute(sa.text("DROP TABLE leases"))


def _may_live(row: sa.Row[Any]) -> bool:
    if row.host != socket.gethostname():
        return True
    boot = boot_of_this_machine().partition("/")[0]
    return bool(row.boot == boot and row.born and born(row.pid) == row.born)


def _widen(db: sa.Connection, tables: list[sa.Table]) -> None:
    """Columns of 64 KiB, in the character set that the server happened to have.

    MariaDB converts no column that a foreign key uses, so that is made anew.
    """
    keyed = EVENTS in tables
    for key in sa.inspect(db).get_foreign_keys(EVENTS.name) if keyed else ():
        db.execute(sa.text(f"ALTER TABLE events DROP FOREIGN KEY {key['name']}"))
    for table in tables:
        charset = "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        db.execute(sa.text(f"ALTER TABLE {table.name} {charset}"))
        for name in sorted({"move", "saved", "note"} & set(table.columns.keys())):
            db.execute(sa.text(f"ALTER TABLE {table.name} MODIFY {name} LONGTEXT NOT NULL"))
    if keyed:
        db.execute(sa.text("ALTER TABLE events ADD FOREIGN KEY (move_id) REFERENCES moves (id)"))
