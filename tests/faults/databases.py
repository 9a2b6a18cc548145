"""What MariaDB may say to a statement, said by the engine of a SQLite file.

The errors are PyMySQL's in SQLAlchemy's wrapping, as `cellmove.dbcopy` meets them; a connection
that is lost is lost here, too: what was not committed is rolled back.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pymysql.err
import sqlalchemy as sa
from sqlalchemy import event


class DbFault(enum.Enum):
    """What may happen to a statement, a commit, or to whoever wants a connection."""

    LOST = 2013, "Lost connection to MySQL server during query"
    GONE = 2006, "MySQL server has gone away"
    DEADLOCK = 1213, "Deadlock found when trying to get lock; try restarting transaction"
    LOCKED = 1205, "Lock wait timeout exceeded; try restarting transaction"
    FULL = 1040, "Too many connections"
    """Of who wants a connection; one that is there is not concerned."""
    ANSWER_LOST = 2013, "Lost connection to MySQL server during query (committed)"
    """At a commit: it was done, and the connection broke before it could be said."""

    @property
    def breaks(self) -> bool:
        """Whether the connection is no more."""
        return self not in (DbFault.DEADLOCK, DbFault.LOCKED)


@dataclass(slots=True)
class Spoilt:
    """Statements are counted; one of them is spoilt, or all from it on."""

    fault: DbFault = DbFault.LOST
    at: int = 0
    """The number of the statement, from 1 on; 0: none."""
    for_ever: bool = False
    count: int = 0
    met: int = 0
    commits: list[int] = field(default_factory=list)
    """The numbers of those that are commits."""
    connects: list[int] = field(default_factory=list)

    def arm(self, fault: DbFault, at: int, *, for_ever: bool = False) -> None:
        """Spoil this one, counted from now on."""
        self.fault, self.at, self.for_ever, self.count, self.met = fault, at, for_ever, 0, 0
        self.commits.clear()
        self.connects.clear()

    def disarm(self) -> None:
        """Spoil nothing any more, and count anew."""
        self.arm(DbFault.LOST, 0)

    def is_turn(self) -> bool:
        """Whether the statement that comes now is to be spoilt."""
        self.count += 1
        struck = self.at and (self.count == self.at or (self.for_ever and self.count > self.at))
        self.met += bool(struck)
        return bool(struck)


@contextmanager
def spoiling(engines: Sequence[sa.Engine]) -> Iterator[Spoilt]:
    """Statements to these are spoilt as is asked for, until the block ends."""
    spoilt = Spoilt()
    with ExitStack() as stack:
        for engine in engines:
            for name, listener in _listeners(spoilt):
                event.listen(engine, name, listener)
                stack.callback(event.remove, engine, name, listener)
        yield spoilt


def _listeners(spoilt: Spoilt) -> Iterator[tuple[str, Any]]:
    broken: set[int] = set()

    def checkout(raw: Any, *_: object) -> None:
        broken.discard(id(raw))
        spoilt.connects.append(spoilt.count + 1)
        if spoilt.is_turn():
            raise _error(spoilt.fault)

    def statement(connection: sa.Connection, _cursor: Any, text: str, *_: object) -> None:
        raw: Any = connection.connection.dbapi_connection
        if not text.startswith("PRAGMA"):  # MariaDB has none
            _require_whole(raw, broken)
            if spoilt.is_turn():
                _strike(raw, spoilt.fault, broken)

    def commit(connection: sa.Connection) -> None:
        spoilt.commits.append(spoilt.count + 1)
        if spoilt.is_turn():
            _strike(connection.connection.dbapi_connection, spoilt.fault, broken)

    yield "checkout", checkout
    yield "before_cursor_execute", statement
    yield "commit", commit


def _require_whole(raw: Any, broken: set[int]) -> None:
    if id(raw) in broken:
        raise _error(DbFault.GONE)


def _strike(raw: Any, fault: DbFault, broken: set[int]) -> None:
    if fault is not DbFault.LOCKED and raw.in_transaction:
        raw.execute("COMMIT" if fault is DbFault.ANSWER_LOST else "ROLLBACK")
    if fault.breaks:
        broken.add(id(raw))
    raise _error(fault)


def _error(fault: DbFault) -> sa.exc.DBAPIError:
    said = pymysql.err.OperationalError(*fault.value)
    return sa.exc.OperationalError(
        "a statement", None, said, hide_parameters=True, connection_invalidated=fault.breaks
    )
