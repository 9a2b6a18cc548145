"""A server's records travel exactly: hostile content, and what is done to it meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from cellmove.dbcopy.compare import differences
from cellmove.dbcopy.copy import Records, read_records, write_records
from cellmove.dbcopy.database import Database
from cellmove.dbcopy.tables import ACTIONS, COPIED, EVENTS
from cellmove.errors import CellmoveError
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import STATE, sql
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import CELLS, nothing_left

pytestmark = pytest.mark.lab

SOURCE, TARGET = "cmp1b", "cmp2b"
SERVER = "0badc0de-0000-4000-8000-000000000001"
QUOTES = "it's \"so\" \\ \\' %s :x {y} `z` -- ; DROP TABLE instances; /* \t\r\n \\N \\0 \x00 \x1a"
THREE_BYTES = "\N{EURO SIGN}\u05d0\u202e\u4e2d"
FOUR_BYTES = "\N{PILE OF POO}\U00020000"
FIRST, LAST = dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)
BORN = dt.datetime(2019, 2, 28, 23, 59, 59)
OWNED = {"instance_uuid": SERVER, "created_at": BORN, "updated_at": None, "deleted": 0}

Pair = tuple[Database, Database]


def old_object(kind: str, version: str, **data: Any) -> dict[str, Any]:
    """A versioned object as some release has written it, with what no release knows."""
    return {
        "nova_object.version": version,
        "nova_object.name": kind,
        "nova_object.data": {**data, "of_the_future": {"b": [1.0, 1e400, None]}},
        "nova_object.namespace": "nova",
        "unknown_beside": True,
    }


HOSTILE: Mapping[str, list[dict[str, Any]]] = {
    "instances": [
        {
            **{name: value for name, value in OWNED.items() if name != "instance_uuid"},
            "id": 4_000_000,
            "uuid": SERVER,
            "display_name": QUOTES,
            "display_description": "",
            "hostname": "trailing blanks  ",
            "key_name": None,
            "key_data": THREE_BYTES * 1000,
            "user_data": "QUJD" * 350_000,
            "launched_at": FIRST,
            "terminated_at": LAST,
            "launched_on": " ",
            "memory_mb": 2**31 - 1,
            "progress": -1,
            "locked": None,
            "hidden": None,
            "kernel_id": "",
            "ramdisk_id": None,
            "project_id": "MiXeD",
        }
    ],
    "instance_extra": [
        {
            **OWNED,
            "flavor": json.dumps(
                {"old": None, "cur": old_object("Flavor", "1.0", name=QUOTES), "new": None},
                indent=3,
            ),
            "keypairs": json.dumps(old_object("KeyPairList", "1.0", text=FOUR_BYTES)),
            # What a parser would make another text of: order, blanks, a key that is there twice.
            "vcpu_model": '{"b": 1,  "a": 1.00, "a": 2 }',
            "numa_topology": "",
            "pci_requests": None,
            "trusted_certs": "no JSON {",
        }
    ],
    "instance_info_caches": [{**OWNED, "network_info": "[" + "{}, " * 50_000 + "{}]"}],
    "instance_metadata": [
        {**OWNED, "key": f"k{n}", "value": value}
        for n, value in enumerate(["", None, "a", "A", "a ", " a", "\u00e4", "a\u0308", QUOTES])
    ]
    + [{**OWNED, "key": f"many{n}", "value": THREE_BYTES * 60} for n in range(500)],
    "instance_system_metadata": [
        {**OWNED, "key": "image_" + QUOTES, "value": QUOTES},
        {**OWNED, "key": "", "value": ""},
        {**OWNED, "key": "Case", "value": None},
        {**OWNED, "key": "case", "value": "0"},
    ],
    "block_device_mapping": [
        {**OWNED, "uuid": None, "device_name": "/dev/vda", "boot_index": 0},
        {**OWNED, "uuid": None, "device_name": "/dev/vdb", "boot_index": None},
        {
            **OWNED,
            "uuid": str(uuid.uuid4()),
            "connection_info": json.dumps({"data": {"x": QUOTES}, "serial": None}),
            "tag": "",
        },
    ],
    "virtual_interfaces": [
        {**OWNED, "uuid": str(uuid.uuid4()), "address": "fa:16:3e:00:00:01", "tag": THREE_BYTES}
    ],
    "tags": [{"resource_id": SERVER, "tag": tag} for tag in (THREE_BYTES, "'", "x" * 80, "%")],
    "instance_faults": [
        {**OWNED, "code": 500, "message": QUOTES, "details": "\n" * 100_000, "host": None},
        {**OWNED, "code": -1, "message": "", "details": None, "host": ""},
    ],
    "instance_id_mappings": [
        {"id": 4_000_000, "uuid": SERVER, "created_at": None, "updated_at": LAST, "deleted": 0}
    ],
    "migrations": [
        {
            **OWNED,
            "uuid": str(uuid.uuid4()),
            "status": "error",
            "migration_type": "live-migration",
            "hidden": 1,
            "memory_total": 2**62,
        }
    ],
    ACTIONS: [
        {
            **OWNED,
            "id": 4_000_000 - n,
            "action": f"a{n % 3}",
            "request_id": "req-twice" if n < 2 else f"req-{n}",
            "message": QUOTES,
            "start_time": FIRST,
            "finish_time": LAST,
        }
        for n in range(300)
    ],
    EVENTS: [
        {
            "created_at": BORN,
            "deleted": 0,
            "action_id": 4_000_000 - n % 300,
            "event": f"e{n // 300}",
            "traceback": QUOTES * 100,
            "result": "Error",
        }
        for n in range(900)
    ],
}  # fmt: skip


@contextmanager
def scratch(cell: str) -> Iterator[tuple[str, str]]:
    """A cell, and the name of a schema of the test's own beside the cell's own one."""
    name = f"cellmove_exact_{uuid.uuid4().hex[:8]}"
    sql(cell, f"CREATE DATABASE {name}")
    try:
        yield cell, name
    finally:
        sql(cell, f"DROP DATABASE {name}")


@pytest.fixture(scope="module")
def schemas() -> Iterator[list[tuple[str, str]]]:
    with ExitStack() as stack:
        yield [stack.enter_context(scratch(cell)) for cell in CELLS]


@pytest.fixture
def pair(schemas: list[tuple[str, str]]) -> Iterator[Pair]:
    """Both with the tables of nova's cells, and empty; opened as the database's root."""
    opened = []
    for cell, name in schemas:
        made = "; ".join(
            f"CREATE OR REPLACE TABLE {name}.{table.name} LIKE {CELLS[cell]}.{table.name}"
            for table in COPIED
        )
        sql(cell, made)
        socket = str(STATE / "mariadb" / cell / "socket")
        where = {"host": "localhost", "database": name, "query": {"unix_socket": socket}}
        url = sa.URL.create("mysql+pymysql", "root", **where)  # type: ignore[arg-type]
        opened.append(Database(url, name=f"cell {cell}"))
    yield opened[0], opened[1]
    for database in opened:
        database.close()


def put(database: Database, content: Mapping[str, list[dict[str, Any]]]) -> None:
    with database.write() as written:
        for table, found in content.items():
            # One by one: each row names its own columns.
            for row in found:
                written.insert(table, [row])


def read(database: Database) -> Records:
    with database.read() as found:
        return read_records(found, SERVER)


def copy(pair: Pair) -> Records:
    records = read(pair[0])
    with pair[1].write() as written:
        write_records(written, records, instance={"hidden": True})
    return records


def bytes_of(database: Database, table: str) -> list[list[str]]:
    """Every value of the table as the database has it, read without cellmove; but for ids."""
    cell, schema = database.name.removeprefix("cell "), str(database._engine.url.database)
    names = [
        name
        for (name,) in sql(
            cell,
            "SELECT column_name FROM information_schema.columns"
            f" WHERE table_schema = '{schema}' AND table_name = '{table}'",
        )
        if name not in ("id", "action_id", "hidden")
    ]
    hexed = ", ".join(f"IFNULL(MD5(HEX(`{name}`)), 'NULL')" for name in names)
    return sorted(sql(f"{cell}.{schema}", f"SELECT {hexed} FROM `{table}`"))


def alter(database: Database, statement: str) -> Database:
    """The same database with another schema: what is known of it is asked anew."""
    with database._engine.begin() as connection:
        connection.exec_driver_sql(statement)
    return Database(database._engine.url, name=database.name)


def test_hostile_content_is_copied_byte_by_byte(pair: Pair) -> None:
    put(pair[0], HOSTILE)
    records = copy(pair)
    assert differences(records, read(pair[1]), fresh=True) == []
    assert {name: len(its) for name, its in records.tables.items()} == {
        name: len(its) for name, its in HOSTILE.items()
    }
    for table in HOSTILE:
        assert bytes_of(pair[0], table) == bytes_of(pair[1], table), table
    instance = read(pair[1]).instance
    assert instance["hidden"]
    for name, value in HOSTILE["instances"][0].items():
        assert name in ("id", "hidden") or instance[name] == value, name


def test_every_event_hangs_on_its_own_action(pair: Pair) -> None:
    put(pair[0], HOSTILE)
    copy(pair)
    for database in pair:
        tables = read(database).tables
        actions = {row["id"]: row for row in tables[ACTIONS]}
        hung = [actions[row["action_id"]]["action"] for row in tables[EVENTS]]
        assert len(hung) == 900
        assert hung.count("a0") == hung.count("a1") == hung.count("a2") == 300


def test_four_bytes_travel_where_the_column_takes_them(pair: Pair) -> None:
    pair = tuple(
        alter(each, "ALTER TABLE instances CONVERT TO CHARACTER SET utf8mb4") for each in pair
    )  # type: ignore[assignment]
    (instance,) = HOSTILE["instances"]
    put(pair[0], {**HOSTILE, "instances": [{**instance, "display_name": FOUR_BYTES}]})
    records = copy(pair)
    assert differences(records, read(pair[1]), fresh=True) == []
    assert read(pair[1]).instance["display_name"] == FOUR_BYTES


@pytest.mark.parametrize(
    ("here", "there", "values"),
    [
        # Refused by MariaDB itself.
        ("CONVERT TO CHARACTER SET utf8mb4", "", {"display_name": FOUR_BYTES}),
        ("", "MODIFY display_name VARCHAR(10)", {"display_name": "x" * 11}),
        # Changed by it in silence.
        ("", "MODIFY hostname CHAR(255)", {"hostname": "blank "}),
        ("MODIFY launched_at DATETIME(6)", "", {"launched_at": LAST.replace(microsecond=1)}),
        ("MODIFY progress DOUBLE", "", {"progress": 0.25}),
    ],
    ids=["four bytes", "too long", "trailing blanks", "microseconds", "fractions"],
)
def test_what_the_other_cell_cannot_hold_is_refused_and_nothing_is_written(
    pair: Pair, here: str, there: str, values: dict[str, Any]
) -> None:
    changed = [
        alter(each, f"ALTER TABLE instances {how}") if how else each
        for each, how in zip(pair, (here, there), strict=True)
    ]
    (instance,) = HOSTILE["instances"]
    put(changed[0], {"instances": [{**instance, **values}]})
    with pytest.raises(CellmoveError) as refused:
        copy((changed[0], changed[1]))
    assert refused.value.do
    with changed[1].read() as found:
        assert found.count("instances", uuid=SERVER) == 0


@pytest.mark.parametrize(
    ("column", "here", "there"),
    [
        ("display_name", "web", "web "),
        ("display_name", "web", "WEB"),
        ("display_name", "a\u0308", "\u00e4"),
        ("display_description", "", None),
        ("user_data", "x" * 1_000_000 + "y", "x" * 1_000_000 + "z"),
        ("launched_at", FIRST, FIRST + dt.timedelta(seconds=1)),
    ],
    ids=["blank", "case", "composed", "null", "last of a megabyte", "a second"],
)
def test_a_comparison_sees_what_mariadb_calls_equal(
    pair: Pair, column: str, here: Any, there: Any
) -> None:
    put(pair[0], {**HOSTILE, "instances": [{**HOSTILE["instances"][0], column: here}]})
    records = copy(pair)
    with pair[1].write() as written:
        written.change("instances", {column: there, "updated_at": None}, uuid=SERVER)
    (found,) = differences(records, read(pair[1]), fresh=True)
    assert (found.table, found.column) == ("instances", column)


RENAMED: dict[str, Any] = {
    "name": f"renamed {THREE_BYTES[0]}",
    "description": 'it\'s \\ "so"',
    "accessIPv4": "192.0.2.7",
    "accessIPv6": "2001:db8::7",
    "hostname": "another-name",
    "OS-DCF:diskConfig": "AUTO",
}
TRAVELLED = ("resize", "lock", "unlock", "trigger_crash_dump", "create")
DUMPED = "compute_trigger_crash_dump"
ENDED = ("start_time", "user_id", "project_id", "message")

Act = Callable[[str, Mapping[str, Any]], None]


def act_on(nova: Nova, server: str) -> Act:
    """Calls nova's API on the server; what it refuses fails the test."""

    def act(verb: str, body: Mapping[str, Any]) -> None:
        path = f"/servers/{server}" + ("/action" if verb == "POST" else "")
        answer = nova._compute.send(verb, path, body)
        assert answer.ok, answer.message

    return act


def history(nova: Nova, server: str) -> dict[str, Any]:
    """Request id -> the action and its events, as nova's API tells them."""
    return {
        each["request_id"]: (
            {name: each[name] for name in ENDED},
            {(e["event"], e["start_time"], e["finish_time"]) for e in nova.events(server, each)},
        )
        for each in nova.actions(server)
    }


def until_dumped(nova: Nova, server: str) -> None:
    """Wait for nova-compute, which makes a crash dump after the API has answered."""
    deadline = time.monotonic() + 60
    while not any(e["event"] == DUMPED and e["finish_time"] for e in every_event(nova, server)):
        assert time.monotonic() < deadline, every_event(nova, server)
        time.sleep(0.2)


def every_event(nova: Nova, server: str) -> list[dict[str, Any]]:
    return [event for each in nova.actions(server) for event in nova.events(server, each)]


def test_what_is_done_during_a_move_and_while_resized_is_there_afterwards(
    nova: Nova, cellmove: Cellmove
) -> None:
    """One server, over the resize and home again: nova loses all of this."""
    with nova.lent("exact", SOURCE, metadata={"a": "1"}, more={"tags": ["blue"]}) as server:
        nova.wait_port(server, SOURCE)
        act = act_on(nova, server)

        # During the move: after the copy, before the mapping moves.
        moving = cellmove.start("resize", server, "--flavor", "c2", "--to-host", TARGET)
        cellmove.reached("stop-source-guest", "begun", timeout_seconds=400)
        act("PUT", {"server": {"name": "while moving"}})
        act("POST", {"lock": {"locked_reason": QUOTES[:30]}})
        done = Cellmove.wait(moving)
        assert done.code == 0, done
        shown = nova.show(server)
        assert (shown["name"], shown["locked"]) == ("while moving", True)
        assert shown["locked_reason"] == QUOTES[:30]
        assert [each["action"] for each in nova.actions(server)] == ["lock", "resize", "create"]
        assert cellmove("compare", server).code == 0

        # In VERIFY_RESIZE, in the target cell.
        act("POST", {"unlock": None})
        act("POST", {"lock": {"locked_reason": "because"}})
        act("POST", {"trigger_crash_dump": None})
        act("PUT", {"server": RENAMED})
        until_dumped(nova, server)
        told = history(nova, server)
        (resize,) = (each for each in nova.actions(server) if each["action"] == "resize")
        before = nova.show(server)
        found = cellmove("compare", server, "--json", check=False)
        assert found.code == 7
        columns = {each["column"] for each in found.json()["differences"]}
        assert {"display_name", "hostname", "access_ip_v4", "auto_disk_config"} <= columns

        cellmove("revert", server, "--yes")
        after = nova.show(server)
        asked = ("name", "description", "accessIPv4", "accessIPv6", "OS-EXT-SRV-ATTR:hostname")
        for name in (*asked, "OS-DCF:diskConfig", "locked", "locked_reason", "metadata", "tags"):
            assert after[name] == before[name], name
        assert after["name"] == RENAMED["name"]
        assert after["OS-EXT-SRV-ATTR:host"] == SOURCE

        now = history(nova, server)
        for request, (action, events) in told.items():
            assert now[request][0] == action
            if request == resize["request_id"]:
                # Each cell has written its own times; the source's own event is there again.
                assert {e[0] for e in events} < {e[0] for e in now[request][1]}
            else:
                assert events == now[request][1], request
        names = {each["action"] for each in nova.actions(server)}
        assert names == {*TRAVELLED, "revertResize"}
        assert all(event["finish_time"] for event in every_event(nova, server))
        nova.delete(server)
        nothing_left(server)
