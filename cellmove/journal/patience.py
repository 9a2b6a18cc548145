"""Transactions that outlive what a database gets over: a deadlock, a restart, a lost answer.

A transaction that is tried again may have been committed the first time, its answer lost: each must
therefore find its own work and let it be.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from cellmove.errors import Unreachable

T = TypeVar("T")
PATIENCE_SECONDS = 30.0
"""For how long a server that was reached before may be away: as long as a restart takes."""
_QUICKER = 5
"""Times that others may be quicker with the same row; more is a defect."""
_MYSQL = {1020, 1040, 1047, 1053, 1203, 1205, 1213, 1317, 1927, 2003, 2006, 2013, 2014, 2055}
"""Of MariaDB and PyMySQL: deadlocks, lock time-outs, and connections that are no more, or that
there are too many of."""
_POSTGRESQL = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "25P03"}
"""The same; besides all of class 08, and errors of the client, which have no code."""


def patiently(engine: sa.Engine, work: Callable[[sa.Connection], T], patience_seconds: float) -> T:
    """Run the work in a transaction; again when that makes sense.

    Raises:
        SQLAlchemyError: it makes none, or time is up.
    """
    until = time.monotonic() + patience_seconds
    for attempt in itertools.count(1):
        try:
            with engine.begin() as db:
                return work(db)
        except sa.exc.IntegrityError:
            # Somebody else wrote the row a moment ago: now it is there to be seen.
            if attempt >= _QUICKER:
                raise
        except sa.exc.DBAPIError as error:
            if not _passes(engine, error) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.5, 1) * min(1.0, 0.02 * 2**attempt))  # noqa: S311 - no secret
    raise AssertionError("unreachable")


def _passes(engine: sa.Engine, error: sa.exc.DBAPIError) -> bool:
    if engine.dialect.name == "sqlite":
        return False  # it has waited for the others by itself
    if error.connection_invalidated:
        return True
    if engine.dialect.name == "postgresql":
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        return state in _POSTGRESQL or state.startswith("08")
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    return bool(arguments) and arguments[0] in _MYSQL


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the file system and the driver raise into our errors."""
    try:
        yield
    # TypeError: drivers take the options of a URL as named arguments, known ones only.
    except (OSError, TypeError, UnicodeDecodeError, sa.exc.SQLAlchemyError) as error:
        do = "Name another journal with --journal, or mend this one."
        raise Unreachable(what, f"{_said(error)}.", do) from error


def _said(error: Exception) -> str:
    """Without SQL and values; of the server's words the first line."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    said = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    arguments: tuple[Any, ...] = getattr(said, "args", ())
    coded = len(arguments) > 1 and isinstance(arguments[0], int)
    lines = str(arguments[1] if coded else said).strip().splitlines()
    return (lines[0] if lines else type(said).__name__).rstrip(".")
