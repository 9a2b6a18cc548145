"""What is against moving a server's volumes is told while the guest runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import Refused
from cellmove.intake import Actor, intake_resize
from tests.fakes.cinder import ISCSI, NFS, FakeVolumes
from tests.fakes.databases import CELL1
from tests.fakes.world import ACTOR, SERVER, VOLUMES, World
from tests.unit.rehearsal import Rehearsal

MAPPINGS = "block_device_mapping"
Spoil = Callable[[World], Any]


def resize(world: World, actor: Actor = ACTOR) -> Any:
    return intake_resize(
        world.cloud,
        SERVER,
        flavor="c2",
        to_host="cmp2a",
        to_cell=None,
        actor=actor,
        request_id="req-1",
    )


def row(**columns: Any) -> Spoil:
    def spoil(world: World) -> None:
        with world.cells[CELL1.uuid].write() as rows:
            rows.change(MAPPINGS, columns, volume_id=VOLUMES[NFS])

    return spoil


def data(**facts: Any) -> Spoil:
    def spoil(world: World) -> None:
        with world.cells[CELL1.uuid].write() as rows:
            (found,) = rows.all(MAPPINGS, volume_id=VOLUMES[NFS])
            info = json.loads(found["connection_info"])
            info |= {key: facts.pop(key) for key in [*facts] if key == "driver_volume_type"}
            info["data"] |= facts
            rows.change(MAPPINGS, {"connection_info": json.dumps(info)}, id=found["id"])

    return spoil


def state(**facts: Any) -> Spoil:
    return lambda world: world.volumes.set_state(VOLUMES[ISCSI], **facts)


def old_cinder(world: World) -> None:
    world.volumes._offered = False


def gone(world: World) -> None:
    for attachment in world.volumes.attachments(SERVER):
        if attachment.volume == VOLUMES[NFS]:
            world.volumes.delete(attachment.id)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "an old Cinder": (old_cinder, "Servers with volumes cannot be moved with this Cinder."),
    "no attachment id": (row(attachment_id=None), "is not complete."),
    "no connection information": (row(connection_info=None), "is not complete."),
    "Fibre Channel": (data(driver_volume_type="fibre_channel"), "cannot be connected on cmp1a."),
    "an encrypted connection": (data(encrypted=True), "cannot be connected on cmp1a."),
    "an encrypted volume": (state(encrypted=True), "cannot be moved."),
    "a volume that is retyped": (state(status="retyping"), "is not at rest."),
    "a volume that is migrated": (state(status="in-use", migrating=True), "is not at rest."),
    "a leftover attachment": (
        lambda world: world.volumes.reserve(VOLUMES[NFS], SERVER),
        "has a further attachment to the server.",
    ),
    "an attachment that is gone": (gone, "Cinder does not have volume"),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    found._report_services()
    return found


@pytest.mark.parametrize(("spoil", "what"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_and_nothing_touched(world: World, spoil: Spoil, what: str) -> None:
    spoil(world)
    before = world.snapshot()
    with pytest.raises(Refused) as caught:
        resize(world)
    reasons = getattr(caught.value, "reasons", [caught.value])
    told = [reason for reason in reasons if what in reason.what]
    assert told
    assert all(reason.seen and reason.do for reason in told)
    assert world.snapshot() == before


def test_volumes_stay_in_their_zone_where_nova_wants_that(world: World) -> None:
    strict = replace(ACTOR, cross_az_attach=False)
    for volume, zone in ((VOLUMES[NFS], "az2"), (VOLUMES[ISCSI], "az1")):
        world.volumes.set_state(volume, zone=zone)
    with pytest.raises(
        Refused, match=f"{VOLUMES[ISCSI]} is in another .* It is in az1, the host in"
    ):
        resize(world, strict)
    assert resize(world).target.name == "cmp2a"

    world.volumes.set_state(VOLUMES[ISCSI], zone="az2")
    assert resize(world, strict).target.name == "cmp2a"


def test_a_leftover_keeps_a_resized_server_from_its_revert(world: World) -> None:
    Rehearsal(world, "resize")
    world.volumes.reserve(VOLUMES[NFS], SERVER)
    with pytest.raises(Refused, match="has a further attachment"):
        world.move("revert")
    assert world.move("confirm").volumes


def test_volumes_are_known_by_their_mappings(world: World) -> None:
    move = resize(world)
    assert [volume.id for volume in move.volumes] == [VOLUMES[NFS], VOLUMES[ISCSI]]
    assert [volume.device for volume in move.volumes] == ["/dev/vdb", "/dev/vdc"]
    mine = {volume.attachment for volume in move.volumes}
    assert mine == {attachment.id for attachment in world.volumes.attachments(SERVER)}
    assert not move.boots_from_volume


def test_a_root_volume_needs_no_room_on_disk_and_may_have_any_flavor(world: World) -> None:
    with world.cells[CELL1.uuid].write() as rows:
        rows.delete(MAPPINGS, instance_uuid=SERVER, boot_index=0)
        rows.change(MAPPINGS, {"boot_index": 0}, volume_id=VOLUMES[NFS])
    world.hosts.by_name["cmp1a"].directories[SERVER].clear()
    move = resize(world)
    assert move.boots_from_volume
    assert "DISK_GB" not in next(iter(move.claim.values()))


def test_a_fake_without_attachments_says_so() -> None:
    assert not FakeVolumes(attachments_offered=False).has_attachments()
