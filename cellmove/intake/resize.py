"""Taking in a resize: where to, and every reason against it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cellmove import policy
from cellmove.choosing import Ranking
from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import mapped_cells
from cellmove.dbcopy.obstacles import obstacles
from cellmove.errors import Refused
from cellmove.hosts.xml import GuestXml
from cellmove.intake import disks as local
from cellmove.intake import kinds, refusals
from cellmove.intake.explained import Explained
from cellmove.intake.found import Actor, Placed, among, find, locate, make_move, raise_all
from cellmove.intake.ranking import SameCell, best_elsewhere, cells_to_look_at, rank_hosts
from cellmove.intake.volumes import of_volumes, volumes_of
from cellmove.model import Candidate, Disk, Flavor, Host, Move, Port, ResourceGroup, Volume
from cellmove.steps.allocations import amounts
from cellmove.steps.network import profile_there

MOST_HOSTS = 3
"""As nova: the best host and two alternates (`[scheduler]max_attempts`)."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is known of a resize before its host is chosen."""

    here: Placed
    new: Flavor
    ports: tuple[Port, ...]
    groups: tuple[ResourceGroup, ...]
    """What its ports' QoS policies guarantee."""
    volumes: tuple[Volume, ...]
    explained: Explained | None
    """Told how hosts are judged, if anybody wants to know."""

    @property
    def on_volume(self) -> bool:
        """Whether it boots from a volume."""
        return any(volume.is_root for volume in self.volumes)

    @property
    def needs(self) -> Mapping[str, int]:
        """Resource class -> amount."""
        return amounts(self.new, boots_from_volume=self.on_volume)


@dataclass(frozen=True, slots=True)
class _Choice:
    """How a host is to be chosen."""

    actor: Actor
    to_cell: str | None
    without: Collection[str]


def intake_resize(
    cloud: Cloud,
    server: str,
    *,
    flavor: str | None,
    to_host: str | None,
    to_cell: str | None,
    actor: Actor,
    request_id: str,
    cold: bool = False,
    without: Collection[str] = (),
    explained: Explained | None = None,
) -> Move:
    """What a resize (or, without a flavor, a cold migration) of this server would be.

    Without a named host, the best one is taken for which nothing speaks against the move; not
    one of `without`, where it was tried already. `explained` is told how every host was judged.

    Raises:
        Refused: it cannot be done; Refusals when there are several reasons.
    """
    here = find(cloud, locate(cloud, server))
    rules = (policy.CROSS_CELL, policy.MIGRATE if flavor is None else policy.RESIZE)
    reasons = [*actor.refusals(here.row, *rules), *_here_reasons(cloud, here, actor)]
    with among(here.row, reasons):
        new = here.flavor
        try:
            new = wanted_flavor(cloud, here, flavor)
        except Refused as error:  # there is more to look at
            reasons.append(error)
        reasons += actor.quota.refusals(cloud, here.row, here.flavor, new)
        read = _read(cloud, here, new, explained)
        choice = _Choice(actor, to_cell, without)
        if to_host:
            if explained is not None:
                _ranked(cloud, read, choice)
            targets: Sequence[Host] = (_named(cloud, here, to_host, to_cell),)
        else:
            targets = _chosen(cloud, read, choice)
    cloud.hosts.expect(*(host.name for host in targets[:1]))
    source, runs = cloud.hosts.reach(here.host.name), here.row["vm_state"] == "active"
    disks = source.disks(here.row["uuid"])
    target, room = _first_fit(cloud, read, targets, disks, reasons)
    move = make_move(
        here,
        actor,
        request_id,
        kind="migration" if flavor is None else "resize",
        source=here.host,
        target=target,
        migration=str(uuid.uuid4()),
        flavors=(here.flavor, new),
        vm_state=here.row["vm_state"],
        ports=read.ports,
        disks=local.ways(source, here.row["uuid"], disks, runs=runs, cold=cold),
        nvram=kinds.nvram_of(cloud, here.host, here.row["uuid"]),
    )
    profiles = _profiles(read.ports, read.groups, room)
    return replace(move, claim=room.resources, profiles=profiles, volumes=read.volumes)


def _read(cloud: Cloud, here: Placed, new: Flavor, explained: Explained | None) -> _Reading:
    server = here.row["uuid"]
    ports = cloud.network.ports(server)
    wanted = any(port.has_resource_request for port in ports)
    groups = tuple(cloud.network.resource_groups(server)) if wanted else ()
    return _Reading(here, new, ports, groups, volumes_of(here.records.tables), explained)


def _chosen(cloud: Cloud, read: _Reading, choice: _Choice) -> Sequence[Host]:
    """The best host of another cell, and the next best ones of that cell."""
    ranking = _ranked(cloud, read, choice)
    best_elsewhere(ranking, read.here.cell)
    return ranking.alternates(MOST_HOSTS)


def _ranked(cloud: Cloud, read: _Reading, choice: _Choice) -> Ranking:
    with cloud.api.read() as rows:
        mapped = mapped_cells(rows)
    ranking = rank_hosts(
        cloud,
        read.here,
        read.new,
        cells=cells_to_look_at(mapped, read.here.cell, choice.to_cell),
        named=choice.to_cell is not None,
        needs=read.needs,
        groups=read.groups,
        by=choice.actor.multipliers,
        without=choice.without,
        mapped=mapped if read.explained is not None else (),
    )
    if read.explained is not None:
        read.explained.judged(cloud, read.here, read.new, read.needs, ranking)
    return ranking


def _first_fit(
    cloud: Cloud,
    read: _Reading,
    targets: Sequence[Host],
    disks: tuple[Disk, ...],
    reasons: Sequence[Refused],
) -> tuple[Host, Candidate]:
    """The first of these hosts that nothing speaks against, and how it gives its room.

    Raises:
        Refused: there is none; every host's reasons are told.
    """
    against: list[Refused] = list(reasons)
    for target in targets:
        room = cloud.placement.candidates(target.provider, read.needs, read.groups)
        found = list(_resize_reasons(cloud, read, target, room=room, disks=disks))
        if read.explained is not None:
            read.explained.tried(target, found)
        if not found and not reasons:
            return target, room[0]
        against += [each for each in found if str(each) not in map(str, against)]
    raise_all(read.here.row, against)
    raise AssertionError("there is a reason")


def _profiles(
    ports: tuple[Port, ...], groups: Sequence[ResourceGroup], room: Candidate
) -> dict[str, dict[str, object]]:
    """Profiles of the bindings at the target, with the providers that are to serve each port."""
    chosen: dict[str, dict[str, str]] = {port.id: {} for port in ports}
    for group in groups:
        chosen[group.port][group.id] = room.chosen[group.id]
    return {port.id: profile_there(port.profile, chosen[port.id]) for port in ports}


def wanted_flavor(cloud: Cloud, here: Placed, wanted: str | None) -> Flavor:
    """The flavor that was asked for by id or name; None: the server's own.

    Raises:
        Refused: there is none, or the server has it.
    """
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


def _named(cloud: Cloud, here: Placed, to_host: str, to_cell: str | None) -> Host:
    """The host that the operator named, in its cell.

    Raises:
        Refused: it cannot be the target.
    """
    with cloud.api.read() as rows:
        cells = [m for m in mapped_cells(rows) if not m.is_cell0]
        cell_id = api.cell_of_host(rows, to_host)
        zone = api.zone_of_host(rows, to_host)
    mapped = next((m for m in cells if m.cell.id == cell_id), None)
    if mapped is None:
        raise Refused(
            f"nova knows no host {to_host!r}.",
            "No cell has a mapping of it.",
            "See `openstack hypervisor list`.",
        )
    if mapped.disabled:
        raise Refused(
            f"Host {to_host} cannot be the target.",
            f"Its cell, {mapped.cell.name}, is disabled.",
            "Choose a host of another cell.",
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
    if mapped.cell == here.cell:
        raise SameCell(
            found,
            f"Host {to_host} cannot be the target.",
            f"Its cell, {mapped.cell.name}, is the server's own cell.",
            "Add --same-cell nova to have nova move it there, or choose a host of another cell.",
        )
    return found


def _here_reasons(cloud: Cloud, here: Placed, actor: Actor) -> Iterator[Refused]:
    """What is against a move wherever it goes."""
    yield from kinds.of_lock(here.row, actor)
    yield from kinds.of_server(cloud, here)
    yield from refusals.of_state(here.row)
    yield from refusals.of_service(here.service, here.host, must_be_enabled=False)
    yield from refusals.of_neutron(has_bindings=cloud.network.has_extension(refusals.EXTENSION))


def _resize_reasons(
    cloud: Cloud,
    read: _Reading,
    target: Host,
    *,
    room: tuple[Candidate, ...],
    disks: tuple[Disk, ...],
) -> Iterator[Refused]:
    here, new, server = read.here, read.new, read.here.row["uuid"]
    yield from of_volumes(cloud, server, here.records.tables, (here.host, target))
    root = next((disk for disk in disks if disk.name == "disk"), None)
    yield from refusals.of_flavors(here.flavor, new, root, boots_from_volume=read.on_volume)
    yield from local.of_sizes(here.flavor, new, disks)
    with cloud.cells[target.cell.uuid].read() as rows:
        service = api.compute_service(rows, target.name)
    yield from refusals.of_service(service, target, must_be_enabled=True)
    yield from obstacles(cloud.cells[here.cell.uuid], cloud.cells[target.cell.uuid], server)
    yield from refusals.of_ports(read.ports, here.host)
    held = cloud.placement.allocations(server)
    own = here.host.provider
    near = {own} if set(held.resources) == {own} else cloud.placement.providers(own)
    yield from refusals.of_allocations(held, near, here.host)
    free = {} if room else cloud.placement.free(target.provider)
    yield from refusals.of_room(room, read.needs, free, target)
    yield from kinds.of_wish(cloud, here, target, new, read.ports)
    yield from _group_reasons(cloud, server, target)
    yield from _host_reasons(cloud, read, target, disks)


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
    cloud: Cloud, read: _Reading, target: Host, disks: tuple[Disk, ...]
) -> Iterator[Refused]:
    here, server = read.here, read.here.row["uuid"]
    guest = cloud.hosts.reach(here.host.name).domain(server)
    reasons = GuestXml(guest.xml).unsupported() if guest is not None else ()
    yield from refusals.of_guest(guest, reasons, here.row, here.host)
    yield from refusals.of_disks(disks, here.host, boots_from_volume=read.on_volume)
    yield from local.of_checkpoints(
        cloud.hosts.reach(here.host.name).checkpoints(server), here.host
    )
    there = cloud.hosts.reach(target.name)
    yield from refusals.of_target(
        target,
        there.domain(server),
        has_directory=there.has_directory(server),
        free_bytes=there.free_bytes(),
        needed_bytes=sum(disk.allocated_bytes for disk in disks),
    )
