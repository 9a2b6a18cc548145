"""Taking in a resize: where to, and every reason against it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache

from cellmove import policy
from cellmove.choosing import Ranking
from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import mapped_cells
from cellmove.errors import Refused
from cellmove.intake import disks as local
from cellmove.intake import kinds, refusals
from cellmove.intake.explained import Explained
from cellmove.intake.fitting import Reading, first_fit
from cellmove.intake.found import Actor, Placed, among, find, locate, make_move
from cellmove.intake.ranking import SameCell, best_elsewhere, cells_to_look_at, rank_hosts
from cellmove.intake.volumes import volumes_of
from cellmove.model import Candidate, Flavor, Host, Move, Port, ResourceGroup
from cellmove.steps.network import profile_there

MOST_HOSTS = 3
"""As nova: the best host and two alternates (`[scheduler]max_attempts`)."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """How a host is to be chosen."""

    actor: Actor
    to_cell: str | None
    without: Collection[str]


def _unsaid(_text: str) -> None:
    """Nobody wants to hear it."""


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
    flatten: bool = False,
    without: Collection[str] = (),
    explained: Explained | None = None,
    remark: Callable[[str], None] = _unsaid,
) -> Move:
    """What a resize (or, without a flavor, a cold migration) of this server would be.

    Without a named host, the best one is taken for which nothing speaks against the move; not
    one of `without`, where it was tried already. `explained` is told how every host was judged,
    `remark` of better hosts that were passed over once somebody had looked at them.

    Raises:
        Refused: it cannot be done; Refusals when there are several reasons.
    """
    here = find(cloud, locate(cloud, server))
    rules = (policy.CROSS_CELL, policy.MIGRATE if flavor is None else policy.RESIZE)
    reasons = _here_reasons(cloud, here, actor, *rules)
    with among(here.row, reasons):
        new = here.flavor
        try:
            new = wanted_flavor(cloud, here, flavor)
        except Refused as error:  # there is more to look at
            reasons.append(error)
        reasons += actor.quota.refusals(cloud, here.row, here.flavor, new)
        read = _read(cloud, here, new, explained, actor, named=bool(to_host))
        targets = _targets(cloud, read, _Choice(actor, to_cell, without), to_host)
    cloud.hosts.expect(*(host.name for host in targets[:1]))
    ask = cache(lambda: cloud.hosts.reach(here.host.name).disks(here.row["uuid"]))
    target, room = first_fit(cloud, read, targets, ask, reasons=reasons, remark=remark)
    source, there = cloud.hosts.reach(here.host.name), cloud.hosts.reach(target.name)
    disks = local.chains(source, there, here.row, ask(), flatten=flatten)
    runs = here.row["vm_state"] == "active"
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


def _read(
    cloud: Cloud,
    here: Placed,
    new: Flavor,
    explained: Explained | None,
    actor: Actor,
    *,
    named: bool,
) -> Reading:
    server = here.row["uuid"]
    ports = cloud.network.ports(server)
    wanted = any(port.has_resource_request for port in ports)
    groups = tuple(cloud.network.resource_groups(server)) if wanted else ()
    volumes, one_zone = volumes_of(here.records.tables), not actor.cross_az_attach
    return Reading(here, new, ports, groups, volumes, explained, named, one_zone)


def _targets(cloud: Cloud, read: Reading, choice: _Choice, to_host: str | None) -> Sequence[Host]:
    """The named host, or else the best ones."""
    if not to_host:
        return _chosen(cloud, read, choice)
    if read.explained is not None:
        _ranked(cloud, read, choice)
    return (_named(cloud, read.here, to_host, choice.to_cell),)


def _chosen(cloud: Cloud, read: Reading, choice: _Choice) -> Sequence[Host]:
    """The best host of another cell, and the next best ones of that cell."""
    ranking = _ranked(cloud, read, choice)
    best_elsewhere(ranking, read.here.cell)
    return ranking.alternates(MOST_HOSTS)


def _ranked(cloud: Cloud, read: Reading, choice: _Choice) -> Ranking:
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


def _here_reasons(cloud: Cloud, here: Placed, actor: Actor, *rules: str) -> list[Refused]:
    """What is against a move wherever it goes.

    The rules are told first and read last: that takes long, and a service is asked meanwhile.
    """
    others = [
        *kinds.of_lock(here.row, actor),
        *kinds.of_server(cloud, here),
        *refusals.of_state(here.row),
        *refusals.of_service(here.service, here.host, must_be_enabled=False),
        *refusals.of_neutron(has_bindings=cloud.network.has_extension(refusals.EXTENSION)),
    ]
    return [*actor.refusals(here.row, *rules), *others]
