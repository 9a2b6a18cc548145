"""The journal: what was begun, what was there before, how far it went; written before the touch.

Append-only events beside the frozen move they belong to. Its state is never stored, only derived:
a crash can leave the last event missing but never a wrong summary.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from cellmove.errors import Refused, Unreachable
from cellmove.model import Cell, Disk, Flavor, Host, Move, Port

FORMAT = 1
"""Version of the tables and of the move's JSON; another one is refused, not guessed at."""

Verb = Literal["resize", "confirm", "revert"]
Saved = Mapping[str, Sequence[str]]

_meta = sa.MetaData()
_format = sa.Table("format", _meta, sa.Column("version", sa.Integer, primary_key=True))
_moves = sa.Table(
    "moves",
    _meta,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("verb", sa.String(16), nullable=False),
    sa.Column("server", sa.String(36), nullable=False, index=True),
    sa.Column("move", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)
_events = sa.Table(
    "events",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("move_id", sa.String(36), sa.ForeignKey("moves.id"), nullable=False, index=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("mark", sa.String(16), nullable=False),
    sa.Column("saved", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
_leases = sa.Table(
    "leases",
    _meta,
    sa.Column("move_id", sa.String(36), sa.ForeignKey("moves.id"), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.String(32), nullable=False),
)


class Mark(enum.Enum):
    """What an event says of its step; the last three are of the move as a whole (step is empty)."""

    BEGUN = "begun"
    DONE = "done"
    FOUND = "found"
    """The effect was there before us: never undone."""
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    FINISHED = "finished"
    TAKEN_BACK = "taken-back"


class State(enum.Enum):
    """How a move stands, derived from its events."""

    OPEN = "open"
    """Begun and neither finished nor taken back: `resume` or `undo`."""
    UNDOING = "undoing"
    """Its undo was begun and is not complete: `undo` goes on."""
    FINISHED = "finished"
    TAKEN_BACK = "taken back"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal."""

    at: str
    step: str
    mark: Mark
    saved: Saved = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A move with its events."""

    number: int
    verb: Verb
    move: Move
    created_at: str
    events: tuple[Event, ...]

    @property
    def state(self) -> State:
        """How the move stands."""
        marks = [event.mark for event in self.events]
        if Mark.FINISHED in marks:
            return State.FINISHED
        if Mark.TAKEN_BACK in marks:
            return State.TAKEN_BACK
        return State.UNDOING if Mark.UNDOING in marks else State.OPEN

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do, forward or back."""
        return self.state in (State.OPEN, State.UNDOING)

    def last(self, step: str) -> Mark | None:
        """The step's newest mark other than FAILED; None when it was never begun."""
        marks = [e.mark for e in self.events if e.step == step and e.mark is not Mark.FAILED]
        return marks[-1] if marks else None

    def saved(self, step: str) -> Saved:
        """What the step's first look kept: later looks see our own half-made change."""
        return next((e.saved for e in self.events if e.step == step and e.mark is Mark.BEGUN), {})


class Journal:
    """Where moves are kept: SQLite on a local disk, or any database SQLAlchemy reaches by URL."""

    def __init__(self, where: Path | str) -> None:
        """Open the journal, and make it when there is none; `where` is a path or a URL.

        Raises:
            Refused: its format is another one than this version writes.
            Unreachable: it cannot be opened.
        """
        file = Path(where) if "://" not in str(where) else None
        with _translated("The journal cannot be opened."):
            self._engine = _file_engine(file) if file else _url_engine(str(where))
            url = self._engine.url
            self.where = str(file or url.render_as_string(hide_password=True))
            _meta.create_all(self._engine)
            with self._engine.begin() as db:
                version = db.scalar(sa.select(_format.c.version))
                if version is None:
                    db.execute(_format.insert().values(version=FORMAT))
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
            for entry in _entries(db, _moves.c.server == move.server):
                if entry.is_open:
                    raise under_way(entry)
            number = int(db.scalar(sa.select(sa.func.max(_moves.c.number))) or 0) + 1
            db.execute(
                _moves.insert().values(
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
                _events.insert().values(
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
        found = self._read(_moves.c.number == int(key) if number else _moves.c.id == key)
        if not found:
            raise Refused(
                f"There is no move {key}.",
                f"Looked in {self.where}.",
                "`cellmove moves` lists them.",
            )
        return found[0]

    def entries(self, *, server: str | None = None) -> list[Entry]:
        """All moves, oldest first."""
        return self._read(_moves.c.server == server if server else sa.true())

    def _read(self, where: sa.ColumnElement[bool]) -> list[Entry]:
        with self._begin("The journal cannot be read.") as db:
            return _entries(db, where)

    @contextmanager
    def _begin(self, what: str) -> Iterator[sa.Connection]:
        with _translated(what), self._engine.begin() as db:
            yield db

    @contextmanager
    def lease(self, move: str) -> Iterator[None]:
        """Keep every other process off this move while the block runs.

        Raises:
            Refused: another process that still lives works on it.
        """
        mine = {
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
        }
        with self._begin("The move cannot be leased.") as db:
            held = db.execute(_leases.select().where(_leases.c.move_id == move)).first()
            if held is not None:
                if _alive(held):
                    raise _leased(held)
                # Names the dead holder: whoever took the lease over meanwhile keeps it.
                db.execute(_leases.delete().where(*(c == held[i] for i, c in enumerate(_leases.c))))
            try:
                db.execute(_leases.insert().values(move_id=move, **mine))
            except sa.exc.IntegrityError:
                raise Refused(
                    "Another process works on this move.",
                    "It took the move a moment ago.",
                    "Wait for it, or end it and run the command again.",
                ) from None
        try:
            yield
        finally:
            # Left behind, it is a dead process's lease, which the next one takes over.
            with suppress(Unreachable), self._begin("The lease cannot be given back.") as db:
                db.execute(
                    _leases.delete().where(
                        _leases.c.move_id == move, *(_leases.c[k] == v for k, v in mine.items())
                    )
                )


def default_path(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/cellmove/journal.db`."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/")) / ".local/state")
    return Path(base) / "cellmove" / "journal.db"


def _file_engine(path: Path) -> sa.Engine:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    return _url_engine(sa.URL.create("sqlite", database=str(path)))


def _url_engine(url: sa.URL | str) -> sa.Engine:
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
def _translated(what: str) -> Iterator[None]:
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


def _entries(db: sa.Connection, where: sa.ColumnElement[bool]) -> list[Entry]:
    events: dict[str, list[Event]] = {}
    wanted = sa.select(_moves.c.id).where(where)
    query = _events.select().where(_events.c.move_id.in_(wanted)).order_by(_events.c.id)
    for row in db.execute(query):
        event = Event(row.at, row.step, Mark(row.mark), json.loads(row.saved), row.note)
        events.setdefault(row.move_id, []).append(event)
    moves = db.execute(_moves.select().where(where).order_by(_moves.c.number))
    return [
        Entry(row.number, row.verb, _move(row.move), row.created_at, tuple(events.get(row.id, ())))
        for row in moves
    ]


def under_way(entry: Entry) -> Refused:
    """The error for a server whose earlier move is neither finished nor taken back."""
    either = f"Run `cellmove resume {entry.number}` or `cellmove undo {entry.number}`."
    return Refused(
        f"Server {entry.move.server} has a move under way.",
        f"Move {entry.number} ({entry.verb}) is {entry.state.value}.",
        either if entry.state is State.OPEN else f"Run `cellmove undo {entry.number}`.",
    )


def _leased(held: sa.Row[Any]) -> Refused:
    here = held.host == socket.gethostname()
    return Refused(
        "Another process works on this move.",
        f"Process {held.pid} on {held.host} holds it.",
        "Wait for it, or end it and run the command again."
        if here
        else f"Wait for it; if {held.host} is gone for good, delete the row of `leases`.",
    )


def _move(text: str) -> Move:
    data = json.loads(text)
    return Move(
        **data
        | {
            "source": _host(data["source"]),
            "target": _host(data["target"]),
            "old_flavor": Flavor(**data["old_flavor"]),
            "new_flavor": Flavor(**data["new_flavor"]),
            "ports": tuple(Port(**port) for port in data["ports"]),
            "disks": tuple(Disk(**disk) for disk in data["disks"]),
        }
    )


def _host(data: dict[str, Any]) -> Host:
    return Host(**data | {"cell": Cell(**data["cell"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _born(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when it does not live.

    With it a lease is not mistaken for that of another process that was given the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _alive(lease: sa.Row[Any]) -> bool:
    """Whether a lease's holder may still work; one on another machine is never presumed dead."""
    if lease.host != socket.gethostname():
        return True
    return bool(lease.boot == _boot() and lease.born and _born(lease.pid) == lease.born)
