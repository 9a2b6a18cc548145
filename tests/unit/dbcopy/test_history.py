"""What one cell has of a server's history and the other lacks is carried, whole and once."""

from __future__ import annotations

import datetime as dt

import pytest

from cellmove.dbcopy.copy import read_records, write_records
from cellmove.dbcopy.history import carry, drop_carried, missing, read_history
from tests.fakes.databases import BORN, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases

NEW = ("req-reboot", "req-revert")
FAULT = {"code": 500, "message": "boom", "details": "a traceback", "host": "cmp2a"}
LATER = BORN + dt.timedelta(hours=1)


def add_action(databases: Databases, cell: str, request: str, *events: str, **ended: object) -> int:
    database = databases.source if cell == "source" else databases.target
    with database.write() as rows:
        action = {"action": request[4:], "instance_uuid": SERVER, "request_id": request}
        (number,) = rows.insert("instance_actions", [action | {"start_time": BORN}])
        made = [{"action_id": number, "event": event, **ended} for event in events]
        rows.insert("instance_actions_events", made)
        return number


@pytest.fixture
def copied(databases: Databases) -> Databases:
    """The target has a copy, and two actions that the source lacks."""
    with databases.source.read() as rows:
        records = read_records(rows, SERVER)
    with databases.target.write() as rows:
        write_records(rows, records, instance={"hidden": True})
    for request in NEW:
        add_action(databases, "target", request, f"{request}-0", f"{request}-1")
    return databases


def lacks(databases: Databases) -> list[str]:
    with databases.target.read() as there, databases.source.read() as home:
        return missing(there, home, SERVER)


def bring(databases: Databases) -> None:
    with databases.target.read() as there, databases.source.write() as home:
        carry(there, home, SERVER)


def drop(databases: Databases, names: list[str]) -> None:
    with databases.source.write() as home:
        drop_carried(home, SERVER, names)


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


def test_events_that_one_cell_has_of_a_known_action_join_it(copied: Databases) -> None:
    here = add_action(copied, "source", "req-both", "at_source", "at_conductor")
    add_action(copied, "target", "req-both", "at_dest", "at_conductor")
    bring(copied)
    with copied.source.read() as rows:
        events = rows.all("instance_actions_events", action_id=here)
    assert [each["event"] for each in events] == ["at_source", "at_conductor", "at_dest"]


def test_a_second_event_of_the_same_name_is_another_one(copied: Databases) -> None:
    here = add_action(copied, "source", "req-retry", "prep")
    add_action(copied, "target", "req-retry", "prep", "prep")
    bring(copied)
    with copied.source.read() as rows:
        assert rows.count("instance_actions_events", action_id=here) == 2


def test_two_actions_of_one_request_keep_their_own_events(copied: Databases) -> None:
    for action in ("lock", "unlock"):
        with copied.target.write() as rows:
            row = {"action": action, "instance_uuid": SERVER, "request_id": "req-same"}
            (number,) = rows.insert("instance_actions", [row | {"start_time": BORN}])
            rows.insert("instance_actions_events", [{"action_id": number, "event": action}])
    bring(copied)
    with copied.source.read() as rows:
        actions = rows.all("instance_actions", request_id="req-same")
        found = {
            each["action"]: [
                event["event"]
                for event in rows.all("instance_actions_events", action_id=each["id"])
            ]
            for each in actions
        }
    assert found == {"lock": ["lock"], "unlock": ["unlock"]}


def test_an_event_that_went_on_at_the_copy_is_ended_as_it_ended(copied: Databases) -> None:
    here = add_action(copied, "source", "req-attach", "attach")
    ended = {"finish_time": LATER, "result": "Error", "traceback": "T", "details": "D"}
    add_action(copied, "target", "req-attach", "attach", **ended)
    before = snapshot(copied.source)
    names = lacks(copied)
    bring(copied)
    with copied.source.read() as rows:
        event = rows.one("instance_actions_events", action_id=here)
    assert event is not None
    assert {name: event[name] for name in ended} == ended
    drop(copied, names)
    assert without_clocks(snapshot(copied.source)) == without_clocks(before)


def without_clocks(taken: dict[str, list[tuple[object, ...]]]) -> dict[str, list[str]]:
    """Ending an event again writes its `updated_at`; nothing else may differ."""
    return {
        table: [repr(row) for row in rows]
        for table, rows in taken.items()
        if table != "instance_actions_events"
    }


def test_an_end_is_never_taken_away_by_an_open_copy(copied: Databases) -> None:
    here = add_action(copied, "source", "req-x", "e", finish_time=LATER, result="Success")
    add_action(copied, "target", "req-x", "e")
    bring(copied)
    with copied.source.read() as rows:
        event = rows.one("instance_actions_events", action_id=here)
    assert event is not None
    assert event["result"] == "Success"


def test_faults_are_carried_and_dropped(copied: Databases) -> None:
    before = snapshot(copied.source)
    with copied.target.write() as rows:
        rows.insert("instance_faults", [{**FAULT, "instance_uuid": SERVER, "created_at": LATER}])
    names = lacks(copied)
    bring(copied)
    with copied.source.read() as rows:
        fault = rows.one("instance_faults", instance_uuid=SERVER, message="boom")
    assert fault is not None
    assert (fault["created_at"], fault["details"]) == (LATER, "a traceback")
    drop(copied, names)
    assert snapshot(copied.source) == before


def test_what_both_still_write_is_left_alone(copied: Databases) -> None:
    with copied.target.read() as there, copied.source.write() as home:
        left = missing(there, home, SERVER, besides=("req-revert",))
        carry(there, home, SERVER, besides=("req-revert",))
        carried = {row["request_id"] for row in read_history(home, SERVER).actions.values()}
    assert not any("req-revert" in each for each in left)
    assert "req-reboot" in carried
    assert "req-revert" not in carried


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
    add_action(copied, "source", "req-both", "at_source")
    add_action(copied, "target", "req-both", "at_dest")
    before = snapshot(copied.source)
    names = lacks(copied)
    bring(copied)
    for _ in range(2):
        drop(copied, names)
        assert snapshot(copied.source) == before


def test_dropping_nothing_drops_nothing(copied: Databases) -> None:
    before = snapshot(copied.source)
    drop(copied, [])
    assert snapshot(copied.source) == before


def test_what_was_made_at_home_meanwhile_stays_there(copied: Databases) -> None:
    add_action(copied, "source", "req-periodic", "sync")
    names = lacks(copied)
    bring(copied)
    drop(copied, names)
    with copied.source.read() as rows:
        assert rows.count("instance_actions", request_id="req-periodic") == 1
