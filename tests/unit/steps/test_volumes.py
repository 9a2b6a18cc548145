"""What volumes want beyond the laws: fresh ways to them, neighbours, secrets, and the way home."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import with_volumes
from cellmove.model import Volume
from cellmove.plan import plan
from cellmove.steps.base import Status, Step
from tests.fakes.cinder import ISCSI, NFS
from tests.fakes.databases import BORN, CELL1, CELL2, NEIGHBOURS
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.invariants import unsound
from tests.fakes.world import SERVER, VOLUMES, World, perform
from tests.unit.rehearsal import Rehearsal

MAPPINGS = "block_device_mapping"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def waiting(world: World) -> World:
    """The server waits on cmp2a to be confirmed or reverted."""
    Rehearsal(world, "resize")
    return world


def volumes_in(world: World, cell: str) -> dict[str, dict[str, Any]]:
    query = f"SELECT * FROM {MAPPINGS} WHERE instance_uuid = ? AND deleted = 0"
    return {row["volume_id"]: row for row in world.query(cell, query, SERVER) if row["volume_id"]}


def step_of(world: World, name: str) -> Step:
    """The step of this name; all steps of the resize before it are done."""
    for step in plan("resize", world.move("resize")):
        if step.name == name:
            return step
        perform(step, world)
    raise AssertionError(name)


def redefined(world: World) -> None:
    """The guest on cmp2a has the volumes that the cell says, as nova leaves it."""
    here = world.hosts.by_name["cmp2a"]
    found = volumes_in(world, CELL2.uuid)
    guest = here.domain(SERVER)
    assert guest is not None
    infos = {volume: json.loads(row["connection_info"]) for volume, row in found.items()}
    devices = {volume: row["device_name"] for volume, row in found.items()}
    here.define(with_volumes(guest.xml, infos, devices))


def detached(world: World) -> None:
    """The iSCSI volume is detached through nova, while the server is on cmp2a."""
    volume = VOLUMES[ISCSI]
    row = volumes_in(world, CELL2.uuid)[volume]
    world.hosts.by_name["cmp2a"].disconnect_volume(json.loads(row["connection_info"]))
    world.volumes.delete(row["attachment_id"])
    with world.cells[CELL2.uuid].write() as rows:
        rows.change(MAPPINGS, {"deleted": row["id"]}, uuid=row["uuid"])
    redefined(world)


def attached(world: World) -> str:
    """Another volume is attached through nova."""
    volume = world.volumes.add_volume(ISCSI)
    world.attach(volume, "/dev/vdd", "cmp2a")
    return volume


def swapped(world: World) -> str:
    """nova has put another volume in the place of the NFS one; the mapping's uuid stays."""
    old = volumes_in(world, CELL2.uuid)[VOLUMES[NFS]]
    new = world.volumes.add_volume(NFS)
    here = world.hosts.by_name["cmp2a"]
    attachment = world.volumes.attach(new, SERVER, here.connector())
    info = here.connect_volume(world.volumes.connection_info(attachment))
    world.volumes.delete(old["attachment_id"])
    after = {"volume_id": new, "attachment_id": attachment, "connection_info": json.dumps(info)}
    with world.cells[CELL2.uuid].write() as rows:
        rows.change(MAPPINGS, after, uuid=old["uuid"])
    redefined(world)
    return new


def all_of_it(world: World) -> str:
    detached(world)
    attached(world)
    return swapped(world)


CHANGES: dict[str, Callable[[World], object]] = {
    "attached": attached,
    "detached": detached,
    "swapped": swapped,
    "all three": all_of_it,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_revert_brings_home_what_changed(
    waiting: World, change: Callable[[World], object]
) -> None:
    change(waiting)
    has = set(volumes_in(waiting, CELL2.uuid))
    Rehearsal(waiting, "revert")
    assert set(volumes_in(waiting, CELL1.uuid)) == has
    assert not unsound(waiting)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_confirm_leaves_no_reservation(waiting: World, change: Callable[[World], object]) -> None:
    change(waiting)
    Rehearsal(waiting, "confirm")
    assert not unsound(waiting)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_step_of_a_revert_after_a_change_is_taken_back(
    waiting: World, change: Callable[[World], object]
) -> None:
    change(waiting)
    for step in plan("revert", waiting.move("revert")):
        state, before = waiting.save(), waiting.snapshot()
        look = step.inspect(waiting.cloud)
        if look.status is Status.TODO and step.reversible:
            step.execute(waiting.cloud)
            step.undo(waiting.cloud, look.saved)
            assert waiting.snapshot() == before, step.name
            waiting.load(state)
        perform(step, waiting)
    assert not unsound(waiting)


@pytest.mark.parametrize("verb", ["resize", "revert"])
def test_the_way_to_a_volume_is_fresh_where_it_goes_and_after_an_undo(
    world: World, verb: Any
) -> None:
    if verb == "revert":
        Rehearsal(world, "resize")
    world.volumes.drift = 7
    steps = plan(verb, world.move(verb))
    last = next(n for n, step in enumerate(steps) if step.name.startswith("place-"))
    begun = [(step, perform(step, world)) for step in steps[: last + 1]]
    world.volumes.drift = 8
    for step, (ours, saved) in reversed(begun):
        if ours:
            step.undo(world.cloud, saved)
    assert not unsound(world)
    world.volumes.drift = 9
    Rehearsal(world, verb)
    assert not unsound(world)


def test_a_volume_that_a_neighbour_uses_too_stays_connected(world: World) -> None:
    world.volumes.set_state(VOLUMES[ISCSI], multiattach=True)
    own = volumes_in(world, CELL1.uuid)[VOLUMES[ISCSI]]
    info = {**json.loads(own["connection_info"]), "multiattach": True}
    shared = {
        "uuid": str(uuid.uuid4()),
        "instance_uuid": NEIGHBOURS["cmp1a"],
        "volume_id": VOLUMES[ISCSI],
        "destination_type": "volume",
        "created_at": BORN,
    }
    with world.cells[CELL1.uuid].write() as rows:
        rows.change(MAPPINGS, {"connection_info": json.dumps(info)}, uuid=own["uuid"])
        rows.insert(MAPPINGS, [shared])
    Rehearsal(world, "resize")
    assert world.hosts.by_name["cmp1a"].volume_connected(info)
    there = json.loads(volumes_in(world, CELL2.uuid)[VOLUMES[ISCSI]]["connection_info"])
    assert there["multiattach"] is True
    guest = world.hosts.by_name["cmp2a"].domain(SERVER)
    assert guest is not None
    assert "<shareable/>" in guest.xml


def test_no_secret_of_a_volume_gets_into_the_journal(world: World) -> None:
    row = volumes_in(world, CELL1.uuid)[VOLUMES[ISCSI]]
    info = json.loads(row["connection_info"])
    info["data"] |= {"auth_password": "hush", "keyring": "hush", "remark": "an older one"}
    with world.cells[CELL1.uuid].write() as rows:
        rows.change(MAPPINGS, {"connection_info": json.dumps(info)}, uuid=row["uuid"])
    done = Rehearsal(world, "resize")
    assert b"hush" not in done.journal.content()
    told = "".join(str(event.saved) for event in done.entry.events)
    assert "an older one" in told  # what is harmless is kept


@pytest.mark.parametrize("name", ["disconnect-source-volumes", "release-source-attachments"])
def test_volumes_are_not_taken_from_a_guest_that_runs(world: World, name: str) -> None:
    step = step_of(world, name)
    here = world.hosts.by_name["cmp1a"]
    before = world.snapshot()
    there = world.hosts.by_name["cmp2a"].domain(SERVER)
    assert there is not None
    here.define(there.xml)
    here.start(SERVER)
    with pytest.raises(StepFailed, match="The guest there is running"):
        step.execute(world.cloud)
    here.shutdown(SERVER, 0)
    here.undefine(SERVER)
    assert world.snapshot() == before


def test_a_lost_reservation_stops_the_export(world: World) -> None:
    step = step_of(world, "export-to-target")
    world.volumes.delete(volumes_in(world, CELL2.uuid)[VOLUMES[ISCSI]]["attachment_id"])
    with pytest.raises(StepFailed, match="is not reserved for cmp2a"):
        step.execute(world.cloud)


def test_what_both_hosts_may_reach_is_exported_beside_the_source(world: World) -> None:
    step = step_of(world, "export-shared-to-target")
    perform(step, world)
    found = {each.id: each for each in world.volumes.attachments(SERVER)}
    named = volumes_in(world, CELL2.uuid)[VOLUMES[NFS]]["attachment_id"]
    assert found[named].status == "attached"
    statuses = {
        volume: sorted(each.status for each in found.values() if each.volume == volume)
        for volume in VOLUMES.values()
    }
    assert statuses == {
        VOLUMES[NFS]: ["attached", "attached", "reserved"],
        VOLUMES[ISCSI]: ["attached", "reserved", "reserved"],  # some allow but one host
    }


def test_what_is_exported_already_is_left_alone(world: World) -> None:
    step = step_of(world, "export-shared-to-target")
    perform(step, world)
    before = world.volumes.attachments(SERVER)
    step.execute(world.cloud)
    assert world.volumes.attachments(SERVER) == before


def test_what_a_try_left_that_cinder_could_not_connect_is_cleaned_up(world: World) -> None:
    step = step_of(world, "export-shared-to-target")
    saved = step.inspect(world.cloud).saved
    before = world.snapshot()
    world.volumes.reserve(VOLUMES[NFS], SERVER)  # Cinder keeps the attachment that it made
    step.undo(world.cloud, saved)
    assert world.snapshot() == before
    world.volumes.reserve(VOLUMES[NFS], SERVER)
    step.execute(world.cloud)
    reserved = [
        each
        for each in world.volumes.attachments(SERVER)
        if (each.volume, each.status) == (VOLUMES[NFS], "reserved")
    ]
    assert len(reserved) == 1


def test_a_server_without_volumes_has_no_step_for_them(world: World) -> None:
    with world.cells[CELL1.uuid].write() as rows:
        for row in volumes_in(world, CELL1.uuid).values():
            rows.delete(MAPPINGS, id=row["id"])
            world.volumes.delete(row["attachment_id"])
    move = world.move("resize")
    assert move.volumes == ()
    assert not [step.name for step in plan("resize", move) if "volume" in step.name]


def test_a_root_volume_takes_no_room_on_disk(world: World) -> None:
    move = world.move("resize")
    assert not move.boots_from_volume
    assert Volume("v", "m", "a", "/dev/vda", is_root=True).is_root


def test_the_target_is_asked_for_its_connector_before_the_guest_stops(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def connector(host: FakeHypervisor) -> dict[str, object]:
        heard.append(host.name)
        return {}

    monkeypatch.setattr(FakeHypervisor, "connector", connector)
    step_of(world, "begin-at-source")

    assert heard == ["cmp2a"]
