"""Request -> Move: everything is read once, and what cannot be done is refused before the touch."""

from __future__ import annotations

import datetime
import socket
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cellmove import refusals
from cellmove.cloud import Cloud
from cellmove.dbcopy import api, objects
from cellmove.dbcopy.cells import CELL0, mapped_cells
from cellmove.dbcopy.copy import Records, read_records
from cellmove.dbcopy.database import Row
from cellmove.dbcopy.obstacles import obstacles
from cellmove.errors import Conflict, Refusals, Refused
from cellmove.hosts.xml import GuestXml
from cellmove.model import Cell, Disk, Flavor, Host, Move, Port
from cellmove.schedule import choose

SHUTDOWN_TIMEOUT_SECONDS = 60
"""nova's `[DEFAULT]shutdown_timeout`; an image may ask for another (`os_shutdown_timeout`)."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who runs cellmove, and where: written into the server's history."""

    user_id: str
    project_id: str
    conductor: str = field(default_factory=socket.gethostname)
    domain_template: str = "instance-%08x"


@dataclass(frozen=True, slots=True)
class _Placed:
    """A server where it is: its owning cell, its rows there, its hypervisor."""

    cell: Cell
    records: Records
    host: Host
    service: api.Service | None
    pci_devices: int

    @property
    def row(self) -> Row:
        return self.records.instance

    @property
    def flavor(self) -> Flavor:
        found = objects.flavor_of(self.records.tables["instance_extra"][0]["flavor"])
        assert found is not None  # nova never stores a server without its current flavor
        return found

    def system_metadata(self, key: str) -> str | None:
        rows = self.records.tables["instance_system_metadata"]
        return next((row["value"] for row in rows if row["key"] == key), None)


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
    here = _find(cloud, locate(cloud, server))
    new = _new_flavor(cloud, here, flavor)
    target = _target(cloud, here, new, to_host, to_cell)
    ports = cloud.network.ports(here.row["uuid"])
    disks = cloud.hosts.reach(here.host.name).disks(here.row["uuid"])
    reasons = list(_resize_reasons(cloud, here, target, new, ports, disks))
    _raise(here.row, reasons)
    return _move(
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


def intake_confirm(cloud: Cloud, server: str, *, actor: Actor, request_id: str) -> Move:
    """What a confirm of this server's cross-cell resize would be, nova's own included.

    Raises:
        Refused: it cannot be done; Refusals when there are several reasons.
    """
    return _finishing(cloud, server, actor, request_id, back=False)


def intake_revert(cloud: Cloud, server: str, *, actor: Actor, request_id: str) -> Move:
    """What a revert of this server's cross-cell resize would be, nova's own included.

    Raises:
        Refused: it cannot be done; Refusals when there are several reasons.
    """
    return _finishing(cloud, server, actor, request_id, back=True)


def locate(cloud: Cloud, server: str) -> str:
    """The uuid of a server given by uuid, or by a name that only one server bears.

    Raises:
        Refused: none or several bear the name.
    """
    try:
        return str(uuid.UUID(server))
    except ValueError:
        found = api.servers_named(cloud.cells.values(), server)
    if len(found) != 1:
        seen = "No cell has one." if not found else f"{len(found)} do: {', '.join(found)}."
        raise Refused(f"No single server is named {server!r}.", seen, "Give its UUID.")
    return found[0]


def _find(cloud: Cloud, server: str) -> _Placed:
    with cloud.api.read() as rows:
        mapping = api.instance_mapping(rows, server)
        cells = {mapped.cell.id: mapped.cell for mapped in mapped_cells(rows)}
        building = api.is_building(rows, server)
    cell = cells.get(mapping["cell_id"]) if mapping is not None else None
    if cell is None or building or cell.uuid == CELL0:
        seen = "nova has no mapping of it to a cell." if not building else "nova is building it."
        raise Refused(
            f"There is no server {server} in any cell.",
            "It is in cell0: it was never placed." if cell and cell.uuid == CELL0 else seen,
            "See `openstack server list --all-projects`.",
        )
    try:
        return _placed(cloud, cell, server)
    except Conflict as error:
        raise Refused(error.what, error.seen, error.do) from None


def _placed(cloud: Cloud, cell: Cell, server: str) -> _Placed:
    with cloud.api.read() as api_rows, cloud.cells[cell.uuid].read() as rows:
        records = read_records(rows, server)
        name = records.instance["host"]
        zone = api.zone_of_host(api_rows, name) if name else ""
        found = api.host(rows, name, cell, zone) if name else None
        if found is None:
            raise Refused(
                "The server is on no host that nova knows.",
                f"Its row names {name or 'none'}.",
                "Only servers with a hypervisor are moved.",
            )
        pci = rows.count("pci_devices", instance_uuid=server, deleted=0)
        return _Placed(cell, records, found, api.compute_service(rows, name), pci)


def _new_flavor(cloud: Cloud, here: _Placed, wanted: str | None) -> Flavor:
    if wanted is None:
        return here.flavor
    with cloud.api.read() as rows:
        found = api.flavor(rows, flavorid=wanted) or api.flavor(rows, name=wanted)
    if found is None:
        raise Refused(f"There is no flavor {wanted!r}.", do="See `openstack flavor list --all`.")
    if found.id == here.flavor.id:
        raise Refused(
            f"The server has flavor {wanted!r} already.",
            do="Leave --flavor away to move it without a resize.",
        )
    return found


def _target(
    cloud: Cloud, here: _Placed, flavor: Flavor, to_host: str | None, to_cell: str | None
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
        raise Refused(f"nova knows no host {to_host!r}.", do="See `openstack hypervisor list`.")
    if mapped.cell == here.cell or mapped.disabled:
        why = "the server's own cell" if mapped.cell == here.cell else "disabled"
        raise Refused(
            f"Host {to_host} cannot be the target.",
            f"Its cell, {mapped.cell.name}, is {why}.",
            "Within a cell nova's own resize does it; else choose a host of another cell.",
        )
    if to_cell is not None and to_cell not in (mapped.cell.name, mapped.cell.uuid):
        raise Refused(f"Host {to_host} is not in cell {to_cell}.", f"It is in {mapped.cell.name}.")
    with cloud.cells[mapped.cell.uuid].read() as rows:
        found = api.host(rows, to_host, mapped.cell, zone)
    if found is None:
        raise Refused(f"Host {to_host} has no hypervisor.", "Its cell has no compute node of it.")
    return found


def _resize_reasons(
    cloud: Cloud,
    here: _Placed,
    target: Host,
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
    yield from _host_reasons(cloud, here, target, new, disks)


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
    cloud: Cloud, here: _Placed, target: Host, new: Flavor, disks: tuple[Disk, ...]
) -> Iterator[Refused]:
    server = here.row["uuid"]
    guest = cloud.hosts.reach(here.host.name).domain(server)
    reasons = GuestXml(guest.xml).unsupported() if guest is not None else ()
    yield from refusals.of_guest(guest, reasons, here.row, here.host)
    yield from refusals.of_disks(disks, here.host)
    there = cloud.hosts.reach(target.name)
    yield from refusals.of_target(
        there.domain(server),
        there.has_directory(server),
        there.free_bytes(),
        sum(disk.allocated_bytes for disk in disks),
        target,
    )


def _finishing(cloud: Cloud, server: str, actor: Actor, request_id: str, *, back: bool) -> Move:
    there = _find(cloud, locate(cloud, server))
    found = there.row["uuid"]
    migration = _resized(there)
    with cloud.api.read() as rows:
        cell_id = api.cell_of_host(rows, migration["source_compute"])
        cells = {mapped.cell.id: mapped.cell for mapped in mapped_cells(rows)}
    cell = cells.get(cell_id) if cell_id is not None else None
    if cell is None or cell.uuid not in cloud.cells:
        raise Refused(
            "The server's source cell is not known.",
            f"nova maps {migration['source_compute']} to no cell.",
            "The source host must stay mapped until the resize is confirmed or reverted.",
        )
    home = _placed(cloud, cell, found)
    ports = cloud.network.ports(found)
    disks = cloud.hosts.reach(home.host.name).disks(found)
    reasons = list(_finish_reasons(cloud, there, home, migration["uuid"]))
    if back:
        reasons += _revert_reasons(cloud, there, home, ports, disks)
    _raise(there.row, reasons)
    return _move(
        home,
        actor,
        request_id,
        kind=migration["migration_type"],
        source=home.host,
        target=there.host,
        migration=migration["uuid"],
        flavors=(home.flavor, there.flavor),
        vm_state=there.system_metadata("old_vm_state") or "active",
        ports=ports,
        disks=disks,
    )


def _resized(there: _Placed) -> Row:
    """The migration of a server that waits to be confirmed or reverted."""
    migration = next(
        (
            row
            for row in there.records.tables["migrations"]
            if row["status"] == "finished" and row["cross_cell_move"]
        ),
        None,
    )
    if there.row["vm_state"] != "resized" or there.row["task_state"] or migration is None:
        task = f", task_state {there.row['task_state']}" if there.row["task_state"] else ""
        raise Refused(
            "The server does not wait to be confirmed or reverted.",
            f"Its vm_state is {there.row['vm_state']}{task}; "
            + ("its migration is not finished." if migration is None else "a migration waits."),
            "`cellmove resize` brings a server there; a resize within a cell is nova's to end.",
        )
    return migration


def _finish_reasons(
    cloud: Cloud, there: _Placed, home: _Placed, migration: str
) -> Iterator[Refused]:
    if not home.row["hidden"]:
        yield Refused(
            f"The server's records in {home.cell.name} are not hidden.",
            "Both cells show the server.",
            "Compare both cells' rows before deleting either.",
        )
    if not any(row["uuid"] == migration for row in home.records.tables["migrations"]):
        yield Refused(
            f"The migration {migration} is not in {home.cell.name}.",
            "The hidden records there are of another move.",
            "Compare both cells' rows before deleting either.",
        )
    yield from refusals.of_records(there.records.tables, there.pci_devices)
    if cloud.hosts.reach(home.host.name).domain(there.row["uuid"]) is not None:
        yield Refused(
            f"The old guest is still defined on {home.host.name}.",
            "It may have been started behind nova's back.",
            "Look at that guest before going on.",
        )


def _revert_reasons(
    cloud: Cloud,
    there: _Placed,
    home: _Placed,
    ports: tuple[Port, ...],
    disks: tuple[Disk, ...],
) -> Iterator[Refused]:
    yield from refusals.of_service(home.service, home.host, must_be_enabled=False)
    yield from refusals.of_disks(disks, home.host)
    yield from refusals.of_ports(ports, there.host)
    for port in ports:
        if not any(b.host == home.host.name for b in cloud.network.bindings(port.id)):
            yield Refused(
                f"Port {port.id} has no binding at {home.host.name} to go back to.",
                "Somebody deleted it.",
                f"Create it: `openstack port binding create --host {home.host.name} {port.id}`.",
            )
    if not cloud.placement.allocations(_resized(there)["uuid"]).resources:
        yield Refused(
            f"The room on {home.host.name} is no longer held.",
            "The migration has no allocation in Placement.",
            "Confirm the server instead.",
        )


def _move(
    where: _Placed,
    actor: Actor,
    request_id: str,
    *,
    kind: str,
    source: Host,
    target: Host,
    migration: str,
    flavors: tuple[Flavor, Flavor],
    vm_state: str,
    ports: tuple[Port, ...],
    disks: tuple[Disk, ...],
) -> Move:
    row = where.row
    timeout = where.system_metadata("image_os_shutdown_timeout")
    return Move(
        id=str(uuid.uuid4()),
        request_id=request_id,
        server=row["uuid"],
        name=row["display_name"] or row["uuid"],
        project_id=row["project_id"],
        user_id=row["user_id"],
        actor_user_id=actor.user_id,
        actor_project_id=actor.project_id,
        conductor=actor.conductor,
        kind="resize" if kind == "resize" else "migration",
        source=source,
        target=target,
        migration=migration,
        old_flavor=flavors[0],
        new_flavor=flavors[1],
        vm_state=vm_state,
        power_state=row["power_state"] or 0,
        ports=ports,
        disks=disks,
        source_domain=actor.domain_template % row["id"],
        domain_template=actor.domain_template,
        started_at=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S}",
        shutdown_timeout_seconds=int(timeout or SHUTDOWN_TIMEOUT_SECONDS),
    )


def _raise(row: Row, reasons: Iterable[Refused]) -> None:
    found = list(reasons)
    if len(found) == 1:
        raise found[0]
    if found:
        raise Refusals(f"Server {row['display_name']} ({row['uuid']}) cannot be moved.", found)
