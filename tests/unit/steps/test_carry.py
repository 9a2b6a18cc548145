"""What is done to a server during a move or in VERIFY_RESIZE travels, whole and once."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellmove.dbcopy.database import Rows
from cellmove.errors import Conflict, StepFailed
from cellmove.journal import Verb
from cellmove.steps.base import Status, Step
from tests.fakes.databases import CELL1, CELL2, USER
from tests.fakes.trap import Blown, When
from tests.fakes.world import SERVER, World, perform
from tests.unit.rehearsal import Rehearsal, rehearsed

AT = dt.datetime(2026, 11, 22, 12, 0, 0)
SET = {
    "display_name": "renamed \N{EURO SIGN}",
    "display_description": "it's \\ new",
    "hostname": "other",
    "access_ip_v4": "192.0.2.7",
    "access_ip_v6": "2001:db8::7",
    "locked": True,
    "locked_by": "owner",
    "auto_disk_config": True,
}
OF_ITS_HOST = ("host", "node", "vcpus", "memory_mb", "availability_zone", "vm_state", "launched_at")
WHENS: tuple[When, ...] = ("before", "inside", "after")
CASES: list[tuple[Verb, str]] = [
    ("resize", "carry-changes-over"),
    ("revert", "carry-changes-home"),
]
Told = dict[str, Any]


def alter(rows: Rows) -> None:
    """Somebody works on the server through nova's API."""
    rows.change("instances", SET, uuid=SERVER)
    owned = {"instance_uuid": SERVER, "created_at": AT}
    rows.change("instance_metadata", {"value": "db"}, key="role", instance_uuid=SERVER)
    rows.insert("instance_metadata", [{**owned, "key": "new", "value": ""}])
    rows.insert("instance_system_metadata", [{**owned, "key": "password_0", "value": "x"}])
    rows.delete("instance_system_metadata", key="image_min_ram", instance_uuid=SERVER)
    rows.delete("tags", resource_id=SERVER)
    rows.insert("tags", [{"resource_id": SERVER, "tag": each} for each in ("Blue", "blue ")])
    fault = {"code": 500, "message": "attach failed", "details": "T", "host": "h"}
    rows.insert("instance_faults", [{**owned, **fault}])
    lock = {"action": "lock", "request_id": "req-lock", "user_id": USER, "start_time": AT}
    (number,) = rows.insert("instance_actions", [{**owned, **lock}])
    event = {"event": "api_lock", "finish_time": AT, "result": "Success", "created_at": AT}
    rows.insert("instance_actions_events", [{"action_id": number, **event}])


def told(rows: Rows) -> Told:
    """What the owner sees of it."""
    owned = {"instance_uuid": SERVER, "deleted": 0}
    (row,) = rows.all("instances", uuid=SERVER)
    actions = rows.all("instance_actions", request_id="req-lock")
    events = [rows.all("instance_actions_events", action_id=each["id"]) for each in actions]
    system = rows.all("instance_system_metadata", **owned)
    return {
        "row": {name: row[name] for name in SET},
        "metadata": {each["key"]: each["value"] for each in rows.all("instance_metadata", **owned)},
        "system": {e["key"]: e["value"] for e in system if e["key"] != "old_vm_state"},
        "tags": sorted(each["tag"] for each in rows.all("tags", resource_id=SERVER)),
        "faults": [each["message"] for each in rows.all("instance_faults", **owned)],
        "actions": [(each["action"], each["start_time"], each["user_id"]) for each in actions],
        "events": [(e["event"], e["finish_time"], e["result"]) for (e,) in events],
    }


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> dict[Verb, Rehearsal]:
    return {verb: rehearsed(tmp_path_factory.mktemp(verb), verb) for verb, _ in CASES}


@pytest.fixture(params=CASES, ids=[name for _, name in CASES])
def altered(
    request: pytest.FixtureRequest, plays: dict[Verb, Rehearsal]
) -> Callable[[], tuple[World, Step]]:
    """Makes the world just before the step, with the owning cell's copy altered, and the step."""
    verb, name = request.param
    play = plays[verb]
    index = [step.name for step in play.steps].index(name)

    def made() -> tuple[World, Step]:
        play.back_to(play.moments[index])
        owner = CELL1 if verb == "resize" else CELL2
        with play.world.cells[owner.uuid].write() as rows:
            alter(rows)
        return play.world, play.steps[index]

    return made


Altered = Callable[[], tuple[World, Step]]


def both(world: World) -> list[Told]:
    found = []
    for cell in (CELL1, CELL2):
        with world.cells[cell.uuid].read() as rows:
            found.append(told(rows))
    return found


def test_all_that_was_done_is_in_both_cells(altered: Altered) -> None:
    world, step = altered()
    here, there = both(world)
    assert all(here[part] != there[part] for part in here), "every part is tried"
    perform(step, world)
    here, there = both(world)
    assert here == there
    assert here["row"] == SET
    assert here["tags"] == ["Blue", "blue "]
    assert here["metadata"]["new"] == ""
    assert "image_min_ram" not in here["system"]


def test_what_belongs_to_the_host_stays(altered: Altered) -> None:
    world, step = altered()

    def of_hosts() -> list[list[Any]]:
        query = "SELECT * FROM instances WHERE uuid = ?"
        found = [world.query(cell.uuid, query, SERVER)[0] for cell in (CELL1, CELL2)]
        return [[row[name] for name in (*OF_ITS_HOST, "hidden")] for row in found]

    before = of_hosts()
    assert before[0] != before[1]
    perform(step, world)
    assert of_hosts() == before


def test_a_row_that_is_only_changed_keeps_its_id_and_its_time(altered: Altered) -> None:
    world, step = altered()
    query = "SELECT id, created_at FROM instance_metadata WHERE key = 'role' AND instance_uuid = ?"
    before = [world.query(cell.uuid, query, SERVER) for cell in (CELL1, CELL2)]
    perform(step, world)
    assert [world.query(cell.uuid, query, SERVER) for cell in (CELL1, CELL2)] == before


def test_twice_is_once_and_undo_gives_back_what_was(altered: Altered) -> None:
    world, step = altered()
    before = world.snapshot()
    ours, saved = perform(step, world)
    assert ours
    once = world.snapshot()
    step.execute(world.cloud)
    assert world.snapshot() == once
    for _ in range(2):
        step.undo(world.cloud, saved)
        assert world.snapshot() == before


def test_undo_after_half_gives_back_what_was(altered: Altered) -> None:
    world, step = altered()
    before, saved = world.snapshot(), step.inspect(world.cloud).saved
    world.trap.arm(0, "before")
    step.execute(world.cloud)
    calls = world.trap.calls
    for at in range(1, calls + 1):
        for when in WHENS:
            world, step = altered()
            world.trap.arm(at, when)
            with contextlib.suppress(Blown):
                step.execute(world.cloud)
            world.trap.arm(0, "before")
            step.undo(world.cloud, saved)
            assert world.snapshot() == before, f"call {at}, {when}"


def test_what_somebody_changed_again_is_not_undone(altered: Altered) -> None:
    world, step = altered()
    _, saved = perform(step, world)
    target = CELL2 if step.name == "carry-changes-over" else CELL1
    with world.cells[target.uuid].write() as rows:
        rows.change("instances", {"display_name": "mine now"}, uuid=SERVER)
    with pytest.raises(Conflict, match="Somebody else changed"):
        step.undo(world.cloud, saved)


def test_the_gate_stops_what_did_not_travel(plays: dict[Verb, Rehearsal]) -> None:
    play = plays["resize"]
    index = [step.name for step in play.steps].index("compare-records")
    play.back_to(play.moments[index])
    world, gate = play.world, play.steps[index]
    assert gate.inspect(world.cloud).status is Status.DONE
    with world.cells[CELL1.uuid].write() as rows:
        rows.change("instances", {"user_data": "late"}, uuid=SERVER)
    look = gate.inspect(world.cloud)
    assert look.status is Status.TODO
    assert "instances.user_data" in look.why
    with pytest.raises(StepFailed, match="copies of the server's records differ"):
        gate.execute(world.cloud)
    assert play.steps[index + 1].name == "show-target"
    assert play.steps[index + 2].name == "point-mapping"


def test_what_travelled_passes_the_gate(plays: dict[Verb, Rehearsal]) -> None:
    play = plays["resize"]
    index = [step.name for step in play.steps].index("carry-changes-over")
    play.back_to(play.moments[index])
    world = play.world
    with world.cells[CELL1.uuid].write() as rows:
        alter(rows)
    gate = play.steps[index + 1]
    assert gate.inspect(world.cloud).status is Status.TODO
    perform(play.steps[index], world)
    assert gate.inspect(world.cloud).status is Status.DONE


def test_a_confirm_keeps_what_only_the_source_cell_has_seen(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    play = rehearsed(tmp_path_factory.mktemp("confirm"), "confirm")
    play.back_to(play.moments[0])
    world = play.world
    with world.cells[CELL1.uuid].write() as rows:
        stop = {"instance_uuid": SERVER, "action": "stop", "request_id": "req-periodic"}
        (number,) = rows.insert("instance_actions", [stop | {"start_time": AT}])
        rows.insert("instance_actions_events", [{"action_id": number, "event": "sync"}])
    for step in play.steps:
        perform(step, world)
    with world.cells[CELL2.uuid].read() as rows:
        (kept,) = rows.all("instance_actions", request_id="req-periodic")
        assert rows.count("instance_actions_events", action_id=kept["id"]) == 1
        resize = rows.all("instance_actions", instance_uuid=SERVER, action="resize")[-1]
        events = [
            each["event"] for each in rows.all("instance_actions_events", action_id=resize["id"])
        ]
    assert "compute_prep_snapshot_based_resize_at_source" in events


@pytest.mark.parametrize(
    ("verb", "name", "cell", "values"),
    [
        ("resize", "show-target", CELL2, {"task_state": "deleting"}),
        ("resize", "show-target", CELL2, {"vm_state": "error"}),
        ("resize", "hide-source", CELL1, {"task_state": None}),
        ("revert", "show-source", CELL1, {"task_state": None}),
        ("revert", "hide-target", CELL2, {"task_state": "deleting"}),
    ],
)
def test_a_row_that_somebody_else_moved_on_is_neither_shown_nor_hidden(
    plays: dict[Verb, Rehearsal], verb: Verb, name: str, cell: Any, values: dict[str, Any]
) -> None:
    play = plays[verb]
    index = [step.name for step in play.steps].index(name)
    play.back_to(play.moments[index])
    with play.world.cells[cell.uuid].write() as rows:
        rows.change("instances", values, uuid=SERVER)
    before = play.world.snapshot()
    with pytest.raises(Conflict):
        play.steps[index].execute(play.world.cloud)
    assert play.world.snapshot() == before


def test_a_source_row_with_a_null_in_hidden_is_visible_and_can_be_hidden(
    plays: dict[Verb, Rehearsal],
) -> None:
    play = plays["resize"]
    index = [step.name for step in play.steps].index("hide-source")
    play.back_to(play.moments[index])
    with play.world.cells[CELL1.uuid].write() as rows:
        rows.change("instances", {"hidden": None}, uuid=SERVER)
    before = play.world.snapshot()
    ours, saved = perform(play.steps[index], play.world)
    assert ours
    play.steps[index].undo(play.world.cloud, saved)
    assert play.world.snapshot() == before


def test_a_revert_calls_the_server_what_its_owner_does_now(tmp_path: Path) -> None:
    play = rehearsed(tmp_path, "resize")
    with play.world.cells[CELL2.uuid].write() as rows:
        rows.change("instances", {"display_name": "renamed"}, uuid=SERVER)
    assert play.world.move("revert").name == "renamed"
