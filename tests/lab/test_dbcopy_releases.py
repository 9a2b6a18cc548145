"""Every release of nova: its own schema, on the lab's two cell servers, between any two of them."""

from __future__ import annotations

import datetime
import itertools
import secrets
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from cellmove import errors
from cellmove.check import databases as check
from cellmove.check.findings import Result
from cellmove.check.grants import cell_needs
from cellmove.dbcopy.compare import differences
from cellmove.dbcopy.copy import Records, delete_records, leftovers, read_records, write_records
from cellmove.dbcopy.database import Database, Rows
from cellmove.dbcopy.obstacles import obstacles
from cellmove.dbcopy.tables import ACTIONS, BY_NAME, CENSUS, COPIED, EVENTS, unknown_tables
from tests import schemas
from tests.fakes.databases import add_server, counted, fake_databases
from tests.lab.kit.places import OUTPUTS, sql

pytestmark = pytest.mark.lab

SERVERS = {"cell1": "10.98.0.31", "cell2": "10.98.0.32"}
"""The source's server, and the target's."""
NAME = "cellmove_test_releases"
"""Of the account; the databases begin with it."""
PAIRS = ((20, 34), (34, 20), (21, 29), (29, 21), (25, 26), (26, 25), (26, 29), (29, 26))
"""Older to newer and back, over every change of the tables that know a server."""


def as_root(cell: str, text: str, database: str = "") -> None:
    argv = [str(OUTPUTS / "sql"), cell, *([database] if database else [])]
    subprocess.run(argv, check=True, input=text, text=True, capture_output=True)


@dataclass
class Releases:
    """A database of each release in each cell, made when a test asks for it first."""

    password: str
    made: dict[tuple[str, int], Database] = field(default_factory=dict)

    def source(self, release: int) -> Database:
        return self._database("cell1", release)

    def target(self, release: int) -> Database:
        return self._database("cell2", release)

    def _database(self, cell: str, release: int) -> Database:
        if (cell, release) not in self.made:
            self.made[cell, release] = self._make(cell, release)
        return self.made[cell, release]

    def _make(self, cell: str, release: int) -> Database:
        name = name_of(release)
        as_root(cell, f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARSET utf8mb3")
        as_root(cell, schemas.ddl(release), name)
        grants = [
            f"GRANT {', '.join(sorted(rights))} ON {name}.{table} TO {NAME};"
            for table, rights in cell_needs().items()
        ]
        if cell == "cell2":
            # No id of one cell ever means something in the other.
            grants += [
                f"ALTER TABLE {name}.{table.name} AUTO_INCREMENT = 7000;"
                for table in COPIED
                if table.name != "tags"
            ]
        as_root(cell, "\n".join(grants))
        url = f"mysql+pymysql://{NAME}:{self.password}@{SERVERS[cell]}:3306/{name}"
        return Database(url, name=f"cell {cell}-{release}")


def name_of(release: int) -> str:
    return f"{NAME}_{release}"


@pytest.fixture(scope="module")
def releases() -> Iterator[Releases]:
    password = secrets.token_hex(12)
    for cell in SERVERS:
        as_root(cell, f"CREATE OR REPLACE USER {NAME} IDENTIFIED BY '{password}'")
    made = Releases(password)
    yield made
    for (cell, release), database in made.made.items():
        database.close()
        as_root(cell, f"DROP DATABASE {name_of(release)}")
    for cell in SERVERS:
        as_root(cell, f"DROP USER {NAME}")


class _Known:
    """Rows that leave out the columns that this release does not have yet."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def insert(self, table: str, values: list[dict[str, Any]]) -> list[int]:
        there = self._rows.columns(table)
        kept = [{k: v for k, v in row.items() if k in there} for row in values]
        return self._rows.insert(table, kept)


@dataclass
class _Cell:
    database: Database

    @contextmanager
    def write(self) -> Iterator[_Known]:
        with self.database.write() as rows:
            yield _Known(rows)


@pytest.fixture
def make_server(tmp_path: Path) -> Any:
    """Writes a server into a database, as nova leaves one; gives its uuid."""
    api, _ = fake_databases(tmp_path)

    def make(database: Database) -> str:
        server = str(uuid.uuid4())
        add_server(api, cast("Database", _Cell(database)), uuid=server, host="cmp1a")
        return server

    return make


def read(database: Database, server: str) -> Records:
    with database.read() as rows:
        return read_records(rows, server)


def copied(source: Database, target: Database, server: str) -> Records:
    records = read(source, server)
    with target.write() as rows:
        write_records(rows, records, instance={"hidden": True})
    return read(target, server)


def change(database: Database, table: str, values: Mapping[str, Any], server: str) -> None:
    with database.write() as rows:
        rows.change(table, values, expect=None, **{BY_NAME[table].key: server})


def reasons(source: Database, target: Database, server: str) -> list[str]:
    found = obstacles(source, target, server)
    assert all(each.what and each.seen and each.do for each in found)
    return [str(each) for each in found]


def test_the_releases_are_the_oldest_the_newest_and_those_between() -> None:
    assert schemas.RELEASES == (20, 21, 25, 26, 29, 34)


@pytest.mark.parametrize("release", schemas.RELEASES)
def test_the_census_knows_every_table_that_knows_a_server(releases: Releases, release: int) -> None:
    database = releases.source(release)
    assert unknown_tables(database) == {}
    assert database.version()
    with database.read() as rows:
        assert {"instance_extra", ACTIONS} < rows.tables_referring_to("instances").keys()
        for table in CENSUS:
            columns = rows.columns(table.name)
            assert table.key in columns or (table not in COPIED and not columns), table.name


def test_the_labs_own_schema_is_that_of_its_release() -> None:
    query = (
        "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE FROM information_schema.COLUMNS"
        " WHERE TABLE_SCHEMA = '{}' AND TABLE_NAME NOT LIKE 'shadow|_%' ESCAPE '|' ORDER BY 1, 2"
    )
    name = f"{NAME}_lab"
    as_root("cell1", f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARSET utf8mb3")
    try:
        as_root("cell1", schemas.ddl(26), name)
        assert sql("cell1", query.format(name)) == sql("cell1", query.format("nova_cell1"))
    finally:
        as_root("cell1", f"DROP DATABASE {name}")


@pytest.mark.parametrize(
    ("old", "new"), [*((each, each) for each in schemas.RELEASES), *PAIRS], ids=str
)
def test_a_server_travels_whole_between_these_releases(
    releases: Releases, make_server: Any, old: int, new: int
) -> None:
    source, target = releases.source(old), releases.target(new)
    server = make_server(source)
    assert reasons(source, target, server) == []
    there = copied(source, target, server)
    here = read(source, server)
    assert differences(here, there, fresh=True) == []
    assert there.instance["hidden"] == 1
    assert there.instance["id"] >= 7000 > here.instance["id"]
    assert [len(rows) for rows in there.tables.values()] == [
        len(rows) for rows in here.tables.values()
    ]
    assert all(there.tables.values())
    with target.write() as rows:
        delete_records(rows, server)
    with target.read() as rows:
        assert leftovers(rows, server) == {}


@pytest.mark.parametrize("new", [29, 34])
def test_ids_of_the_source_cells_compute_nodes_are_left_behind(
    releases: Releases, make_server: Any, new: int
) -> None:
    source, target = releases.source(29), releases.target(new)
    server = make_server(source)
    change(source, "instances", {"compute_id": 77, "hidden": None}, server)
    change(source, "migrations", {"dest_compute_id": 77}, server)
    assert reasons(source, target, server) == []
    records = read(source, server)
    with target.write() as rows:
        write_records(rows, records, instance={})
    there = read(target, server)
    assert there.instance["compute_id"] is None
    assert there.instance["hidden"] == 0
    assert {row["dest_compute_id"] for row in there.tables["migrations"]} == {None}
    # A release that does not know the column loses nothing either.
    assert reasons(source, releases.target(26), server) == []


def test_a_column_that_only_the_source_has_and_that_says_something_is_refused(
    releases: Releases, make_server: Any
) -> None:
    source, target = releases.source(26), releases.target(25)
    server = make_server(source)
    change(source, "block_device_mapping", {"encrypted": True}, server)
    (why,) = reasons(source, target, server)
    assert "cell cell2-25 has no column block_device_mapping.encrypted" in why
    assert reasons(source, releases.target(29), server) == []


def test_a_share_is_refused_where_there_are_shares(releases: Releases, make_server: Any) -> None:
    for release in (29, 34):
        source, target = releases.source(release), releases.target(release)
        server = make_server(source)
        columns = "instance_uuid, share_id, status, tag, export_location, share_proto, uuid"
        values = f"'{server}', 's', 'active', 't', 'e', 'NFS', '{uuid.uuid4()}'"
        name = name_of(release)
        as_root("cell1", f"INSERT INTO share_mapping ({columns}) VALUES ({values})", name)
        (why,) = reasons(source, target, server)
        assert "share_mapping of cell cell1" in why


def test_a_table_of_a_release_to_come_is_refused_when_it_knows_the_server(
    releases: Releases, make_server: Any
) -> None:
    target = releases.target(34)
    server = make_server(releases.source(34))
    name = name_of(34)
    definition = "(id INT PRIMARY KEY, of VARCHAR(36), FOREIGN KEY (of) REFERENCES instances(uuid))"
    as_root("cell1", f"CREATE TABLE novelty {definition} CHARSET utf8mb3", name)
    try:
        # As the next process sees it: what is known of a schema is not asked again.
        source = Database(releases.source(34)._engine.url, name="cell cell1")
        assert reasons(source, target, server) == []
        as_root("cell1", f"INSERT INTO novelty VALUES (1, '{server}')", name)
        (why,) = reasons(source, target, server)
        assert "novelty has 1 row(s) of the server, which would be lost" in why
        source.close()
    finally:
        as_root("cell1", "DROP TABLE novelty", name)


def test_soft_deleted_leftovers_in_the_target_are_refused(
    releases: Releases, make_server: Any
) -> None:
    source, target = releases.source(26), releases.target(26)
    server = make_server(source)
    copied(source, target, server)
    with target.write() as rows:
        delete_records(rows, server)
        row = {"uuid": server, "deleted": 5, "user_id": "u", "project_id": "p"}
        rows.insert("instances", [row])
        rows.insert("instance_metadata", [{"instance_uuid": server, "key": "k", "deleted": 5}])
    found = reasons(source, target, server)
    assert len(found) == 2
    assert "instances has 1 row(s) of it (soft-deleted ones count)" in found[0]
    assert "instance_metadata has 1 row(s)" in found[1]


@pytest.mark.parametrize("status", ["finished", "confirming"])
def test_an_old_migration_that_nova_would_take_for_this_one_is_refused(
    releases: Releases, make_server: Any, status: str
) -> None:
    source = releases.source(26)
    server = make_server(source)
    change(source, "migrations", {"status": status}, server)
    (why,) = reasons(source, releases.target(26), server)
    assert f"still has status {status}" in why


@contextmanager
def altered(releases: Releases, statement: str, back: str) -> Iterator[Database]:
    """The target of nova 26 with another definition, as a process sees it that starts then."""
    name = name_of(26)
    url = releases.target(26)._engine.url
    as_root("cell2", statement, name)
    changed = Database(url, name="cell cell2")
    try:
        yield changed
    finally:
        changed.close()
        as_root("cell2", back, name)


def test_a_column_that_the_target_must_have_and_nobody_fills_is_refused(
    releases: Releases, make_server: Any
) -> None:
    source = releases.source(26)
    server = make_server(source)
    add = "ALTER TABLE instances ADD COLUMN novelty INT NOT NULL"
    with altered(releases, add, "ALTER TABLE instances DROP COLUMN novelty") as target:
        (why,) = reasons(source, target, server)
    assert "instances.novelty of cell cell2 must not be NULL" in why


def test_a_text_that_the_targets_column_is_too_narrow_for_is_refused(
    releases: Releases, make_server: Any
) -> None:
    source = releases.source(26)
    server = make_server(source)
    change(source, "instances", {"display_name": "x" * 100}, server)
    column = "ALTER TABLE instances MODIFY display_name VARCHAR({})"
    with altered(releases, column.format(99), column.format(255)) as target:
        (why,) = reasons(source, target, server)
    assert "instances.display_name of cell cell2 is too narrow" in why


def test_a_character_that_only_the_sources_column_can_hold_is_refused(
    releases: Releases, make_server: Any
) -> None:
    column = "ALTER TABLE instances MODIFY display_name VARCHAR(255) CHARSET {}"
    as_root("cell1", column.format("utf8mb4"), name_of(26))
    try:
        source = releases.source(26)
        server = make_server(source)
        change(source, "instances", {"display_name": "\N{PILE OF POO}"}, server)
        (why,) = reasons(source, releases.target(26), server)
        assert "instances.display_name of cell cell2-26 is too narrow for it (utf8mb3)" in why
        change(source, "instances", {"display_name": "x"}, server)
    finally:
        as_root("cell1", column.format("utf8mb3"), name_of(26))


def test_what_the_target_changes_in_silence_is_found_and_nothing_is_written(
    releases: Releases, make_server: Any
) -> None:
    source = releases.source(26)
    server = make_server(source)
    trigger = (
        "CREATE TRIGGER meddler BEFORE INSERT ON instance_metadata FOR EACH ROW"
        " SET NEW.value = UPPER(NEW.value)"
    )
    with (
        altered(releases, trigger, "DROP TRIGGER meddler") as target,
        pytest.raises(errors.StepFailed, match="not what was written into value"),
    ):
        copied(source, target, server)
    with releases.target(26).read() as rows:
        assert leftovers(rows, server) == {}


def test_a_long_history_of_long_tracebacks_fits_into_packets(
    releases: Releases, make_server: Any
) -> None:
    source, target = releases.source(26), releases.target(26)
    server = make_server(source)
    change(source, "instances", {"user_data": "A" * 2**20}, server)
    with source.write() as rows:
        (action,) = rows.insert(ACTIONS, [{"instance_uuid": server, "action": "rebuild"}])
        event = {"action_id": action, "event": "e", "traceback": "'\\" * 32_000}
        rows.insert(EVENTS, [event] * 150)
        longest = rows.packet_bytes()
    assert longest is not None
    # Each byte of these is escaped, and so doubled.
    assert longest < 150 * 2 * 64_000
    there = copied(source, target, server)
    assert differences(read(source, server), there, fresh=True) == []
    for database in (source, target):
        with database.write() as rows:
            delete_records(rows, server)


@pytest.mark.parametrize("step", [1, 3])
def test_without_returning_events_still_hang_on_their_own_actions(
    releases: Releases, make_server: Any, step: int
) -> None:
    source = releases.source(26)
    server = make_server(source)
    with source.write() as rows:
        start = datetime.datetime.fromisoformat("2026-11-20T10:00:00")
        actions = rows.insert(
            ACTIONS,
            [
                {"instance_uuid": server, "action": f"a{n}", "created_at": start}
                | {"start_time": start + datetime.timedelta(minutes=n)}
                for n in range(40)
            ],
        )
        events = [{"action_id": id_, "event": f"of a{n}"} for n, id_ in enumerate(actions)]
        rows.insert(EVENTS, events)
    records = read(source, server)
    target = Database(releases.target(26)._engine.url, name="MySQL")
    with target.write() as rows:
        rows._connection.dialect.insert_returning = False
        # As a node of a cluster numbers its rows.
        rows._connection.exec_driver_sql(f"SET SESSION auto_increment_increment = {step}")
        rows.columns("tags")
        with counted(target) as sent:
            write_records(rows, records, instance={"hidden": True})
    target.close()
    there = read(releases.target(26), server)
    names = {row["id"]: row["action"] for row in there.tables[ACTIONS]}
    hung = [
        (row["event"], names[row["action_id"]])
        for row in there.tables[EVENTS]
        if row["event"].startswith("of ")
    ]
    assert hung == [(f"of a{n}", f"a{n}") for n in range(40)]
    assert differences(records, there, fresh=True) == []
    assert not any("RETURNING" in each for each in sent)
    # A statement a table, the EC2 id, the actions' increment, and all is read again.
    assert len(sent) <= len(COPIED) + 3


def test_a_grant_that_is_missing_is_named(releases: Releases) -> None:
    database = releases.source(26)
    on = f"DELETE ON {name_of(26)}.tags"
    grants = f"{database.name}: grants"
    as_root("cell1", f"REVOKE {on} FROM {NAME}")
    try:
        (found,) = (each for each in check.database(database, cell_needs()) if each.what == grants)
        assert (found.result, found.seen) == (Result.FAIL, "tags: no DELETE.")
    finally:
        as_root("cell1", f"GRANT {on} TO {NAME}")
    (found,) = (each for each in check.database(database, cell_needs()) if each.what == grants)
    assert found.result is Result.OK


def test_a_table_that_somebody_redefines_is_a_conflict_within_seconds(
    releases: Releases, make_server: Any
) -> None:
    source = releases.source(26)
    server = make_server(source)
    lock = f"LOCK TABLES {name_of(26)}.tags WRITE; SELECT 'locked'; SELECT SLEEP(60)"
    argv = [str(OUTPUTS / "sql"), "cell1", "-N", "--unbuffered", "-e", lock]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            began = time.monotonic()
            with pytest.raises(errors.Conflict, match="held a lock"), source.write() as rows:
                rows.delete("tags", resource_id=server)
            assert time.monotonic() - began < 15
        finally:
            holder.kill()
    (number,) = itertools.chain.from_iterable(
        sql(
            "cell1", "SELECT id FROM information_schema.processlist WHERE info = 'SELECT SLEEP(60)'"
        )
    )
    sql("cell1", f"KILL {number}")
