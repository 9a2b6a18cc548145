"""Taking in a resize: where to, and every reason against it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import mapped_cells
from cellmove.dbcopy.obstacles import obstacles
from cellmove.errors import Refused
from cellmove.hosts.xml import GuestXml
from cellmove.intake import refusals
from cellmove.intake.found import Actor, Placed, find, locate, make_move, raise_all
from cellmove.intake.schedule import choose
from cellmove.model import Disk, Flavor, Host, Move, Port


def intake_resize(
    cloud: Cloud,
    server: str,
    *,
    flavor: str | None,
    to_host: str | None,
    to_cell: str | None,
    actor: Actor,
    request_id: str,
) -> Move:
    """What a resize (or, without a flavor, a cold migration) of this server would be.

    Raises:
        Refused: it cannot be done; Refusals when there are several reasons.
    """
    here = find(cloud, locate(cloud, server))
    new = _new_flavor(cloud, here, flavor)
    target = _target(cloud, here, new, to_host, to_cell)
    ports = cloud.network.ports(here.row["uuid"])
    disks = cloud.hosts.reach(here.host.name).disks(here.row["uuid"])
    reasons = list(_resize_reasons(cloud, here, target, new=new, ports=ports, disks=disks))
    raise_all(here.row, reasons)
    return make_move(
        here,
        actor,
        request_id,
        kind="migration" if flavor is None else "resize",
        source=here.host,
        target=target,
        migration=str(uuid.uuid4()),
        flavors=(here.flavor, new),
        vm_state=here.row["vm_state"],
        ports=ports,
        disks=disks,
    )


def _new_flavor(cloud: Cloud, here: Placed, wanted: str | None) -> Flavor:
    if wanted is None:
        return here.flavor
    with cloud.api.read() as rows:
        found = api.flavor(rows, flavorid=wanted) or api.flavor(rows, name=wanted)
    if found is None:
        raise Refused(
            f"There is no flavor {wanted!r}.",
            "No flavor has this id or name.",
            "See `openstack flavor list --all`.",
        )
    if found.id == here.flavor.id:
        raise Refused(
            f"The server has flavor {wanted!r} already.",
            "Its resize would change nothing.",
            "Leave --flavor away to move it without a resize.",
        )
    return found


def _target(
    cloud: Cloud, here: Placed, flavor: Flavor, to_host: str | None, to_cell: str | None
) -> Host:
    with cloud.api.read() as rows:
        cells = [m for m in mapped_cells(rows) if not m.is_cell0]
        cell_id = api.cell_of_host(rows, to_host) if to_host else None
        zone = api.zone_of_host(rows, to_host) if to_host else ""
    if to_host is None:
        others = [
            mapped.cell
            for mapped in cells
            if mapped.cell != here.cell
            and not mapped.disabled
            and (to_cell is None or to_cell in (mapped.cell.name, mapped.cell.uuid))
        ]
        return choose(cloud, others, flavor)
    mapped = next((m for m in cells if m.cell.id == cell_id), None)
    if mapped is None:
        raise Refused(
            f"nova knows no host {to_host!r}.",
            "No cell has a mapping of it.",
            "See `openstack hypervisor list`.",
        )
    if mapped.cell == here.cell or mapped.disabled:
        why = "the server's own cell" if mapped.cell == here.cell else "disabled"
        raise Refused(
            f"Host {to_host} cannot be the target.",
            f"Its cell, {mapped.cell.name}, is {why}.",
            "Within a cell nova's own resize does it; else choose a host of another cell.",
        )
    if to_cell is not None and to_cell not in (mapped.cell.name, mapped.cell.uuid):
        raise Refused(
            f"Host {to_host} is not in cell {to_cell}.",
            f"It is in {mapped.cell.name}.",
            "Leave --to-cell or --to-host away.",
        )
    with cloud.cells[mapped.cell.uuid].read() as rows:
        found = api.host(rows, to_host, mapped.cell, zone)
    if found is None:
        raise Refused(
            f"Host {to_host} has no hypervisor.",
            "Its cell has no compute node of it.",
            "Start its nova-compute, or choose another host with --to-host.",
        )
    return found


def _resize_reasons(
    cloud: Cloud,
    here: Placed,
    target: Host,
    *,
    new: Flavor,
    ports: tuple[Port, ...],
    disks: tuple[Disk, ...],
) -> Iterator[Refused]:
    server = here.row["uuid"]
    yield from refusals.of_state(here.row)
    yield from refusals.of_records(here.records.tables, here.pci_devices)
    root = next((disk for disk in disks if disk.name == "disk"), None)
    yield from refusals.of_flavors(here.flavor, new, root)
    yield from refusals.of_service(here.service, here.host, must_be_enabled=False)
    with cloud.cells[target.cell.uuid].read() as rows:
        service = api.compute_service(rows, target.name)
    yield from refusals.of_service(service, target, must_be_enabled=True)
    for reason in obstacles(cloud.cells[here.cell.uuid], cloud.cells[target.cell.uuid], server):
        yield Refused(reason)
    yield from refusals.of_ports(ports, here.host)
    for port in ports:
        yield from refusals.of_bindings(port, cloud.network.bindings(port.id), target)
    held = cloud.placement.allocations(server)
    free = cloud.placement.free(target.provider)
    yield from refusals.of_allocations(held, free, new, here.host, target)
    yield from _group_reasons(cloud, server, target)
    yield from _host_reasons(cloud, here, target, disks)


def _group_reasons(cloud: Cloud, server: str, target: Host) -> Iterator[Refused]:
    with cloud.api.read() as rows:
        group = api.server_group(rows, server)
    if group is None:
        return
    hosts: dict[str, str] = {}
    for database in cloud.cells.values():
        with database.read() as rows:
            members = rows.all("instances", uuid=group.members, deleted=0, hidden=(0, None))
            hosts.update({row["uuid"]: row["host"] for row in members if row["host"]})
    yield from refusals.of_group(group, server, hosts, target)


def _host_reasons(
    cloud: Cloud, here: Placed, target: Host, disks: tuple[Disk, ...]
) -> Iterator[Refused]:
    server = here.row["uuid"]
    guest = cloud.hosts.reach(here.host.name).domain(server)
    reasons = GuestXml(guest.xml).unsupported() if guest is not None else ()
    yield from refusals.of_guest(guest, reasons, here.row, here.host)
    yield from refusals.of_disks(disks, here.host)
    there = cloud.hosts.reach(target.name)
    yield from refusals.of_target(
        target,
        there.domain(server),
        has_directory=there.has_directory(server),
        free_bytes=there.free_bytes(),
        needed_bytes=sum(disk.allocated_bytes for disk in disks),
    )
