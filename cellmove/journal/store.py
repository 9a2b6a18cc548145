"""The journal itself: moves are opened, events appended, entries read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from cellmove.errors import Refused, Unreachable
from cellmove.journal import leases
from cellmove.journal.database import (
    EVENTS,
    FORMAT,
    FORMATS,
    METADATA,
    MOVES,
    file_engine,
    translated,
    url_engine,
)
from cellmove.journal.entries import Entry, Event, Mark, Saved, Verb, move_of, under_way
from cellmove.model import Move


class Journal:
    """Where moves are kept: SQLite on a local disk, or any database SQLAlchemy reaches by URL."""

    def __init__(self, where: Path | str) -> None:
        """Open the journal, and make it when there is none; `where` is a path or a URL.

        Raises:
            Refused: its format is another one than this version writes.
            Unreachable: it cannot be opened.
        """
        file = Path(where) if "://" not in str(where) else None
        with translated("The journal cannot be opened."):
            self._engine = file_engine(file) if file else url_engine(str(where))
            url = self._engine.url
            self.where = str(file or url.render_as_string(hide_password=True))
            METADATA.create_all(self._engine)
            with self._engine.begin() as db:
                version = db.scalar(sa.select(FORMATS.c.version))
                if version is None:
                    db.execute(FORMATS.insert().values(version=FORMAT))
        if version not in (None, FORMAT):
            raise Refused(
                "The journal was written by another version of cellmove.",
                f"Its format is {version}; this version reads {FORMAT}.",
                "Finish its moves with the version that wrote it.",
            )

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def open_move(self, verb: Verb, move: Move) -> int:
        """Write a new move down and return its number, by which people call it.

        Raises:
            Refused: an earlier move of this server is neither finished nor taken back.
        """
        with self._begin("The move cannot be written to the journal.") as db:
            for entry in _entries(db, MOVES.c.server == move.server):
                if entry.is_open:
                    raise under_way(entry)
            number = int(db.scalar(sa.select(sa.func.max(MOVES.c.number))) or 0) + 1
            db.execute(
                MOVES.insert().values(
                    id=move.id,
                    number=number,
                    verb=verb,
                    server=move.server,
                    move=json.dumps(dataclasses.asdict(move)),
                    created_at=_now(),
                )
            )
        return number

    def write(
        self, move: str, step: str, mark: Mark, saved: Saved | None = None, note: str = ""
    ) -> None:
        """Append one event; it is on disk when this returns.

        Raises:
            Unreachable: it could not be written.
        """
        what = f"The journal did not take that {step or 'the move'} is {mark.value}."
        with self._begin(what) as db:
            db.execute(
                EVENTS.insert().values(
                    move_id=move,
                    at=_now(),
                    step=step,
                    mark=mark.value,
                    saved=json.dumps({key: list(value) for key, value in (saved or {}).items()}),
                    note=note,
                )
            )

    def entry(self, key: str) -> Entry:
        """The move with this number or id.

        Raises:
            Refused: there is none.
        """
        # A number that no row can bear is not even looked for: databases refuse it.
        number = key.isdecimal() and len(key) < 10
        found = self._read(MOVES.c.number == int(key) if number else MOVES.c.id == key)
        if not found:
            raise Refused(
                f"There is no move {key}.",
                f"Looked in {self.where}.",
                "`cellmove moves` lists them.",
            )
        return found[0]

    def entries(self, *, server: str | None = None) -> list[Entry]:
        """All moves, oldest first."""
        return self._read(MOVES.c.server == server if server else sa.true())

    def _read(self, where: sa.ColumnElement[bool]) -> list[Entry]:
        with self._begin("The journal cannot be read.") as db:
            return _entries(db, where)

    @contextmanager
    def _begin(self, what: str) -> Iterator[sa.Connection]:
        with translated(what), self._engine.begin() as db:
            yield db

    @contextmanager
    def lease(self, move: str) -> Iterator[None]:
        """Keep every other process off this move while the block runs.

        Raises:
            Refused: another process that still lives works on it.
        """
        mine = leases.this_process()
        with self._begin("The move cannot be leased.") as db:
            leases.take(db, move, mine)
        try:
            yield
        finally:
            # Left behind, it is a dead process's lease, which the next one takes over.
            with suppress(Unreachable), self._begin("The lease cannot be given back.") as db:
                leases.give_back(db, move, mine)


def _entries(db: sa.Connection, where: sa.ColumnElement[bool]) -> list[Entry]:
    events: dict[str, list[Event]] = {}
    wanted = sa.select(MOVES.c.id).where(where)
    query = EVENTS.select().where(EVENTS.c.move_id.in_(wanted)).order_by(EVENTS.c.id)
    for row in db.execute(query):
        event = Event(row.at, row.step, Mark(row.mark), json.loads(row.saved), row.note)
        events.setdefault(row.move_id, []).append(event)
    moves = db.execute(MOVES.select().where(where).order_by(MOVES.c.number))
    return [
        Entry(
            row.number, row.verb, move_of(row.move), row.created_at, tuple(events.get(row.id, ()))
        )
        for row in moves
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
