"""The way to a database: an engine with deadlines, and its errors in our own words."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from pymysql import converters
from pymysql.constants import CLIENT, FIELD_TYPE
from pymysql.err import MySQLError
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from cellmove import errors
from cellmove.dbcopy import tls

CONNECT_TIMEOUT_SECONDS = 10
ANSWER_TIMEOUT_SECONDS = 60
IDLE_TIMEOUT_SECONDS = 15
"""After which MariaDB rolls a transaction back when nothing more is heard of it: locks of one whose
link was cut, or whose machine died, must not stay for the eight hours that are its default."""
ROW_TIMEOUT_SECONDS = 20
"""For the lock of a row: longer, so that who takes such a move back gets through."""
TABLE_TIMEOUT_SECONDS = 5
"""For a table whose definition somebody is changing."""
GONE_SECONDS = 60
"""After which the server closes a connection that is not used."""
_CONFLICTS = {
    1020: "a row changed since the transaction began",
    1062: "a row with the same unique key exists",
    1205: "another transaction held a lock for too long",
    1213: "another transaction deadlocked with this one",
    1451: "other rows still refer to the row",
    1452: "the row refers to one that does not exist",
}
"""MariaDB's error codes after which nothing was written and looking again makes sense."""
_LOST = {1040, 1047, 1053, 1203, 1927, 2003, 2006, 2013, 2014, 2055}
"""MariaDB's and PyMySQL's error codes of a connection that is no more, or that there are too many
of (1040, 1203)."""
_SENSELESS_TO_RETRY = {1044, 1045, 1049, 1698}
"""Wrong user, password or database name."""


class Denied(errors.Unreachable):
    """The database is there and does not let us in."""


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn what the driver raises into our errors, without SQL, values or URL."""
    try:
        yield
    except DBAPIError as error:
        raise _translation(name, error.orig, lost=error.connection_invalidated) from error
    except MySQLError as error:
        # Of the second and later results of a round trip the driver speaks itself.
        raise _translation(name, error) from error
    except (SQLAlchemyError, TypeError) as error:
        raise errors.StepFailed(
            f"{name} could not be asked.",
            f"SQLAlchemy says {type(error).__name__}.",
            "Check the options in the database's URL; this may also be a defect of cellmove.",
        ) from error


def _translation(
    name: str, error: BaseException | None, *, lost: bool = False
) -> errors.CellmoveError:
    code, text = _code_and_text(error)
    seen = f"The database says: {text}."
    if code in _SENSELESS_TO_RETRY:
        return Denied(f"{name} does not let us in.", seen, "Check the account and its grants.")
    if code in _CONFLICTS or _is_sqlite_conflict(error):
        why = _CONFLICTS.get(code, "another record is in the way")
        do = "Nothing was written; look at the server, then try again."
        return errors.Conflict(f"{name} refused a change: {why}.", seen, do)
    if code in _LOST or lost:
        return errors.Unreachable(
            f"{name} cannot be reached.",
            seen,
            "Nothing was written; check the way to it.",
        )
    return errors.StepFailed(
        f"{name} refused a statement.",
        seen,
        "Check the account's grants (`cellmove check`).",
    )


def _code_and_text(error: BaseException | None) -> tuple[int, str]:
    arguments: tuple[Any, ...] = getattr(error, "args", ())
    if len(arguments) > 1 and isinstance(arguments[0], int):
        return arguments[0], str(arguments[1]).rstrip(".")
    return 0, str(error).rstrip(".")


def _is_sqlite_conflict(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.IntegrityError) or "database is locked" in str(error)


def is_sqlite(connection: sa.Connection | sa.Engine) -> bool:
    """Whether this is a database of the tests."""
    return connection.dialect.name == "sqlite"


def ask_several(
    connection: sa.Connection, queries: Sequence[tuple[str, Sequence[Any]]]
) -> list[list[tuple[Any, ...]]]:
    """The rows of each query (of MariaDB or MySQL) with its values, all in one round trip.

    The values are bound by the driver, `%s` for each, as in any other statement.
    """
    text = "; ".join(query for query, _ in queries)
    values = tuple(value for _, bound in queries for value in bound)
    cursor: Any = connection.exec_driver_sql(text, values).cursor
    try:
        found = [list(cursor.fetchall())]
        while cursor.nextset():
            found.append(list(cursor.fetchall()))
        return found
    finally:
        cursor.close()


def open_engine(url: sa.URL | str, name: str) -> sa.Engine:
    """An engine for this URL; nothing is connected yet.

    Raises:
        Refused: the URL cannot be read, or is no MariaDB's or MySQL's (or SQLite's, for tests).
    """
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = sa.create_engine(parsed, hide_parameters=True)
            event.listen(engine, "connect", _prepare_sqlite)
            return engine
        if parsed.get_backend_name() in ("mysql", "mariadb"):
            return _mysql_engine(parsed, name)
    except (ArgumentError, ImportError):
        raise refused_url(name) from None
    raise refused_url(name)


def refused_url(name: str) -> errors.Refused:
    """The error for a URL that cannot be used; it shows nothing of it."""
    return errors.Refused(
        f"The URL of {name} cannot be used.",
        "It should read mysql+pymysql://USER:PASSWORD@HOST:PORT/DATABASE (it is not shown: "
        "it may hold a password).",
        "Correct it where it is configured, or in `cell_mappings`.",
    )


def _mysql_engine(url: sa.URL, name: str) -> sa.Engine:
    # nova's URLs name its own driver, often charset=utf8, and oslo.db's plugins. utf8mb4 holds
    # whatever a column can hold.
    options = {key: str(value) for key, value in url.query.items() if key in tls.OPTIONS}
    plain = url.set(drivername="mysql+pymysql").difference_update_query(["plugin", *options])
    engine = sa.create_engine(
        plain.update_query_dict({"charset": "utf8mb4"}),
        hide_parameters=True,
        pool_size=2,
        max_overflow=8,
        pool_recycle=GONE_SECONDS - 10,
        # close() rolls back what is open: one more round trip at each return buys nothing.
        pool_reset_on_return=None,
        connect_args={
            **tls.arguments(options, name),
            # FOUND_ROWS: a change to the value that is there already counts as one.
            "client_flag": CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": ANSWER_TIMEOUT_SECONDS,
            "write_timeout": ANSWER_TIMEOUT_SECONDS,
            "init_command": _SESSION,
            "conv": _CONVERSIONS,
        },
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def _connect(_dialect: Any, _record: Any, given: Sequence[Any], options: dict[str, Any]) -> Any:
    return tls.Connection(*given, **options)


_SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; "
    f"SET SESSION innodb_lock_wait_timeout = {ROW_TIMEOUT_SECONDS},"
    f" lock_wait_timeout = {TABLE_TIMEOUT_SECONDS}, wait_timeout = {GONE_SECONDS},"
    f" sql_mode = 'TRADITIONAL' /*M!100302 , idle_transaction_timeout = {IDLE_TIMEOUT_SECONDS} */"
)
"""TRADITIONAL, as nova has it: a value that does not fit is an error, never cut. `M!` is read by
MariaDB alone; MySQL knows nothing between GONE_SECONDS and the end of the transaction."""


def _time(text: str) -> Any:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        # Zero dates and broken fractions of a second: the driver's own way.
        return converters.convert_datetime(text)


def _time_text(value: datetime.datetime, _mapping: Any = None) -> str:
    return f"'{value}'"


_CONVERSIONS = {
    **converters.conversions,
    FIELD_TYPE.DATETIME: _time,
    FIELD_TYPE.TIMESTAMP: _time,
    datetime.datetime: _time_text,
}
"""The driver's, but for times: a third of all values are times, and its own way takes four times
as long."""


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by us, explicitly; foreign keys are off unless asked for.
    connection.isolation_level = None
    for pragma in ("foreign_keys = ON", "journal_mode = WAL", "synchronous = OFF"):
        connection.execute(f"PRAGMA {pragma}")
