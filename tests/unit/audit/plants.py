"""Leftovers and losses of all kinds, planted into the fake cloud."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cellmove.dbcopy.copy import read_records, write_records
from cellmove.model import Allocations
from cellmove.plan import plan
from tests.fakes.cinder import NFS
from tests.fakes.databases import BORN, C2, CELL1, CELL2, PROJECT, USER, flavor_envelope
from tests.fakes.hypervisor import FakeFile
from tests.fakes.world import DOMAIN, SERVER, VOLUMES, World, perform

GONE = "99999999-0000-4000-8000-000000000001"
"""A server that nova does not know."""
MIGRATION = "99999999-0000-4000-8000-000000000002"
LONG_AGO = BORN - datetime.timedelta(days=30)
NOVAS = (
    "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"
)


def shown_twice(world: World) -> None:
    copied(world, hidden=False)


def row_missing(world: World) -> None:
    with world.api.write() as rows:
        rows.insert("instance_mappings", [mapping(GONE)])


def unmapped(world: World) -> None:
    with world.api.write() as rows:
        rows.delete("instance_mappings", instance_uuid=SERVER)


def mapped_elsewhere(world: World) -> None:
    with world.api.write() as rows:
        rows.change("instance_mappings", {"cell_id": CELL2.id}, instance_uuid=SERVER)


def shown_nowhere(world: World) -> None:
    changed(world, hidden=True)


def hidden_copy(world: World) -> None:
    copied(world, hidden=True)


def deleted_copy(world: World) -> None:
    copied(world, hidden=False, deleted=7)


def migration_context(world: World) -> None:
    context(world, 4711)


def wrong_migration_context(world: World) -> None:
    resized(world)
    context(world, 4711)


def resize_note(world: World) -> None:
    with world.cells[CELL1.uuid].write() as rows:
        note = {"instance_uuid": SERVER, "key": "old_vm_state", "value": "active"}
        rows.insert("instance_system_metadata", [note])


def spec_flavor(world: World) -> None:
    with world.api.write() as rows:
        row = rows.one("request_specs", instance_uuid=SERVER)
        assert row is not None
        spec = json.loads(row["spec"])
        spec["nova_object.data"]["flavor"] = flavor_envelope(C2)
        rows.change("request_specs", {"spec": json.dumps(spec)}, instance_uuid=SERVER)


def phantom_consumer(world: World) -> None:
    migrated(world, "error")
    hold(world, MIGRATION, "cmp2b")


def allocation_astray(world: World) -> None:
    migrated(world, "error")
    held = world.placement.allocations(SERVER)
    world.placement.replace([replace(held, resources={})])
    hold(world, MIGRATION, "cmp1a")


def allocation_without_server(world: World) -> None:
    hold(world, GONE, "cmp1b")


def two_providers(world: World) -> None:
    held = world.placement.allocations(SERVER)
    more = {provider_of(world, "cmp1b"): {"VCPU": 1}}
    world.placement.replace([replace(held, resources={**held.resources, **more})])


def wrong_provider(world: World) -> None:
    held = world.placement.allocations(SERVER)
    other = {provider_of(world, "cmp1b"): {"VCPU": 1}}
    world.placement.replace([replace(held, resources=other)])


def no_allocation(world: World) -> None:
    held = world.placement.allocations(SERVER)
    world.placement.replace([replace(held, resources={})])


def port_without_server(world: World) -> None:
    world.network.add_port(GONE, "cmp2a")


def port_elsewhere(world: World) -> None:
    (port,) = world.network.ports(SERVER)
    world.network.bind(port.id, "cmp1b", "normal", {})
    world.network.activate(port.id, "cmp1b")


def port_unbound(world: World) -> None:
    (port,) = world.network.ports(SERVER)
    world.network.bind(port.id, "cmp1b", "normal", {})
    world.network.activate(port.id, "cmp1b")
    world.network.activate(port.id, "cmp1a")
    world.network.unbind(port.id, "cmp1b")


def inactive_binding(world: World) -> None:
    (port,) = world.network.ports(SERVER)
    world.network.bind(port.id, "cmp2b", "normal", {})


def stale_reservation(world: World) -> None:
    world.volumes.reserve(VOLUMES[NFS], SERVER)


def stray_attachment(world: World) -> None:
    volume = world.volumes.add_volume()
    world.volumes.attach(volume, SERVER, {"host": "cmp1a"})


def attachment_lost(world: World) -> None:
    for each in world.volumes.attachments(SERVER):
        world.volumes.delete(each.id)


def attachment_incomplete(world: World) -> None:
    volume = VOLUMES[NFS]
    world.volumes.reserve(volume, SERVER)
    (made,) = [e.id for e in world.volumes.attachments(SERVER) if e.status == "reserved"]
    old = next(
        e.id for e in world.volumes.attachments(SERVER) if e.volume == volume and e.id != made
    )
    world.volumes.delete(old)
    with world.cells[CELL1.uuid].write() as rows:
        rows.change("block_device_mapping", {"attachment_id": made}, attachment_id=old)


def guest_without_server(world: World) -> None:
    defined(world, "cmp2b", GONE, running=True)


def guest_elsewhere(world: World) -> None:
    world.hosts.by_name["cmp1a"].shutdown(SERVER, 1)
    defined(world, "cmp1b", SERVER, running=True)


def guest_left(world: World) -> None:
    defined(world, "cmp2a", SERVER, running=False)


def running_twice(world: World) -> None:
    defined(world, "cmp2a", SERVER, running=True)


def guest_missing(world: World) -> None:
    world.hosts.by_name["cmp1a"].shutdown(SERVER, 1)
    world.hosts.by_name["cmp1a"].undefine(SERVER)


def directory_left(world: World) -> None:
    world.hosts.by_name["cmp1b"].make_directory(SERVER)


def plug_left(world: World) -> None:
    for device, ids in world.hosts.by_name["cmp1a"].ports.items():
        if ids["vm-uuid"] == SERVER:
            world.hosts.by_name["cmp2a"].ports[device] = ids


def checkpoint(world: World) -> None:
    world.hosts.by_name["cmp1a"].checkpoints_[SERVER] = ["cellmove-01234567-3"]


def half_copy(world: World) -> None:
    half = FakeFile("qcow2", 1, b"")
    world.hosts.by_name["cmp2a"].halves_[SERVER] = {"disk": half}


def disk_server(world: World) -> None:
    world.hosts.by_name["cmp1a"].exports[SERVER] = (4711,)


def guard_left(world: World) -> None:
    changed(world, task_state="resize_prep", updated_at=LONG_AGO)


def stuck(world: World) -> None:
    changed(world, task_state="rebooting", updated_at=LONG_AGO)


def unreachable(world: World) -> None:
    world.hosts.unreachable.add("cmp2b")


PLANTS: dict[str, Callable[[World], None]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        *(shown_twice, row_missing, unmapped, mapped_elsewhere, shown_nowhere, hidden_copy),
        *(deleted_copy, migration_context, wrong_migration_context, resize_note, spec_flavor),
        *(phantom_consumer, allocation_astray, allocation_without_server, two_providers),
        *(wrong_provider, no_allocation, port_without_server, port_elsewhere, port_unbound),
        *(inactive_binding, stale_reservation, stray_attachment, attachment_lost),
        *(attachment_incomplete, guest_without_server, guest_elsewhere, guest_left, running_twice),
        *(
            guest_missing,
            directory_left,
            plug_left,
            checkpoint,
            half_copy,
            disk_server,
            guard_left,
            stuck,
        ),
        unreachable,
    )
}
"""Code of a finding -> what makes it."""


def changed(world: World, **values: Any) -> None:
    """Write to the server's row."""
    with world.cells[CELL1.uuid].write() as rows:
        rows.change("instances", values, uuid=SERVER)


def copied(world: World, *, hidden: bool, deleted: int = 0) -> None:
    """A second row in the other cell."""
    with world.cells[CELL1.uuid].read() as rows:
        records = read_records(rows, SERVER)
    with world.cells[CELL2.uuid].write() as rows:
        write_records(rows, records, instance={"hidden": hidden})
        rows.change("instances", {"deleted": deleted}, uuid=SERVER)


def context(world: World, migration: int) -> None:
    """Have the server's migration context name a migration."""
    made = json.dumps({"nova_object.data": {"migration_id": migration}})
    with world.cells[CELL1.uuid].write() as rows:
        rows.change("instance_extra", {"migration_context": made}, instance_uuid=SERVER)


def migrated(world: World, status: str, server: str = SERVER) -> None:
    """A migration of the server of this status."""
    row: dict[str, Any] = {
        "uuid": MIGRATION,
        "instance_uuid": server,
        "status": status,
        "migration_type": "resize",
    }
    row |= {"source_compute": "cmp1a", "cross_cell_move": True, "hidden": False}
    with world.cells[CELL1.uuid].write() as rows:
        rows.insert("migrations", [row])


def resized(world: World) -> None:
    """Carry a resize out."""
    for step in plan("resize", world.move("resize")):
        perform(step, world)


def provider_of(world: World, host: str) -> str:
    for cell in world.cells.values():
        with cell.read() as rows:
            for node in rows.all("compute_nodes", host=host):
                return str(node["uuid"])
    raise AssertionError(host)


def hold(world: World, consumer: str, host: str) -> None:
    """Have a consumer hold something of a host."""
    held = {provider_of(world, host): {"VCPU": 1, "MEMORY_MB": 128}}
    world.placement.replace([Allocations(consumer, held, None, PROJECT, USER)])


def defined(world: World, host: str, server: str, *, running: bool) -> None:
    """A guest of nova's making on this host, with its directory."""
    xml = DOMAIN.format(
        name="instance-0000ffff", server=server, mac="fa:16:3e:00:00:09", device="tapx"
    )
    xml = xml.replace("</name>", f"</name>{NOVAS}")
    hypervisor = world.hosts.by_name[host]
    hypervisor.add_guest(xml, {"disk": FakeFile("qcow2", 1, b"")}, running=running)


def mapping(server: str) -> dict[str, Any]:
    """A mapping to the first cell."""
    row = {"instance_uuid": server, "cell_id": CELL1.id, "project_id": PROJECT, "user_id": USER}
    return row | {"queued_for_delete": False}
