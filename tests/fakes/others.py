"""What others do to the server in mid-move: its owner, an administrator, nova-compute.

Each does to the fake cloud what nova 26 does to a real one, with the code that is named.
"""

from __future__ import annotations

import datetime

from cellmove.dbcopy.database import Rows, now
from cellmove.hosts.blocks import data_of
from cellmove.hosts.xml import GuestXml
from cellmove.model import Domain
from tests.fakes.databases import CELLS, HOSTS, PROJECT, USER
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.invariants import home_cell, instances
from tests.fakes.world import DOMAIN, SERVER, World

SOFT_DELETED = (
    "instance_info_caches",
    "instance_metadata",
    "instance_faults",
    "instance_extra",
    "instance_system_metadata",
    "block_device_mapping",
    "migrations",
    "virtual_interfaces",
)


def deletes(world: World) -> bool:
    """The owner deletes the server; answers whether nova could.

    nova 26: compute/api.py:_delete, compute/manager.py:_delete_instance, in the mapped cell; the
    libvirt driver undefines the guest last of all, and libvirt refuses one with checkpoints.
    """
    cell, host = _home(world)
    here = world.hosts.by_name[host]
    with world.cells[cell].write() as rows:
        _note_action(rows, "delete")
        rows.change("instances", {"task_state": "deleting"}, uuid=SERVER)
    whole = _destroyed(world, here, cell)
    for port in world.network.ports(SERVER):
        world.network.delete_port(port.id)
    if not whole:
        with world.cells[cell].write() as rows:
            failed = {"vm_state": "error", "task_state": None}
            rows.change("instances", failed, uuid=SERVER)
        return False
    _forget(world, cell)
    return True


def resets(world: World, vm_state: str = "error") -> None:
    """An administrator runs `openstack server set --state` (nova 26: admin_actions.py)."""
    cell, _host = _home(world)
    with world.cells[cell].write() as rows:
        rows.change("instances", {"vm_state": vm_state, "task_state": None}, uuid=SERVER)


def restarts_compute(world: World, host: str = "cmp1a") -> None:
    """nova-compute of a host starts (nova 26: compute/manager.py:_init_instance)."""
    cell = HOSTS[host].uuid
    with world.cells[cell].write() as rows:
        row = rows.one("instances", uuid=SERVER, host=host, deleted=0)
        if row is None or row["task_state"] not in ("resize_prep", "resize_migrating"):
            return
        rows.change("instances", {"task_state": None}, uuid=SERVER)
    if row["task_state"] == "resize_migrating":
        _finish_revert(world, host, row["id"])


def _finish_revert(world: World, host: str, number: int) -> None:
    """libvirt driver: the guest is defined anew and started, whatever is under way."""
    here = world.hosts.by_name[host]
    found = here.domain(SERVER)
    ports = world.network.ports(SERVER)
    if found is None and ports:
        xml = DOMAIN.format(
            name=f"instance-{number:08x}",
            server=SERVER,
            mac=ports[0].mac,
            device=ports[0].device,
        )
        here.domains[SERVER] = Domain(SERVER, GuestXml(xml).name, "off", xml)
    for port in ports:
        here.plug(SERVER, port)
    here.start(SERVER)


def _home(world: World) -> tuple[str, str]:
    """Uuid of the mapped cell, and the host that its row names."""
    name = home_cell(world)
    uuid = next(cell.uuid for cell in CELLS if cell.name == name)
    return uuid, str(instances(world)[name]["host"])


def _destroyed(world: World, here: FakeHypervisor, cell: str) -> bool:
    """The driver's `destroy` with its `cleanup`; whether libvirt forgot the guest, too."""
    here.ports = {tap: ids for tap, ids in here.ports.items() if ids["vm-uuid"] != SERVER}
    known = {each.id: each for each in world.volumes.attachments(SERVER)}
    attached = [row["attachment_id"] for row in _mappings(world, cell)]
    for info in filter(None, map(world.volumes.connection_info, attached)):
        if data_of(info).get("target_iqn"):
            here.disconnect_volume(info)
    here.directories.pop(SERVER, None)
    here.disk_infos.pop(SERVER, None)
    here.halves_.pop(SERVER, None)
    found = here.domains.get(SERVER)
    here.jobs_.pop(SERVER, None)
    if found is not None:
        here.domains[SERVER] = Domain(found.uuid, found.name, "off", found.xml)
        if here.checkpoints_.get(SERVER):
            return False
        here.nvrams.pop(GuestXml(found.xml).nvram, None)
        del here.domains[SERVER]
    for each in known.keys() & set(attached):
        world.volumes.delete(each)
    return True


def _mappings(world: World, cell: str) -> list[dict[str, str]]:
    query = "SELECT * FROM block_device_mapping WHERE instance_uuid = ? AND deleted = 0"
    return [row for row in world.query(cell, query, SERVER) if row["volume_id"]]


def _forget(world: World, cell: str) -> None:
    """nova 26: db/main/api.py:instance_destroy, and Placement's allocations before it."""
    world.placement._consumers.pop(SERVER, None)
    with world.cells[cell].write() as rows:
        gone = {"deleted_at": now()}
        for table in SOFT_DELETED:
            for row in rows.all(table, instance_uuid=SERVER, deleted=0):
                rows.change(table, gone | {"deleted": row["id"]}, id=row["id"])
        for row in rows.all("instances", uuid=SERVER):
            state = {"vm_state": "deleted", "task_state": None, "deleted": row["id"]}
            rows.change("instances", gone | state, id=row["id"])
        rows.delete("tags", resource_id=SERVER)
    with world.api.write() as rows:
        rows.change("instance_mappings", {"queued_for_delete": True}, instance_uuid=SERVER)


def _note_action(rows: Rows, action: str) -> None:
    row = {
        "instance_uuid": SERVER,
        "request_id": "req-99999999-0000-4000-8000-000000000009",
        "action": action,
        "user_id": USER,
        "project_id": PROJECT,
        "start_time": now() + datetime.timedelta(seconds=1),
    }
    rows.insert("instance_actions", [row])


def left_of_the_deleted(world: World) -> list[str]:
    """What there is of the server, once it is deleted and the move is over."""
    found = [
        f"{host.name} has {what}"
        for host in world.hosts.by_name.values()
        for what, there in (
            ("the guest", host.domains),
            ("its directory", host.directories),
            ("halves", host.halves_),
            ("checkpoints", host.checkpoints_),
            ("a backup job", host.jobs_),
        )
        if there.get(SERVER)
    ]
    found += [
        f"{host.name} has its port"
        for host in world.hosts.by_name.values()
        for ids in host.ports.values()
        if ids["vm-uuid"] == SERVER
    ]
    found += [f"{path} is left" for path in _firmware_left(world)]
    found += [f"attachment {each.status}" for each in world.volumes.attachments(SERVER)]
    found += [f"the port is bound at {port.host}" for port in world.network.ports(SERVER)]
    return found + _rows_left(world)


def _firmware_left(world: World) -> list[str]:
    return [
        path
        for host in world.hosts.by_name.values()
        for path, content in host.nvrams.items()
        if SERVER.encode() in content
    ]


def _rows_left(world: World) -> list[str]:
    left = [
        f"{cell} has a living row" for cell, row in instances(world).items() if not row["deleted"]
    ]
    if len(instances(world)) > 1:
        left.append("both cells have a row")
    query = "SELECT uuid FROM migrations WHERE instance_uuid = ?"
    ours = {row["uuid"] for cell in CELLS for row in world.query(cell.uuid, query, SERVER)}
    held = [
        consumer for consumer in (SERVER, *ours) if world.placement.allocations(consumer).resources
    ]
    return left + [f"{consumer} holds room" for consumer in held]
