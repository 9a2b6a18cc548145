"""The best hosts looked at closely, one after the other, until nothing speaks against one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.obstacles import obstacles
from cellmove.errors import Refused, StepFailed, Unreachable
from cellmove.hosts.xml import GuestXml
from cellmove.intake import disks as local
from cellmove.intake import kinds, refusals
from cellmove.intake.explained import Explained
from cellmove.intake.found import Placed, raise_all
from cellmove.intake.volumes import of_volumes, of_zones
from cellmove.model import Candidate, Disk, Flavor, Host, Port, ResourceGroup, Volume
from cellmove.steps.allocations import amounts


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a resize before its host is chosen."""

    here: Placed
    new: Flavor
    ports: tuple[Port, ...]
    groups: tuple[ResourceGroup, ...]
    """What its ports' QoS policies guarantee."""
    volumes: tuple[Volume, ...]
    explained: Explained | None
    """Told how hosts are judged, if anybody wants to know."""
    named: bool
    """Whether the operator named the host."""
    one_zone: bool
    """Whether its volumes must be in its host's availability zone."""

    @property
    def on_volume(self) -> bool:
        """Whether it boots from a volume."""
        return any(volume.is_root for volume in self.volumes)

    @property
    def needs(self) -> Mapping[str, int]:
        """Resource class -> amount."""
        return amounts(self.new, boots_from_volume=self.on_volume)


def first_fit(
    cloud: Cloud,
    read: Reading,
    targets: Sequence[Host],
    disks: Callable[[], tuple[Disk, ...]],
    *,
    reasons: Sequence[Refused],
    remark: Callable[[str], None],
) -> tuple[Host, Candidate]:
    """The first of these hosts that nothing speaks against, and how it gives its room.

    `disks` asks the source for the server's. `reasons` are known already, against all of them.
    `remark` is told of those before the first.

    Raises:
        Refused: there is none; every host's reasons are told.
    """
    against: list[Refused] = list(reasons)
    passed: list[str] = []
    for target in targets:
        room, found = _looked_at(cloud, read, target, disks)
        if read.explained is not None:
            read.explained.tried(target, found)
        if not found and not reasons:
            for each in passed:
                remark(each)
            return target, room[0]
        passed.append(f"{target.name} is passed over: {' '.join(map(str, found))}")
        against += [each for each in found if str(each) not in map(str, against)]
    raise_all(read.here.row, against)
    raise AssertionError("there is a reason")


def _looked_at(
    cloud: Cloud, read: Reading, target: Host, disks: Callable[[], tuple[Disk, ...]]
) -> tuple[tuple[Candidate, ...], list[Refused]]:
    """How this host would give its room, and all that speaks against it.

    One that does not answer speaks against itself: there may be others. The services and the
    databases are asked first: meanwhile the ways to the hosts open.

    Raises:
        Unreachable: it does not answer, and it is the one that the operator wants; or it is
            something else that does not answer, which no other host would mend.
    """
    try:
        room = cloud.placement.candidates(target.provider, read.needs, read.groups)
        found = list(_service_reasons(cloud, read, target, room))
    except (Unreachable, StepFailed) as error:
        return (), [_silent(cloud, read, target, error)]
    known = disks()  # of the source: when that fails, no other target would mend it
    try:
        found += _host_reasons(cloud, read, target, known)
    except (Unreachable, StepFailed) as error:
        return (), [_silent(cloud, read, target, error)]
    return room, found


def _silent(cloud: Cloud, read: Reading, target: Host, error: Unreachable | StepFailed) -> Refused:
    if read.named or (isinstance(error, Unreachable) and _answers(cloud, target)):
        raise error
    why = " ".join(part for part in (error.what, error.seen) if part)
    return Refused(f"{target.name} cannot be the target.", why, error.do)


def _answers(cloud: Cloud, target: Host) -> bool:
    try:
        cloud.hosts.reach(target.name).free_bytes()
    except (Unreachable, StepFailed):
        return False
    return True


def _service_reasons(
    cloud: Cloud, read: Reading, target: Host, room: tuple[Candidate, ...]
) -> Iterator[Refused]:
    here, server = read.here, read.here.row["uuid"]
    yield from of_volumes(cloud, server, here.records.tables, (here.host, target))
    if read.one_zone:
        yield from of_zones(cloud, read.volumes, target)
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
    yield from _group_reasons(cloud, server, target)


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
    cloud: Cloud, read: Reading, target: Host, disks: tuple[Disk, ...]
) -> Iterator[Refused]:
    here, new, server = read.here, read.new, read.here.row["uuid"]
    root = next((disk for disk in disks if disk.name == "disk"), None)
    yield from refusals.of_flavors(here.flavor, new, root, boots_from_volume=read.on_volume)
    yield from local.of_sizes(here.flavor, new, disks)
    yield from kinds.of_wish(cloud, here, target, new, read.ports)
    guest = cloud.hosts.reach(here.host.name).domain(server)
    reasons = GuestXml(guest.xml).unsupported() if guest is not None else ()
    yield from refusals.of_guest(guest, reasons, here.row, here.host)
    yield from refusals.of_disks(disks, here.host, boots_from_volume=read.on_volume)
    yield from local.of_checkpoints(
        cloud.hosts.reach(here.host.name).checkpoints(server), here.host
    )
    there = cloud.hosts.reach(target.name)
    yield from local.of_way(cloud, here.host, target, disks)
    yield from local.of_storage(cloud.hosts.reach(here.host.name), there)
    yield from refusals.of_target(
        target,
        there.domain(server),
        has_directory=there.has_directory(server),
        free_bytes=there.free_bytes(),
        needed_bytes=sum(disk.allocated_bytes for disk in disks),
    )
