"""Two cells in SQLite with one server to move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from cellmove.dbcopy.database import Database
from tests.fakes.databases import CELL1, CELL2, add_server, fake_databases

SERVER = "11111111-1111-4111-8111-111111111111"


@dataclass(frozen=True)
class Databases:
    api: Database
    source: Database
    target: Database


def with_changed_schema(database: Database, *statements: str) -> Database:
    """The same database after a change of its schema: what is known of it is asked anew."""
    with database._engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    return Database(database._engine.url, name=database.name)


@pytest.fixture
def databases(tmp_path: Path) -> Databases:
    """`SERVER` is on cmp1a, in the first cell."""
    api, cells = fake_databases(tmp_path)
    add_server(api, cells[CELL1.uuid], uuid=SERVER, host="cmp1a")
    return Databases(api, cells[CELL1.uuid], cells[CELL2.uuid])
