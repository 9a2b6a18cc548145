"""What holds of a server at every moment of its life, and what when nobody works on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cellmove.hosts.blocks import data_of, volume_disks
from tests.fakes.databases import CELLS, NEIGHBOURS
from tests.fakes.world import CONTENT, SERVER, World

IN_FLIGHT = ("pre-migrating", "migrating", "post-migrating", "finished", "confirming", "reverting")


def unsafe(world: World) -> list[str]:
    """What is wrong now and is never right, not even between two calls of a step."""
    return [*_of_guests(world), *_of_rows(world), *_of_room(world)]


def unsound(world: World) -> list[str]:
    """What is wrong and is right only while a command works on the server."""
    return [
        *unsafe(world),
        *_of_one_guest(world),
        *_of_one_row(world),
        *_of_migration(world),
        *_of_place(world),
        *_of_tools(world),
        *_of_volumes(world),
        *_of_flavor(world),
    ]


def foreign(world: World) -> dict[str, Any]:
    """Everything of the neighbours: no move changes any of it."""
    taken = world.snapshot()
    found: dict[str, Any] = {}
    for server in NEIGHBOURS.values():
        for name in ("api", *(cell.uuid for cell in CELLS)):
            rows = {
                table: [row for row in all_ if server in row] for table, all_ in taken[name].items()
            }
            found[f"{server} in {name}"] = {table: of for table, of in rows.items() if of}
            if name != "api":
                found[f"{server}'s events in {name}"] = _events(world, name, server)
        found[f"{server} at the network"] = [
            port for port in taken["network"].values() if port[0] == server
        ]
        found[f"{server} at placement"] = taken["placement"][server]
        for name, host in taken["hosts"].items():
            found[f"{server} on {name}"] = [
                *(host[what].get(server) for what in ("domains", "directories", "disk_infos")),
                *(ids for ids in host["ports"].values() if ids["vm-uuid"] == server),
            ]
    return found


def instances(world: World) -> dict[str, dict[str, Any]]:
    """Cell name -> the server's row there."""
    query = "SELECT * FROM instances WHERE uuid = ?"
    found = {cell.name: world.query(cell.uuid, query, SERVER) for cell in CELLS}
    return {cell: row for cell, rows in found.items() for row in rows}


def home_cell(world: World) -> str:
    """Name of the cell that the server's instance mapping points at."""
    query = "SELECT cell_id FROM instance_mappings WHERE instance_uuid = ?"
    (mapping,) = world.query("api", query, SERVER)
    return next(cell.name for cell in CELLS if cell.id == mapping["cell_id"])


def _of_tools(world: World) -> Iterator[str]:
    for host in world.hosts.by_name.values():
        if host.checkpoints(SERVER):
            yield f"checkpoints are left on {host.name}"
        if host.halves(SERVER):
            yield f"half disks are left on {host.name}"
        if host.jobs_.get(SERVER):
            yield f"a {host.jobs_[SERVER]} still goes on at {host.name}"


def _of_volumes(world: World) -> Iterator[str]:
    """Contract of the two cells: where the server is, attached; in the other, reserved; no more."""
    known = {attachment.id: attachment for attachment in world.volumes.attachments(SERVER)}
    named = set()
    for cell, row in instances(world).items():
        uuid = next(each.uuid for each in CELLS if each.name == cell)
        wanted = "attached" if cell == home_cell(world) else "reserved"
        for mapping in _mappings(world, uuid):
            found = known.get(mapping["attachment_id"])
            named.add(mapping["attachment_id"])
            if found is None or found.volume != mapping["volume_id"]:
                yield f"{cell} names attachment {mapping['attachment_id']}, which is {found}"
            elif found.status != wanted:
                yield f"the attachment that {cell} names is {found.status}"
            elif wanted == "attached":
                yield from _of_way(world, mapping, row["host"])
    if len(known) > len(named):
        yield f"Cinder has {len(known)} attachments, the cells name {len(named)}"


def _of_way(world: World, mapping: dict[str, Any], host: str) -> Iterator[str]:
    """The guest, its host and nova must take the way to the volume that Cinder says."""
    told = world.volumes.connection_info(mapping["attachment_id"])
    stored = json.loads(mapping["connection_info"])
    here = world.hosts.by_name[host]
    if not data_of(told).items() <= data_of(stored).items():
        yield f"nova stores {stored} for {told}"
    if not here.volume_connected(told):
        yield f"volume {mapping['volume_id']} is not connected on {host}"
    guest = here.domain(SERVER)
    path = str(data_of(stored)["device_path"])
    if guest is None or path not in str(volume_disks(guest.xml).get(mapping["volume_id"])):
        yield f"the guest on {host} does not have {path}"


def _mappings(world: World, cell: str) -> list[dict[str, Any]]:
    query = "SELECT * FROM block_device_mapping WHERE instance_uuid = ? AND deleted = 0"
    return [row for row in world.query(cell, query, SERVER) if row["volume_id"]]


def _of_guests(world: World) -> Iterator[str]:
    hosts = world.hosts.by_name.values()
    domains = {host.name: host.domain(SERVER) for host in hosts}
    alive = [name for name, found in domains.items() if found and found.state != "off"]
    if len(alive) > 1:
        yield f"the guest is alive on {alive}"
    if not any(domains.values()):
        yield "the guest is defined nowhere"
    files = [file for host in hosts for file in host.directories.get(SERVER, {}).values()]
    if not any(file.content == CONTENT + SERVER.encode() for file in files):
        yield "the root disk is lost"


def _of_rows(world: World) -> Iterator[str]:
    mapped = instances(world).get(home_cell(world))
    if mapped is None or mapped["hidden"]:
        # nova-api would answer 404 and lose the events of Neutron.
        yield "the mapping points at a hidden row or at none"
    for cell, row in instances(world).items():
        if row["deleted"]:
            yield f"the row in {cell} is soft-deleted"


def _of_room(world: World) -> Iterator[str]:
    (port,) = world.network.ports(SERVER)
    active = [binding.host for binding in world.network.bindings(port.id) if binding.active]
    if len(active) != 1:
        yield f"the port's active bindings are at {active}"
    for host in world.hosts.by_name.values():
        found = host.domain(SERVER)
        if found and found.state != "off" and not _held(world, host.name):
            yield f"the guest runs on {host.name}, where no room is held for it"


def _held(world: World, host: str) -> bool:
    provider = _provider(world, host)
    query = "SELECT uuid FROM migrations WHERE instance_uuid = ?"
    own = {row["uuid"] for cell in CELLS for row in world.query(cell.uuid, query, SERVER)}
    return any(
        provider in world.placement.allocations(consumer).resources for consumer in (SERVER, *own)
    )


def _of_one_guest(world: World) -> Iterator[str]:
    names = [host.name for host in world.hosts.by_name.values() if host.domain(SERVER)]
    if len(names) != 1:
        yield f"the guest is defined on {names}"
    plugged = [
        host.name
        for host in world.hosts.by_name.values()
        if any(ids["vm-uuid"] == SERVER for ids in host.ports.values())
    ]
    if plugged != names:
        yield f"the guest is on {names}, its port on {plugged}"


def _of_one_row(world: World) -> Iterator[str]:
    shown = [cell for cell, row in instances(world).items() if not row["hidden"]]
    if shown != [home_cell(world)]:
        yield f"the server is shown in {shown}, mapped to {home_cell(world)}"


def _of_migration(world: World) -> Iterator[str]:
    rows = instances(world)
    for cell in CELLS:
        if cell.name not in rows:
            continue
        (extra,) = world.query(
            cell.uuid,
            "SELECT migration_context FROM instance_extra WHERE instance_uuid = ?",
            SERVER,
        )
        found = world.query(cell.uuid, "SELECT * FROM migrations WHERE instance_uuid = ?", SERVER)
        moving = {row["id"] for row in found if row["status"] in IN_FLIGHT}
        text = extra["migration_context"]
        named = {json.loads(text)["nova_object.data"]["migration_id"]} if text else set()
        if named != moving:
            yield f"the context in {cell.name} names {named}; in flight are {moving}"
        if (len(rows) > 1) != bool(moving):
            yield f"the server is in {[*rows]} and in flight are {moving} in {cell.name}"


def _of_place(world: World) -> Iterator[str]:
    row = instances(world)[home_cell(world)]
    if row["task_state"]:
        yield f"the server's task_state is {row['task_state']}"
    (port,) = world.network.ports(SERVER)
    guest = world.hosts.by_name[row["host"]].domain(SERVER)
    runs = guest is not None and guest.state == "running"
    if runs != (row["power_state"] == 1):
        yield f"power_state is {row['power_state']}, the guest runs: {runs}"
    if port.host != row["host"] or port.vif_type != "ovs":
        yield f"the port is {port.vif_type} at {port.host}, the server on {row['host']}"
    held = world.placement.allocations(SERVER).resources
    if set(held) != {_provider(world, row["host"])}:
        yield f"the server's allocation is {held}, the server on {row['host']}"


def _of_flavor(world: World) -> Iterator[str]:
    cell = next(cell for cell in CELLS if cell.name == home_cell(world))
    row = instances(world)[cell.name]
    (spec,) = world.query("api", "SELECT spec FROM request_specs WHERE instance_uuid = ?", SERVER)
    (extra,) = world.query(
        cell.uuid, "SELECT flavor FROM instance_extra WHERE instance_uuid = ?", SERVER
    )
    ids = {
        "the row": row["instance_type_id"],
        "the request spec": json.loads(spec["spec"])["nova_object.data"]["flavor"][
            "nova_object.data"
        ]["id"],
        "the current flavor": json.loads(extra["flavor"])["cur"]["nova_object.data"]["id"],
    }
    if len(set(ids.values())) > 1:
        yield f"the flavors differ: {ids}"


def _provider(world: World, host: str) -> str:
    found = [
        row["uuid"]
        for cell in CELLS
        for row in world.query(cell.uuid, "SELECT uuid FROM compute_nodes WHERE host = ?", host)
    ]
    return str(found[0])


def _events(world: World, cell: str, server: str) -> list[dict[str, Any]]:
    return world.query(
        cell,
        "SELECT e.* FROM instance_actions_events e JOIN instance_actions a ON a.id = e.action_id"
        " WHERE a.instance_uuid = ?",
        server,
    )
