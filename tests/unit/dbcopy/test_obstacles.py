"""What would lose or break data is found before anything is touched."""

from __future__ import annotations

import dataclasses

import pytest

from cellmove import errors
from cellmove.dbcopy.copy import read_records, write_records
from cellmove.dbcopy.obstacles import obstacles
from cellmove.dbcopy.tables import unknown_tables
from tests.fakes.databases import NEIGHBOURS, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases, with_changed_schema


def found(databases: Databases) -> list[str]:
    """Each as a person reads it; it says what is wrong, what was seen and what to do."""
    reasons = obstacles(databases.source, databases.target, SERVER)
    assert all(each.what and each.seen and each.do for each in reasons)
    return [str(each) for each in reasons]


def changed(databases: Databases, *statements: str) -> Databases:
    source = with_changed_schema(databases.source, *statements)
    return dataclasses.replace(databases, source=source)


def with_column(databases: Databases, value: str) -> Databases:
    """A column of a release to come."""
    return changed(
        databases,
        "ALTER TABLE instances ADD COLUMN novelty TEXT",
        f"UPDATE instances SET novelty = {value} WHERE uuid = '{SERVER}'",
    )


def with_table(databases: Databases, server: str = SERVER) -> Databases:
    """A table of a release to come."""
    return changed(
        databases,
        "CREATE TABLE future (id INTEGER PRIMARY KEY,"
        " instance_uuid TEXT REFERENCES instances(uuid))",
        f"INSERT INTO future (instance_uuid) VALUES ('{server}')",
    )


def test_a_plain_server_meets_none_and_looking_changes_nothing(
    databases: Databases,
) -> None:
    before = snapshot(databases.source), snapshot(databases.target)
    assert found(databases) == []
    assert (snapshot(databases.source), snapshot(databases.target)) == before


def test_a_column_that_only_the_source_has_is_one_when_it_holds_something(
    databases: Databases,
) -> None:
    (why,) = found(with_column(databases, "'precious'"))
    assert "cell cell2 has no column instances.novelty, and the server has 1 value(s) in it" in why


def test_a_column_that_only_the_source_has_is_none_when_it_is_empty(
    databases: Databases,
) -> None:
    databases = with_column(databases, "NULL")
    assert found(databases) == []
    with databases.source.read() as rows:
        records = read_records(rows, SERVER)
    with databases.target.write() as rows:
        write_records(rows, records, instance={})
        assert rows.count("instances", uuid=SERVER) == 1


def test_an_unknown_table_is_one_when_it_has_rows_of_the_server(
    databases: Databases,
) -> None:
    databases = with_table(databases)
    assert unknown_tables(databases.source) == {"future": ("instance_uuid", "uuid")}
    (why,) = found(databases)
    assert "future has 1 row(s) of the server" in why


def test_an_unknown_table_is_none_when_it_has_rows_of_others(
    databases: Databases,
) -> None:
    assert found(with_table(databases, NEIGHBOURS["cmp1a"])) == []


def test_the_fake_cells_have_no_unknown_table(databases: Databases) -> None:
    assert unknown_tables(databases.source) == {}


def test_shadow_tables_are_not_asked(databases: Databases) -> None:
    databases = changed(databases, "CREATE TABLE shadow_instances (instance_uuid TEXT)")
    assert unknown_tables(databases.source) == {}


def test_a_shared_directory_is_one(databases: Databases) -> None:
    databases = changed(
        databases,
        "CREATE TABLE share_mapping (id INTEGER PRIMARY KEY, instance_uuid TEXT)",
        f"INSERT INTO share_mapping VALUES (1, '{SERVER}')",
    )
    (why,) = found(databases)
    assert "share_mapping" in why


def test_a_pci_device_is_one(databases: Databases) -> None:
    with databases.source.write() as rows:
        node = rows.all("compute_nodes")[0]["id"]
        device = {
            "compute_node_id": node,
            "address": "0000:00:01.0",
            "vendor_id": "8086",
            "product_id": "10ed",
            "dev_type": "type-VF",
            "label": "label",
            "status": "allocated",
            "instance_uuid": SERVER,
        }
        rows.insert("pci_devices", [device])
    (why,) = found(databases)
    assert "pci_devices" in why


@pytest.mark.parametrize("status", ["finished", "confirming"])
def test_a_stale_migration_of_its_history_is_one(databases: Databases, status: str) -> None:
    with databases.source.write() as rows:
        rows.change("migrations", {"status": status}, instance_uuid=SERVER)
    (why,) = found(databases)
    assert f"still has status {status}" in why


def test_leftovers_in_the_target_are_even_when_soft_deleted(
    databases: Databases,
) -> None:
    with databases.target.write() as rows:
        rows.insert("instances", [{"uuid": SERVER, "deleted": 5}])
        rows.insert("instance_id_mappings", [{"uuid": SERVER}])
    first, second = found(databases)
    assert "instances has 1 row(s) of it" in first
    assert "instance_id_mappings" in second


def test_a_server_that_the_source_lacks_is_an_error(databases: Databases) -> None:
    with pytest.raises(errors.Conflict, match="no server"):
        obstacles(databases.target, databases.source, SERVER)
