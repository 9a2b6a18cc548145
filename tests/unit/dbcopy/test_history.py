"""Actions that only one cell has seen are carried to the other, whole and once."""

from __future__ import annotations

import pytest

from cellmove.dbcopy.copy import read_records, write_records
from cellmove.dbcopy.history import carry, drop_carried, missing
from tests.fakes.databases import BORN, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases

NEW = ("req-reboot", "req-revert")


@pytest.fixture
def copied(databases: Databases) -> Databases:
    """The target has a copy, and two actions that the source lacks."""
    with databases.source.read() as rows:
        records = read_records(rows, SERVER)
    with databases.target.write() as rows:
        write_records(rows, records, instance={"hidden": True})
        for request in NEW:
            action = {"action": request[4:], "instance_uuid": SERVER, "request_id": request}
            (number,) = rows.insert("instance_actions", [action | {"start_time": BORN}])
            events = [{"action_id": number, "event": f"{request}-{n}"} for n in range(2)]
            rows.insert("instance_actions_events", events)
    return databases


def lacks(databases: Databases) -> list[str]:
    with databases.target.read() as there, databases.source.read() as home:
        return missing(there, home, SERVER)


def bring(databases: Databases) -> None:
    with databases.target.read() as there, databases.source.write() as home:
        carry(there, home, SERVER)


def test_what_home_lacks_is_found_oldest_first(copied: Databases) -> None:
    assert lacks(copied) == list(NEW)


def test_actions_are_carried_with_their_events_under_ids_of_their_own(copied: Databases) -> None:
    bring(copied)
    assert lacks(copied) == []
    with copied.source.read() as rows:
        actions = rows.all("instance_actions", instance_uuid=SERVER, request_id=list(NEW))
        assert [each["action"] for each in actions] == ["reboot", "revert"]
        for each in actions:
            events = rows.all("instance_actions_events", action_id=each["id"])
            wanted = [f"{each['request_id']}-{n}" for n in range(2)]
            assert [event["event"] for event in events] == wanted
            assert each["start_time"] == BORN
    with copied.target.read() as rows:
        theirs = rows.all("instance_actions", request_id=list(NEW))
    assert {each["id"] for each in actions}.isdisjoint({each["id"] for each in theirs})


def test_twice_is_once(copied: Databases) -> None:
    bring(copied)
    once = snapshot(copied.source)
    bring(copied)
    assert snapshot(copied.source) == once


def test_where_nothing_is_missing_nothing_is_carried(databases: Databases) -> None:
    before = snapshot(databases.source)
    with databases.source.read() as there, databases.source.read() as home:
        assert missing(there, home, SERVER) == []
    assert snapshot(databases.source) == before


def test_what_was_carried_is_dropped_again_and_nothing_else(copied: Databases) -> None:
    before = snapshot(copied.source)
    bring(copied)
    for _ in range(2):
        with copied.source.write() as home:
            drop_carried(home, SERVER, NEW)
        assert snapshot(copied.source) == before


def test_dropping_nothing_drops_nothing(copied: Databases) -> None:
    before = snapshot(copied.source)
    with copied.source.write() as home:
        drop_carried(home, SERVER, ())
    assert snapshot(copied.source) == before
