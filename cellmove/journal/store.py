"""The journal itself: moves are opened, events appended, entries read back."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

import sqlalchemy as sa

from cellmove.errors import CellmoveError, Refused
from cellmove.journal import leases, queue, reading
from cellmove.journal.database import for_looking, open_engine
from cellmove.journal.entries import Entry, Mark, Saved, Verb, now, under_way
from cellmove.journal.heart import Heart, Lease
from cellmove.journal.patience import PATIENCE_SECONDS, patiently, translated
from cellmove.journal.queue import Busy, Caps, Result, Turn
from cellmove.journal.tables import EVENTS, FORMATS, MOVES
from cellmove.journal.upgrade import is_ready, make_ready
from cellmove.model import Move

T = TypeVar("T")


def _no_password() -> str | None:
    return None


class Journal:
    """Where moves are kept: SQLite on a local disk, MariaDB, MySQL or PostgreSQL by URL.

    The threads of a process may share one.
    """

    def __init__(
        self,
        where: Path | str,
        *,
        password: Callable[[], str | None] = _no_password,
        lease_seconds: float = leases.LEASE_SECONDS,
    ) -> None:
        """Open the journal, and make it when there is none; `where` is a path or a URL.

        `password` is asked for a URL of a server that has none. `lease_seconds`: for how long other
        machines believe this process to be alive after they last heard of it.

        Raises:
            Refused: its format is a newer one, or it is something else; it was not touched.
            Unreachable: it cannot be opened.
        """
        self._holder = str(uuid.uuid4())
        self._lease_seconds = lease_seconds
        self._patience_seconds = min(PATIENCE_SECONDS, lease_seconds / 2)
        with translated("The journal cannot be opened."):
            self._engine, self.where = open_engine(where, password)
            self._looking = for_looking(self._engine)
            try:
                if not patiently(self._looking, is_ready, 0):
                    patiently(self._engine, make_ready, 0)
            except BaseException:
                self._engine.dispose()
                raise
        # SQLite lets one write at a time, and has the others look again and again who is next.
        of_file = self._engine.dialect.name == "sqlite"
        self._alone: AbstractContextManager[object] = Lock() if of_file else nullcontext()
        self._heart = Heart(self._engine, self._holder, lease_seconds)

    def close(self) -> None:
        """Let go of it."""
        self._heart.stop()
        with suppress(CellmoveError):
            if self._heart.beaten:
                self._do("The journal.", lambda db: leases.forget(db, self._holder), 0)
        self._engine.dispose()

    def open_move(self, verb: Verb, move: Move) -> int:
        """Write a new move down and return its number, by which people call it.

        Raises:
            Refused: an earlier move of this server is neither finished nor taken back.
        """

        def work(db: sa.Connection) -> int:
            # Alone with it: of two who open a move of one server, the second sees the first.
            db.execute(FORMATS.select().with_for_update())
            for entry in reading.read(db, MOVES.c.server == move.server, brief=True):
                if entry.move.id == move.id:
                    return entry.number  # written before, but the answer was lost
                if entry.is_open:
                    raise under_way(entry, leases.refusal(db, entry.move.id))
            number = int(db.scalar(sa.select(sa.func.max(MOVES.c.number))) or 0) + 1
            db.execute(
                MOVES.insert().values(
                    id=move.id,
                    number=number,
                    verb=verb,
                    server=move.server,
                    move=json.dumps(dataclasses.asdict(move)),
                    created_at=now(),
                )
            )
            return number

        return self._do("The move cannot be written to the journal.", work)

    def refusal(self, entry: Entry) -> Refused:
        """The error for a server whose earlier move, this one, is open."""
        return under_way(entry, self._look(lambda db: leases.refusal(db, entry.move.id)))

    def write(
        self, move: str, step: str, mark: Mark, saved: Saved | None = None, note: str = ""
    ) -> None:
        """Append one event; it is on disk when this returns.

        Raises:
            TakenOver: the move is another process's by now; nothing was written.
            Unreachable: it could not be written.
        """
        token, at = str(uuid.uuid4()), now()
        holder = self._holder if self._heart.holds(move) else None

        def work(db: sa.Connection) -> None:
            if db.scalar(sa.select(EVENTS.c.id).where(EVENTS.c.token == token)) is not None:
                return  # written before, but the answer was lost
            leases.require(db, move, holder)
            db.execute(
                EVENTS.insert().values(
                    move_id=move,
                    at=at,
                    step=step,
                    mark=mark.value,
                    saved=json.dumps({key: list(value) for key, value in (saved or {}).items()}),
                    note=note,
                    token=token,
                )
            )

        self._do(f"The journal did not take that {step or 'the move'} is {mark.value}.", work)

    def entry(self, key: str) -> Entry:
        """The move with this number or id.

        Raises:
            Refused: there is none.
        """
        # A number that no row can bear is not even looked for: databases refuse it.
        number = key.isdecimal() and len(key) < 10
        where = MOVES.c.number == int(key) if number else MOVES.c.id == key
        found = self._look(lambda db: reading.read(db, where))
        if not found:
            raise Refused(
                f"There is no move {key}.",
                f"Looked in {self.where}.",
                "`cellmove moves` lists them.",
            )
        return found[0]

    def entries(
        self,
        *,
        server: str | None = None,
        only_open: bool = False,
        last: int | None = None,
        brief: bool = False,
    ) -> list[Entry]:
        """The moves, oldest first: of a server, those that are not over, the last so many.

        `brief`: of their events only those that decide how a move stands.
        """

        def work(db: sa.Connection) -> list[Entry]:
            where: list[sa.ColumnElement[bool]] = [sa.true()]
            if server is not None:
                where.append(MOVES.c.server == server)
            if only_open:
                where.append(reading.still_open())
            if last is not None:
                where.append(reading.newest(db, last))
            return reading.read(db, sa.and_(*where), brief=brief)

        return self._look(work)

    @contextmanager
    def lease(self, move: str) -> Iterator[Lease]:
        """Keep every other process off this move while the block runs.

        Raises:
            Refused: another process works on it and may still live, or another thread of this one.
        """
        if self._heart.holds(move):
            raise Refused("This process works on this move already.", "", "Wait for it.")

        def work(db: sa.Connection) -> None:
            leases.keep_fresh(db, self._holder, self._lease_seconds)
            leases.take(db, move, self._holder)

        self._do("The move cannot be leased.", work)
        self._heart.hold(move)
        try:
            yield Lease(self._heart, move)
        finally:
            self._heart.release(move)
            # Left behind, it is a dead process's lease, which the next one takes over.
            with suppress(CellmoveError):
                what = "The lease cannot be given back."
                self._do(what, lambda db: leases.give_back(db, move, self._holder), 0)

    def open_drain(self, scope: str) -> int:
        """The open drain of this scope (`cell:UUID`, `host:NAME`); a new one if there is none."""
        what = "The drain cannot be written to the journal."
        return self._do(what, lambda db: queue.open_drain(db, scope))

    def take_turn(
        self,
        drain: int,
        server: str,
        *,
        source: str,
        target: str,
        caps: Caps,
        source_cell: str = "",
        target_cell: str = "",
    ) -> Turn | Busy:
        """Take a server, so that no other conductor or thread does; it is ours until `end_turn`.

        `source` and `target` are hosts; what is not known yet is empty and counts for no cap.
        """
        wanted = Turn(
            drain, server, source, target, source_cell, target_cell, str(uuid.uuid4()), now()
        )

        def work(db: sa.Connection) -> Turn | Busy:
            leases.keep_fresh(db, self._holder, self._lease_seconds)
            return queue.take_turn(db, wanted, self._holder, caps)

        turn = self._do(f"No turn can be taken for server {server}.", work)
        if isinstance(turn, Turn):
            self._heart.hold(turn.token)
        return turn

    def aim_turn(
        self, turn: Turn, *, target: str, caps: Caps, target_cell: str = ""
    ) -> Turn | Busy:
        """Name another target of a turn that is ours; Busy: a cap is full, and it is as it was.

        Raises:
            TakenOver: it is another conductor's by now.
        """
        aimed = dataclasses.replace(
            turn, target=target, target_cell=target_cell or turn.target_cell
        )
        what = f"The turn of server {turn.server} cannot be aimed."
        return self._do(what, lambda db: queue.aim_turn(db, aimed, caps))

    def end_turn(self, turn: Turn, result: Result, *, move: int | None, note: str = "") -> None:
        """Write down how a turn of ours ended; `left`: it may be taken again in this drain.

        Raises:
            TakenOver: it is another conductor's by now.
        """
        what = f"The journal did not take how the turn of server {turn.server} ended."
        try:
            self._do(what, lambda db: queue.end_turn(db, turn, result, move=move, note=note))
        finally:
            self._heart.release(turn.token)

    def turns(self, drain: int) -> list[Turn]:
        """All of a drain, in the order in which they were begun."""
        return self._look(lambda db: queue.turns(db, drain))

    def failures(self, drain: int) -> int:
        """How many servers of a drain have failed, of all conductors together."""
        return self._look(lambda db: queue.failures(db, drain))

    def close_drain(self, drain: int) -> bool:
        """End the drain for all; False, and it stays open: somebody's turn is under way."""
        what = "The drain cannot be closed."
        return self._do(what, lambda db: queue.close_drain(db, drain))

    def _look(self, work: Callable[[sa.Connection], T]) -> T:
        with translated("The journal cannot be read."):
            return patiently(self._looking, work, self._patience_seconds)

    def _do(
        self,
        what: str,
        work: Callable[[sa.Connection], T],
        patience_seconds: float | None = None,
    ) -> T:
        if patience_seconds is None:
            patience_seconds = self._patience_seconds
        with self._alone, translated(what):
            return patiently(self._engine, work, patience_seconds)
