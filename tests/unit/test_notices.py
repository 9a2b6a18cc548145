"""Notifications: the set and the order that nova sends, and a move that does not care."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from cellmove.journal import Mark, Verb
from cellmove.notices import Notices, Sender
from cellmove.notices.events import EVENTS
from cellmove.notices.payload import payload
from cellmove.notices.sender import Notice
from cellmove.plan import SCORES
from cellmove.steps.base import Step
from tests.fakes.databases import CELL1
from tests.fakes.world import ACTOR, REQUESTS, SERVER, World
from tests.unit.rehearsal import Rehearsal

AS_NOVA_SENDS: dict[Verb, list[tuple[str, str, str, str | None, str]]] = {
    # event, publisher, vm_state, task_state, host: recorded from nova 26.
    "resize": [
        ("instance.exists", "cmp2a", "active", "resize_prep", "cmp1a"),
        ("instance.resize_prep.start", "cmp2a", "active", "resize_prep", "cmp1a"),
        ("instance.resize_prep.end", "cmp2a", "active", "resize_prep", "cmp1a"),
        ("instance.resize.start", "cmp1a", "active", "resize_migrating", "cmp1a"),
        ("instance.resize.end", "cmp1a", "active", "resize_migrated", "cmp1a"),
        ("instance.resize_finish.start", "cmp2a", "active", "resize_finish", "cmp1a"),
        ("instance.resize_finish.end", "cmp2a", "resized", None, "cmp2a"),
    ],
    "confirm": [
        ("instance.resize_confirm.start", "conductor-1", "active", "resize_migrated", "cmp1a"),
        ("instance.resize_confirm.end", "conductor-1", "active", None, "cmp2a"),
    ],
    "revert": [
        ("instance.resize_revert.start", "conductor-1", "resized", "resize_reverting", "cmp2a"),
        ("instance.exists", "cmp2a", "resized", "resize_reverting", "cmp2a"),
        ("instance.resize_revert.end", "conductor-1", "active", None, "cmp1a"),
    ],
}


class Wire:
    """Where notices leave; broken after so many."""

    def __init__(self, holds: int = 1000, gate: threading.Event | None = None) -> None:
        self.sent: list[Notice] = []
        self.closed = False
        self._holds = holds
        self._gate = gate

    def send(self, notice: Notice) -> None:
        if self._gate is not None:
            self._gate.wait(60)
        if len(self.sent) >= self._holds:
            raise ConnectionError("the bus is gone.")
        self.sent.append(notice)

    def close(self) -> None:
        self.closed = True


def told(world: World, verb: Verb, wire: Wire, said: list[str]) -> None:
    """Run a verb over the fake cloud, with listeners."""
    sender = Sender(wire, said.append)
    move = world.move(verb, "c2")
    notices = Notices(world.cloud, verb, move, sender)

    class Heard(Rehearsal):
        def _watch(self, step: Step, mark: Mark) -> None:
            notices(step, mark)
            super()._watch(step, mark)

    Heard(world, verb)
    sender.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("verbs", [["resize", "confirm"], ["resize", "revert"]])
def test_the_set_and_the_order_are_novas(world: World, said: list[str], verbs: list[Verb]) -> None:
    for verb in verbs:
        wire = Wire()
        told(world, verb, wire, said)
        seen = [
            (
                each.event,
                each.publisher.removeprefix("nova-compute:"),
                *(each.payload["nova_object.data"][key] for key in ("state", "task_state", "host")),
            )
            for each in wire.sent
        ]
        assert seen == AS_NOVA_SENDS[verb]
        assert {each.context["user_id"] for each in wire.sent} == {ACTOR.user_id}
        assert json.dumps([dict(each.payload) for each in wire.sent])
        assert wire.closed
    assert said == []


def test_every_notification_belongs_to_a_step_of_its_verbs_score() -> None:
    names = {verb: {step.name for step in score} for verb, score in SCORES.items()}
    assert set(names) == set(get_args(Verb)) == {verb for verb, _, _ in EVENTS}
    assert all(step in names[verb] for verb, step, _ in EVENTS)


@pytest.mark.parametrize("holds", [0, 1, 3])
def test_a_bus_that_breaks_is_told_once_and_the_move_ends_well(
    world: World, said: list[str], holds: int
) -> None:
    wire = Wire(holds)
    told(world, "resize", wire, said)
    assert len(wire.sent) == holds
    assert said == [
        "A notification was not sent: ConnectionError: the bus is gone. The move goes on."
    ]


def test_a_server_that_cannot_be_read_fails_no_move(world: World, said: list[str]) -> None:
    wire = Wire()
    sender = Sender(wire, said.append)
    move = world.move("resize", "c2")
    notices = Notices(world.cloud, "resize", move, sender)
    with world.cells[CELL1.uuid].write() as rows:
        rows.change("instance_extra", {"flavor": "{"}, expect=None, instance_uuid=SERVER)
    for step in SCORES["resize"]:
        notices(step(move), Mark.BEGUN)
        notices(step(move), Mark.DONE)
    sender.close()
    assert len(said) == 1
    assert wire.sent == []


def test_a_bus_that_hangs_holds_nobody_up(said: list[str]) -> None:
    gate = threading.Event()
    sender = Sender(Wire(gate=gate), said.append)
    for _ in range(3):
        sender.send(Notice("nova-compute:x", "e", {}, {}))
    sender.close(timeout_seconds=0.1)
    gate.set()
    (line,) = said
    assert "does not answer" in line


def filled(world: World, event: int = 1) -> dict[str, Any]:
    """The payload of a notification before the resize."""
    (key,) = [k for k in EVENTS if k[1:] == ("write-target-claim", Mark.BEGUN)]
    with world.cells[CELL1.uuid].read() as rows:
        return payload(
            EVENTS[key][event],
            world.move("resize", "c2"),
            rows,
            datetime(2026, 11, 22, 15, 13, 7, tzinfo=UTC),
        )


def test_a_payload_says_what_the_rows_say(world: World) -> None:
    with world.cells[CELL1.uuid].write() as rows:
        rows.insert(
            "instance_metadata", [{"instance_uuid": SERVER, "key": "k", "value": "v", "deleted": 0}]
        )
        rows.change("instances", {"locked": 1, "power_state": 4}, expect=None, uuid=SERVER)
        row = rows.all("instances", uuid=SERVER)[0]
    made = filled(world)
    data = made["nova_object.data"]
    assert (made["nova_object.name"], made["nova_object.version"]) == (
        "InstanceActionResizePrepPayload",
        "1.3",
    )
    assert (data["uuid"], data["tenant_id"]) == (SERVER, row["project_id"])
    assert data["host_name"] == row["hostname"]
    assert data["created_at"] == f"{row['created_at']:%Y-%m-%dT%H:%M:%SZ}"
    assert (data["power_state"], data["locked"], data["auto_disk_config"]) == (
        "shutdown",
        True,
        "AUTO" if row["auto_disk_config"] else "MANUAL",
    )
    assert data["metadata"]["k"] == "v"
    assert data["flavor"]["nova_object.data"]["name"] == "c1"
    assert data["new_flavor"]["nova_object.data"]["name"] == "c2"
    assert data["request_id"] == REQUESTS["resize"]
    assert data["action_initiator_user"] == ACTOR.user_id
    assert (data["fault"], data["block_devices"]) == (None, None)
    addresses = [each["nova_object.data"] for each in data["ip_addresses"]]
    assert addresses
    assert all(each["address"] and each["version"] == 4 and each["mac"] for each in addresses)


def test_the_period_of_exists_is_the_month(world: World) -> None:
    data = filled(world, event=0)["nova_object.data"]
    assert data["audit_period"]["nova_object.data"] == {
        "audit_period_beginning": "2026-11-01T00:00:00Z",
        "audit_period_ending": "2026-11-22T15:13:07Z",
    }
    assert "fault" not in data


@pytest.mark.parametrize("url", ["nonsense://a:a-secret@127.0.0.1/", "no url"])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    done = in_a_process(f"Bus({url!r})")
    assert "Refused: Notifications cannot be sent." in done.stderr
    assert "a-secret" not in done.stderr + done.stdout


def test_a_bus_that_is_not_there_is_known_at_once_and_nothing_is_logged() -> None:
    done = in_a_process(
        "sender = open_sender('rabbit://a:a-secret@127.0.0.1:9/', '', print)\n"
        "sender.send(Notice('nova-compute:x', 'e', {'request_id': 'r'}, {'uuid': 'u'}))\n"
        "sender.close()"
    )
    assert done.returncode == 0, done.stderr
    assert "A notification was not sent" in done.stdout
    assert "Connection refused" in done.stdout
    assert "a-secret" not in done.stderr + done.stdout
    assert done.stderr == ""


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    """oslo.messaging warns of what it imports, and changes loggers."""
    lines = "from cellmove.notices.sender import Bus, Notice, open_sender\n" + code
    argv = [sys.executable, "-W", "ignore", "-c", lines]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


def test_a_move_imports_no_bus_unless_one_is_configured() -> None:
    code = "import sys, cellmove.cli.work\nsys.exit('oslo_messaging' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
