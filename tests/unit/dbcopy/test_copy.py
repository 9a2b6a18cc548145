"""A server's records travel whole, under new ids, and leave nothing behind when deleted."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cellmove import errors
from cellmove.dbcopy.compare import MISSING, Difference, differences
from cellmove.dbcopy.copy import (
    Records,
    delete_records,
    leftovers,
    read_records,
    write_records,
)
from cellmove.dbcopy.database import Database, Rows
from cellmove.dbcopy.tables import (
    ACTIONS,
    BY_NAME,
    CENSUS,
    COPIED,
    DELETION_ORDER,
    EVENTS,
    Fate,
)
from tests.fakes import schema
from tests.fakes.databases import (
    BORN,
    HOSTS,
    NEIGHBOURS,
    add_server,
    counted,
    port_of,
    snapshot,
)
from tests.unit.dbcopy.conftest import SERVER, Databases, with_changed_schema


def read(database: Database, server: str = SERVER) -> Records:
    with database.read() as rows:
        return read_records(rows, server)


def copied(databases: Databases, **instance: Any) -> Records:
    records = read(databases.source)
    with databases.target.write() as rows:
        write_records(rows, records, instance={"hidden": True, **instance})
    return read(databases.target)


def test_every_table_that_is_copied_has_rows_in_the_fake(databases: Databases) -> None:
    records = read(databases.source)
    assert [name for name, rows in records.tables.items() if not rows] == []
    assert list(records.tables) == [table.name for table in COPIED]


def test_a_copy_says_the_same_as_the_original(databases: Databases) -> None:
    there = copied(databases)
    assert differences(read(databases.source), there, fresh=True) == []
    assert there.instance["hidden"]
    assert there.instance["created_at"] == BORN


def test_a_copy_gets_ids_of_its_own_cell(databases: Databases) -> None:
    here, there = read(databases.source), copied(databases)
    for table in ("instances", "migrations", ACTIONS, EVENTS):
        ids = {row["id"] for row in here.tables[table]}
        assert not ids & {row["id"] for row in there.tables[table]}


def test_events_hang_on_their_own_action_even_when_two_share_a_request_id(
    databases: Databases,
) -> None:
    with databases.source.write() as rows:
        rows.change(ACTIONS, {"request_id": "req-same"}, expect=2, instance_uuid=SERVER)
    there = copied(databases)
    names = {row["id"]: row["action"] for row in there.tables[ACTIONS]}
    events = [(names[row["action_id"]], row["event"]) for row in there.tables[EVENTS]]
    assert events[0] == ("create", "conductor_schedule_and_build_instances")
    assert [action for action, _ in events] == ["create"] * 2 + ["resize"] * 3


def test_actions_are_copied_oldest_first_whatever_their_ids(
    databases: Databases,
) -> None:
    with databases.source.write() as rows:
        early = {
            "instance_uuid": SERVER,
            "action": "first",
            "created_at": "2026-01-01 00:00:00",
        }
        rows.insert(ACTIONS, [early])
    there = copied(databases)
    by_id = sorted(there.tables[ACTIONS], key=lambda row: int(row["id"]))
    assert [row["action"] for row in by_id] == ["first", "create", "resize"]


def test_an_interfaces_address_keeps_its_port(databases: Databases) -> None:
    port = port_of(SERVER, "cmp1a")
    there = copied(databases)
    assert there.tables["virtual_interfaces"][0]["address"] == f"{port.mac}/{port.id}"


def test_the_ec2_id_is_kept_where_it_is_free(databases: Databases) -> None:
    (here,) = read(databases.source).tables["instance_id_mappings"]
    (there,) = copied(databases).tables["instance_id_mappings"]
    assert here["id"] == there["id"]


def test_a_taken_ec2_id_becomes_a_new_one(databases: Databases) -> None:
    (here,) = read(databases.source).tables["instance_id_mappings"]
    with databases.target.write() as rows:
        rows.insert("instance_id_mappings", [{"id": here["id"], "uuid": NEIGHBOURS["cmp2a"]}])
    (there,) = copied(databases).tables["instance_id_mappings"]
    assert here["id"] != there["id"]


def test_ids_of_the_source_cell_are_not_carried(databases: Databases) -> None:
    with databases.source.write() as rows:
        rows.change("instance_extra", {"migration_context": "{}"}, instance_uuid=SERVER)
    assert copied(databases).tables["instance_extra"][0]["migration_context"] is None


def test_hidden_is_never_null_in_a_copy(databases: Databases) -> None:
    with databases.source.write() as rows:
        rows.change("instances", {"hidden": None}, uuid=SERVER)
    records = read(databases.source)
    with databases.target.write() as rows:
        write_records(rows, records, instance={})
    assert read(databases.target).instance["hidden"] == 0


@pytest.mark.parametrize(
    ("meddler", "what"),
    [
        ("UPDATE instance_metadata SET value = 'x' WHERE id = NEW.id", "written into value"),
        ("DELETE FROM instance_metadata", "instance_metadata holds 0 instead of 1"),
    ],
)
def test_a_copy_that_the_target_changes_in_silence_is_found_and_not_kept(
    databases: Databases, meddler: str, what: str
) -> None:
    statement = f"CREATE TRIGGER m AFTER INSERT ON instance_metadata BEGIN {meddler}; END"
    target = with_changed_schema(databases.target, statement)
    before = snapshot(target)
    with pytest.raises(errors.StepFailed, match=what):
        copied(dataclasses.replace(databases, target=target))
    assert snapshot(target) == before


def test_soft_deleted_rows_stay_behind(databases: Databases) -> None:
    with databases.source.write() as rows:
        gone = {"instance_uuid": SERVER, "key": "gone", "value": "1", "deleted": 9}
        rows.insert("instance_metadata", [gone])
    there = copied(databases)
    assert [row["key"] for row in there.tables["instance_metadata"]] == ["role"]


def test_a_copy_onto_leftovers_is_a_conflict_and_writes_nothing(
    databases: Databases,
) -> None:
    copied(databases)
    before = snapshot(databases.target)
    with pytest.raises(errors.Conflict):
        copied(databases)
    assert snapshot(databases.target) == before


def test_copying_changes_nothing_in_the_source_nor_of_others(
    databases: Databases,
) -> None:
    source, other = (
        snapshot(databases.source),
        read(databases.target, NEIGHBOURS["cmp2a"]),
    )
    copied(databases)
    assert snapshot(databases.source) == source
    assert read(databases.target, NEIGHBOURS["cmp2a"]) == other


def test_a_server_of_another_cell_cannot_be_read(databases: Databases) -> None:
    with pytest.raises(errors.Conflict, match="no server"):
        read(databases.target)


def test_deleting_after_copying_gives_the_cell_back_as_it_was(
    databases: Databases,
) -> None:
    before = snapshot(databases.target)
    copied(databases)
    with databases.target.write() as rows:
        delete_records(rows, SERVER)
        delete_records(rows, SERVER)
    assert snapshot(databases.target) == before


def test_deleting_takes_soft_deleted_rows_and_consoles_too(
    databases: Databases,
) -> None:
    console = {
        "token_hash": "t",
        "console_type": "novnc",
        "host": "h",
        "port": 1,
        "expires": 1,
    }
    with databases.source.write() as rows:
        rows.insert("console_auth_tokens", [console | {"instance_uuid": SERVER}])
        gone = {"instance_uuid": SERVER, "key": "gone", "value": "1", "deleted": 9}
        rows.insert("instance_metadata", [gone])
        found = leftovers(rows, SERVER)
        assert (found["instance_metadata"], found["console_auth_tokens"]) == (2, 1)
        delete_records(rows, SERVER)
        assert leftovers(rows, SERVER) == {}
        assert rows.count("instances", uuid=NEIGHBOURS["cmp1a"]) == 1


def test_what_a_table_outside_of_the_census_refers_to_is_not_deleted(
    databases: Databases,
) -> None:
    source = with_changed_schema(
        databases.source,
        "CREATE TABLE future (instance_uuid TEXT REFERENCES instances(uuid))",
        f"INSERT INTO future VALUES ('{SERVER}')",
    )
    before = snapshot(source)
    with pytest.raises(errors.Conflict), source.write() as rows:
        delete_records(rows, SERVER)
    assert snapshot(source) == before


def statements_of_a_copy(databases: Databases) -> tuple[int, int, int]:
    copied(databases)
    with databases.target.write() as rows:
        delete_records(rows, SERVER)
    with counted(databases.source) as reading:
        records = read(databases.source)
    with counted(databases.target) as writing, databases.target.write() as rows:
        write_records(rows, records, instance={"hidden": True})
    with counted(databases.target) as deleting, databases.target.write() as rows:
        delete_records(rows, SERVER)
    return len(reading), len(writing), len(deleting)


def test_round_trips_do_not_grow_with_rows(databases: Databases) -> None:
    few = statements_of_a_copy(databases)
    with databases.source.write() as rows:
        many_rows(rows)
    assert statements_of_a_copy(databases) == few
    reading, writing, deleting = few
    tables = len(COPIED)
    # SQLite has no way to ask for all tables in one round trip: the lab counts those.
    assert reading <= tables + 4
    assert writing <= 2 * tables + 2
    assert deleting <= len(DELETION_ORDER) + 2


def many_rows(rows: Rows) -> None:
    owned = {"instance_uuid": SERVER}
    rows.insert("tags", [{"resource_id": SERVER, "tag": f"t{n}"} for n in range(50)])
    values = [owned | {"key": f"k{n}", "value": "v"} for n in range(100)]
    rows.insert("instance_system_metadata", values)
    actions = rows.insert(ACTIONS, [owned | {"action": "reboot"} for _ in range(300)])
    rows.insert(EVENTS, [{"action_id": id_, "event": "e"} for id_ in actions for _ in range(3)])


def test_the_census_deletes_what_it_copies_or_drops_and_nothing_else() -> None:
    gone = {table.name for table in CENSUS if table.fate in (Fate.COPY, Fate.DROP)}
    assert set(DELETION_ORDER) == gone
    assert len(DELETION_ORDER) == len(gone)


@pytest.mark.parametrize("table", CENSUS, ids=lambda table: table.name)
def test_every_table_of_the_census_says_why(table: Any) -> None:
    assert len(table.why) > 15


def test_tables_come_after_what_they_refer_to_and_go_before_it() -> None:
    inserted = [table.name for table in COPIED]
    for name in inserted:
        for key in schema.CELL.tables[name].foreign_keys:
            parent = key.column.table.name
            assert inserted.index(parent) < inserted.index(name)
            assert DELETION_ORDER.index(name) < DELETION_ORDER.index(parent)


def test_the_key_of_every_table_is_one_of_its_columns() -> None:
    for name in DELETION_ORDER:
        assert BY_NAME[name].key in schema.CELL.tables[name].columns


def test_a_difference_names_the_table_the_row_and_the_column(
    databases: Databases,
) -> None:
    here = read(databases.source)
    copied(databases)
    with databases.target.write() as rows:
        rows.change("instance_metadata", {"value": "db", "updated_at": None}, instance_uuid=SERVER)
        rows.delete("tags", resource_id=SERVER, tag="blue")
    assert differences(here, read(databases.target), fresh=True) == [
        Difference("instance_metadata", "role", "value", "web", "db"),
        Difference("tags", "blue", "", "present", MISSING),
    ]


def test_json_is_compared_by_what_it_says(databases: Databases) -> None:
    here = read(databases.source)
    there = copied(databases)
    flavor = json.loads(there.tables["instance_extra"][0]["flavor"])
    with databases.target.write() as rows:
        text = json.dumps(flavor, indent=1, sort_keys=True)
        rows.change("instance_extra", {"flavor": text}, instance_uuid=SERVER)
    assert differences(here, read(databases.target)) == []


def test_in_a_move_each_cell_has_its_own_state_but_not_its_own_history(
    databases: Databases,
) -> None:
    here = read(databases.source)
    copied(databases, vm_state="resized", host="cmp2a")
    with databases.target.write() as rows:
        old = {"instance_uuid": SERVER, "key": "old_vm_state", "value": "active"}
        rows.insert("instance_system_metadata", [old])
        action = {
            "instance_uuid": SERVER,
            "action": "migrate",
            "request_id": "req-ours",
        }
        rows.insert(ACTIONS, [action])
    there = read(databases.target)
    assert differences(here, there, unfinished={"req-ours"}) == []
    assert [each.table for each in differences(here, there)] == [ACTIONS]
    strict = differences(here, there, fresh=True, unfinished={"req-ours"})
    assert [(each.table, each.column or each.key) for each in strict] == [
        ("instances", "host"),
        ("instances", "vm_state"),
        ("instance_system_metadata", "old_vm_state"),
    ]


def test_a_server_of_each_state_reads_as_it_was_written(databases: Databases) -> None:
    server = "33333333-3333-4333-8333-333333333333"
    stopped = {"vm_state": "stopped", "power_state": 4, "display_name": "db-1"}
    cell = databases.target
    assert HOSTS["cmp2b"].name == "cell2"
    add_server(databases.api, cell, uuid=server, host="cmp2b", vm_state="stopped", name="db-1")
    instance = read(cell, server).instance
    assert {name: instance[name] for name in stopped} == stopped
