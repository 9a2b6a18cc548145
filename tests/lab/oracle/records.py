"""Everything that nova's databases have of one server, read many times a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pymysql.constants import CLIENT
from pymysql.cursors import DictCursor

from cellmove.config import Config
from cellmove.dbcopy.cells import mapped_cells
from cellmove.dbcopy.database import Database, Row
from cellmove.dbcopy.tables import ACTIONS, CENSUS, EVENTS, Fate
from cellmove.opening import api_url, cells_of

Tables = Mapping[str, Sequence[Row]]
"""Table -> rows of one server, soft-deleted ones too."""
Dump = Mapping[str, Tables]
"""`api`, `source` or `target` -> what is there."""

API_TABLES = {"instance_mappings": "instance_uuid", "request_specs": "instance_uuid"}
CELL_TABLES = {table.name: table.key for table in CENSUS if table.fate is not Fate.STAY}
PAUSE_SECONDS = 0.005
SETTLED_SECONDS = 2.0
NICENESS = -15
"""Of the thread that watches: the machine is busy with guests."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was recorded of the server at one moment."""

    at: float
    """Epoch seconds."""
    dump: Dump


class Records:
    """The rows of a server in the API database and in both cells; for one thread at a time.

    nova passes some states within a tenth of a second, so a database is asked for all of its
    tables at once.
    """

    def __init__(self, config: Config, parts: Mapping[str, str]) -> None:
        """`parts`: name of each cell -> `source` or `target`."""
        url = api_url(config)
        api = Database(url, name="the API database")
        with api.read() as rows:
            mapped = [each for each in mapped_cells(rows) if not each.is_cell0]
        cells = cells_of(config, url, mapped)
        self.cells = {each.cell.id: parts[each.cell.name] for each in mapped}
        """Id in the API database -> `source` or `target`."""
        self._parts = {"api": _Part(api, API_TABLES)} | {
            parts[each.cell.name]: _Part(cells[each.cell.uuid], CELL_TABLES) for each in mapped
        }

    def close(self) -> None:
        for part in self._parts.values():
            part.close()

    def dump(self, server: str) -> Dump:
        """Each database as it is at one moment of its own."""
        return {name: part.tables(server) for name, part in self._parts.items()}

    def settled(self, server: str, timeout_seconds: float = 60) -> Dump:
        """What is recorded when nothing has changed for a while."""
        deadline = time.monotonic() + timeout_seconds
        last, since = self.dump(server), time.monotonic()
        while time.monotonic() - since < SETTLED_SECONDS and time.monotonic() < deadline:
            time.sleep(0.3)
            found = self.dump(server)
            if found != last:
                last, since = found, time.monotonic()
        return last

    @contextmanager
    def sampled(self, server: str) -> Iterator[list[Sample]]:
        """Every state that is seen while the block runs, in order."""
        samples: list[Sample] = []
        over = threading.Event()

        def watch() -> None:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            while not over.wait(PAUSE_SECONDS):
                found = self.dump(server)
                if not samples or samples[-1].dump != found:
                    samples.append(Sample(time.time(), found))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield samples
        finally:
            over.set()
            thread.join()


class _Part:
    """One database."""

    def __init__(self, database: Database, tables: Mapping[str, str]) -> None:
        with database.read() as rows:
            self._names = [name for name in tables if rows.columns(name)]
        several = {"client_flag": CLIENT.MULTI_STATEMENTS}
        self._engine = sa.create_engine(database._engine.url, connect_args=several)
        self._connection: Any = self._engine.raw_connection()
        database.close()
        self._query = "; ".join(_select(name, tables[name]) for name in self._names)

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def tables(self, server: str) -> Tables:
        found: dict[str, Sequence[Row]] = {}
        with self._connection.cursor(DictCursor) as cursor:
            snapshot = "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT"
            cursor.execute(f"{snapshot}; {self._query}; COMMIT", {"server": server})
            for name in self._names:
                cursor.nextset()
                found[name] = cursor.fetchall()
        return {name: rows for name, rows in found.items() if rows}


def _select(table: str, key: str) -> str:
    wanted = "%(server)s"
    if table == EVENTS:
        wanted = f"SELECT id FROM {ACTIONS} WHERE instance_uuid = %(server)s"
    return f"SELECT * FROM {table} WHERE {key} IN ({wanted})"
