"""Taking in a confirm or a revert: what a resize, nova's own included, has left in both cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cellmove import policy
from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import mapped_cells
from cellmove.dbcopy.database import Row
from cellmove.errors import Refused
from cellmove.hosts.xml import in_file_name
from cellmove.intake import kinds, refusals
from cellmove.intake.found import Actor, Placed, find, locate, make_move, placed, raise_all
from cellmove.intake.volumes import of_volumes, stale_attachments, volumes_of
from cellmove.model import Cell, Disk, Move, Port
from cellmove.services.neutron import by_hand


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


def _finishing(cloud: Cloud, server: str, actor: Actor, request_id: str, *, back: bool) -> Move:
    there = find(cloud, locate(cloud, server))
    found = there.row["uuid"]
    migration = _resized(there)
    home = placed(cloud, _cell_of(cloud, migration["source_compute"]), found)
    ports = cloud.network.ports(found)
    disks = cloud.hosts.reach(home.host.name).disks(found)
    reasons = list(actor.refusals(there.row, policy.REVERT if back else policy.CONFIRM))
    reasons += kinds.of_lock(there.row, actor)
    reasons += list(_finish_reasons(cloud, there, home, migration["uuid"]))
    if back:
        reasons += actor.quota.refusals(cloud, there.row, there.flavor, home.flavor)
        reasons += _revert_reasons(cloud, there, home, ports, disks)
    raise_all(there.row, reasons)
    move = make_move(
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
        nvram=_nvram_at_home(cloud, there, home, actor),
    )
    bound = {port.id: cloud.network.bindings(port.id) for port in ports} if back else {}
    profiles = {
        port: dict(binding.profile)
        for port, bindings in bound.items()
        for binding in bindings
        if binding.host == home.host.name
    }
    return replace(
        move,
        # Its owner may have renamed it since.
        name=there.row["display_name"] or found,
        profiles=profiles,
        volumes=volumes_of(there.records.tables),
        stale_attachments=stale_attachments(home.records.tables, there.records.tables),
    )


def _cell_of(cloud: Cloud, host: str) -> Cell:
    with cloud.api.read() as rows:
        cell_id = api.cell_of_host(rows, host)
        cells = {mapped.cell.id: mapped.cell for mapped in mapped_cells(rows)}
    cell = cells.get(cell_id) if cell_id is not None else None
    if cell is None or cell.uuid not in cloud.cells:
        raise Refused(
            "The server's source cell is not known.",
            f"nova maps {host} to no cell.",
            "The source host must stay mapped until the resize is confirmed or reverted.",
        )
    return cell


def _nvram_at_home(cloud: Cloud, there: Placed, home: Placed, actor: Actor) -> str:
    """Where the old guest's firmware kept its variables: the guest itself is forgotten there."""
    path = kinds.nvram_of(cloud, there.host, there.row["uuid"])
    names = (actor.domain_template % placed.row["id"] for placed in (there, home))
    return in_file_name(path, *names) if path else ""


def _resized(there: Placed) -> Row:
    """The migration of a server that waits to be confirmed or reverted."""
    finished = [row for row in there.records.tables["migrations"] if row["status"] == "finished"]
    migration = next((row for row in finished if row["cross_cell_move"]), None)
    if there.row["vm_state"] == "resized" and migration is None and finished:
        own, server = finished[-1], there.row["uuid"]
        raise Refused(
            "The server was resized within its cell, which is nova's own to end.",
            f"Its migration is from {own['source_compute']} to {own['dest_compute']}.",
            f"Run `openstack server resize confirm {server}`, or `revert` instead of `confirm`.",
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


def _finish_reasons(cloud: Cloud, there: Placed, home: Placed, migration: str) -> Iterator[Refused]:
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
    yield from kinds.of_records(there.records.tables, there.pci_devices)
    if cloud.hosts.reach(home.host.name).domain(there.row["uuid"]) is not None:
        yield Refused(
            f"The old guest is still defined on {home.host.name}.",
            "It may have been started behind nova's back.",
            "Look at that guest before going on.",
        )
    if cloud.hosts.reach(there.host.name).domain(there.row["uuid"]) is None:
        yield Refused(
            f"There is no guest of the server on {there.host.name}.",
            "libvirt does not know it; the old disks may be the only ones.",
            "Hard-reboot the server with nova so that it is defined again.",
        )


def _revert_reasons(
    cloud: Cloud,
    there: Placed,
    home: Placed,
    ports: tuple[Port, ...],
    disks: tuple[Disk, ...],
) -> Iterator[Refused]:
    yield from refusals.of_service(home.service, home.host, must_be_enabled=False)
    on_volume = any(volume.is_root for volume in volumes_of(home.records.tables))
    yield from refusals.of_disks(disks, home.host, boots_from_volume=on_volume)
    rows = home.records.tables["block_device_mapping"]
    reserved = [row["attachment_id"] for row in rows if row["attachment_id"]]
    hosts = (there.host, home.host)
    tables = there.records.tables
    yield from of_volumes(cloud, there.row["uuid"], tables, hosts, known=reserved)
    yield from refusals.of_ports(ports, there.host)
    for port in ports:
        if not any(b.host == home.host.name for b in cloud.network.bindings(port.id)):
            yield Refused(
                f"Port {port.id} has no binding at {home.host.name} to go back to.",
                "Somebody deleted it.",
                f"Create it: `{by_hand('POST', port.id, home.host.name)}`.",
            )
    if not cloud.placement.allocations(_resized(there)["uuid"]).resources:
        yield Refused(
            f"The room on {home.host.name} is no longer held.",
            "The migration has no allocation in Placement.",
            "Confirm the server instead.",
        )
