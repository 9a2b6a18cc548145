"""A copy is deleted only where it is hidden and no longer the server."""

from __future__ import annotations

import pytest

from cellmove.dbcopy.copy import leftovers, read_records, write_records
from cellmove.dbcopy.hidden import delete_hidden
from cellmove.errors import StepFailed
from tests.fakes.databases import CELL1, CELL2, NEIGHBOURS, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases


@pytest.fixture
def copied(databases: Databases) -> Databases:
    """The server is in cell1; a hidden copy is in cell2."""
    with databases.source.read() as rows:
        records = read_records(rows, SERVER)
    with databases.target.write() as rows:
        write_records(rows, records, instance={"hidden": True})
    return databases


def test_a_hidden_copy_goes_wholly_and_twice_is_once(copied: Databases) -> None:
    before = snapshot(copied.source)
    for _ in range(2):
        delete_hidden(copied.api, copied.target, CELL2, SERVER)
    with copied.target.read() as rows:
        assert leftovers(rows, SERVER) == {}
        assert rows.count("instances", uuid=NEIGHBOURS["cmp2a"]) == 1
    assert snapshot(copied.source) == before


def refused(databases: Databases) -> None:
    before = snapshot(databases.target)
    with pytest.raises(StepFailed):
        delete_hidden(databases.api, databases.target, CELL2, SERVER)
    assert snapshot(databases.target) == before


def test_what_is_shown_is_not_deleted(copied: Databases) -> None:
    with copied.target.write() as rows:
        rows.change("instances", {"hidden": False}, uuid=SERVER)
    refused(copied)


@pytest.mark.parametrize("hidden", [True, False])
def test_what_the_mapping_points_at_is_not_deleted(copied: Databases, hidden: bool) -> None:
    with copied.target.write() as rows:
        rows.change("instances", {"hidden": hidden}, uuid=SERVER)
    with copied.api.write() as rows:
        rows.change("instance_mappings", {"cell_id": CELL2.id}, instance_uuid=SERVER)
    refused(copied)


def test_without_a_mapping_nothing_is_deleted(copied: Databases) -> None:
    with copied.api.write() as rows:
        rows.delete("instance_mappings", instance_uuid=SERVER)
    refused(copied)


def test_the_server_itself_is_not_deleted(copied: Databases) -> None:
    before = snapshot(copied.source)
    with pytest.raises(StepFailed):
        delete_hidden(copied.api, copied.source, CELL1, SERVER)
    assert snapshot(copied.source) == before
