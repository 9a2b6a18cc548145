"""The server's history: nova's names, one action a command, and nothing of others touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cellmove.dbcopy.actions import (
    ActionStarted,
    EventFinished,
    EventStarted,
    find_action,
    find_event,
)
from cellmove.dbcopy.edits import Edit
from cellmove.model import Move
from tests.fakes.databases import snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases
from tests.unit.samples import move as sample

MOVE: Move = replace(sample(server=SERVER), request_id="req-00000000-0000-4000-8000-00000000000a")
ACTION = ActionStarted(MOVE, "resize")
STARTED = EventStarted(MOVE, "cold_migrate", "ops-1")
FINISHED = EventFinished(MOVE, "cold_migrate")
WHOLE: tuple[Edit, ...] = (ACTION, STARTED, FINISHED)


def apply(databases: Databases, edits: Sequence[Edit] = WHOLE) -> None:
    with databases.source.write() as rows:
        for edit in edits:
            edit.apply(rows)


def test_an_action_is_written_as_nova_api_writes_it(databases: Databases) -> None:
    apply(databases, [ACTION])
    with databases.source.read() as rows:
        action = find_action(rows, MOVE)
    assert action is not None
    assert (action["action"], action["instance_uuid"]) == ("resize", SERVER)
    assert (action["user_id"], action["project_id"]) == (
        MOVE.actor_user_id,
        MOVE.actor_project_id,
    )
    assert str(action["start_time"]) == MOVE.started_at
    assert action["finish_time"] is None


def test_an_event_begins_on_its_host_and_ends_well(databases: Databases) -> None:
    apply(databases, [ACTION, STARTED])
    with databases.source.read() as rows:
        begun = find_event(rows, MOVE, "cold_migrate")
        assert not FINISHED.holds(rows)
    assert begun is not None
    assert (begun["host"], begun["result"], begun["finish_time"]) == ("ops-1", None, None)
    apply(databases, [FINISHED])
    with databases.source.read() as rows:
        ended = find_event(rows, MOVE, "cold_migrate")
        action = find_action(rows, MOVE)
    assert ended is not None
    assert ended["result"] == "Success"
    assert ended["finish_time"] >= ended["start_time"]
    assert action is not None
    assert action["updated_at"] is not None


def test_twice_is_once(databases: Databases) -> None:
    apply(databases)
    once = snapshot(databases.source)
    apply(databases)
    assert snapshot(databases.source) == once


def test_an_event_without_its_action_is_not_written(databases: Databases) -> None:
    before = snapshot(databases.source)
    apply(databases, [STARTED, FINISHED])
    assert snapshot(databases.source) == before


@pytest.mark.parametrize("done", range(4))
def test_restore_gives_back_what_was_from_any_depth(databases: Databases, done: int) -> None:
    before = snapshot(databases.source)
    with databases.source.read() as rows:
        kept = [edit.remember(rows) for edit in WHOLE]
    apply(databases, WHOLE[:done])
    for _ in range(2):
        with databases.source.write() as rows:
            for edit, old in reversed(list(zip(WHOLE, kept, strict=True))):
                edit.restore(rows, old)
        assert snapshot(databases.source) == before


def test_what_was_there_before_stays(databases: Databases) -> None:
    apply(databases)
    before = snapshot(databases.source)
    with databases.source.write() as rows:
        for edit in reversed(WHOLE):
            edit.restore(rows, edit.remember(rows))
    assert snapshot(databases.source) == before


def test_an_action_of_another_request_is_not_ours(databases: Databases) -> None:
    apply(databases)
    other = replace(MOVE, request_id="req-00000000-0000-4000-8000-00000000000b")
    with databases.source.read() as rows:
        assert find_action(rows, other) is None
        assert not ActionStarted(other, "resize").holds(rows)
