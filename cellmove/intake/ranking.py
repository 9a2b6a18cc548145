"""What the choice of a host is made from: read once, however many hosts there are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from cellmove.choosing import Aggregate, Candidate, Multipliers, Ranking, Wish, rank
from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import MappedCell
from cellmove.dbcopy.fleet import Member, read_fleet
from cellmove.errors import Refused
from cellmove.intake.found import Placed
from cellmove.intake.refusals import of_service
from cellmove.model import Cell, Flavor, Host, ResourceGroup

IMAGE_PREFIX = "image_"
"""nova keeps the image's properties under it in the system metadata."""
TRAIT_PREFIX = "trait:"


class SameCell(Refused):
    """The host to be is in the server's own cell, where nova resizes it by itself."""

    def __init__(self, host: Host, what: str, seen: str, do: str) -> None:
        super().__init__(what, seen, do)
        self.host = host


def rank_hosts(
    cloud: Cloud,
    here: Placed,
    new: Flavor,
    *,
    cells: Sequence[Cell],
    named: bool,
    needs: Mapping[str, int],
    groups: Sequence[ResourceGroup] = (),
    by: Multipliers,
    without: Collection[str] = (),
    mapped: Sequence[MappedCell] = (),
) -> Ranking:
    """Every host of these cells judged for this server.

    `named`: the operator named the cell; else the server's own is among them, and preferred.
    `without`: hosts that are not looked at, by name. `mapped`: cells whose hosts are told of too,
    though they cannot be chosen.
    """
    image = _image(here)
    wanted = {**image, **new.extra_specs}
    traits = {
        key.removeprefix(TRAIT_PREFIX): how
        for key, how in wanted.items()
        if key.startswith(TRAIT_PREFIX)
    }
    group = _group(cloud, here.row["uuid"])
    wish = Wish(
        flavor=new,
        source=here.host,
        project_id=here.row["project_id"],
        zone=_asked_zone(cloud, here.row["uuid"]),
        image=image,
        isolated=here.row["image_ref"] in by.isolated_images,
        group_policy=group.policy if group else "",
        group_limit=group.max_per_host if group else 1,
        group_hosts=_group_hosts(cloud, here.row["uuid"], group),
        roomy=cloud.placement.roomy(
            needs,
            groups,
            required=[name for name, how in traits.items() if how == "required"],
            forbidden=[name for name, how in traits.items() if how == "forbidden"],
        ),
        cells=tuple(cells) if named else None,
    )
    shown = [each.cell for each in mapped if each.cell.uuid in cloud.cells and not each.is_cell0]
    closed = {each.cell for each in mapped if each.disabled}
    fleet = read_fleet(cloud.api, cloud.cells, shown or cells)
    left = (member for member in fleet if member.host.name not in without)
    return rank((candidate_of(member, closed, by.isolated_hosts) for member in left), wish, by)


def cells_to_look_at(
    mapped: Sequence[MappedCell], own: Cell, to_cell: str | None
) -> tuple[Cell, ...]:
    """The cell that was named, or all that nova may schedule into; the server's own only then.

    Raises:
        Refused: there is no such cell, or it cannot be the target.
    """
    enabled = tuple(each.cell for each in mapped if not each.is_cell0 and not each.disabled)
    if to_cell is None:
        return enabled
    found = next((m for m in mapped if to_cell in (m.cell.name, m.cell.uuid)), None)
    if found is None or found.cell not in enabled or found.cell == own:
        why = "No cell has this name or UUID."
        if found is not None:
            why = "It is the server's own cell." if found.cell == own else "It is disabled."
        names = ", ".join(cell.name for cell in enabled if cell != own) or "none"
        raise Refused(
            f"Cell {to_cell!r} cannot be the target.", why, f"Cells to choose from: {names}."
        )
    return (found.cell,)


def best_elsewhere(ranking: Ranking, own: Cell) -> Host:
    """The best host, if it is in another cell.

    Raises:
        Refused: none is fit, or the best is in the server's own cell, where nova does it better.
    """
    if ranking.best is None:
        raise Refused(
            "No host can take the server.",
            "; ".join(f"{each.host.name}: {each.why}" for each in ranking.dropped)
            or "There is none.",
            "Make room on one of them, or choose a smaller flavor.",
        )
    if ranking.best.cell == own:
        raise SameCell(
            ranking.best,
            f"The best host for the server is {ranking.best.name}, in its own cell {own.name}.",
            "Within a cell nova's own resize does it, and hosts there are preferred.",
            "Add --same-cell nova to have nova do it, or name another cell with --to-cell.",
        )
    return ranking.best


def candidate_of(
    member: Member, closed: Collection[Cell] = (), isolated: Collection[str] = ()
) -> Candidate:
    """A hypervisor as the filters judge it; `closed`: disabled cells; `isolated`: hosts' names."""
    reasons = of_service(member.service, member.host, must_be_enabled=True)
    unfit = [f"cell {member.host.cell.name} is disabled"] if member.host.cell in closed else []
    unfit += [reason.what.rstrip(".") for reason in reasons]
    return Candidate(
        host=member.host,
        unfit="; ".join(unfit),
        aggregates=tuple(Aggregate(name, metadata) for name, metadata in member.aggregates),
        supports=member.supports,
        capabilities=member.capabilities,
        free_ram_mb=member.node["free_ram_mb"] or 0,
        free_vcpus=member.free_vcpus,
        free_disk_mb=member.free_disk_mb,
        isolated=member.host.name in isolated,
    )


def _image(here: Placed) -> dict[str, str]:
    return {
        row["key"].removeprefix(IMAGE_PREFIX): row["value"] or ""
        for row in here.records.tables["instance_system_metadata"]
        if row["key"].startswith(IMAGE_PREFIX)
    }


def _asked_zone(cloud: Cloud, server: str) -> str | None:
    with cloud.api.read() as rows:
        spec = api.request_spec(rows, server)
    found = json.loads(spec)["nova_object.data"].get("availability_zone") if spec else None
    return str(found) if found else None


def _group(cloud: Cloud, server: str) -> api.ServerGroup | None:
    with cloud.api.read() as rows:
        return api.server_group(rows, server)


def _group_hosts(cloud: Cloud, server: str, group: api.ServerGroup | None) -> Mapping[str, int]:
    """Hidden copies count: their host still owes them its room."""
    others = [member for member in group.members if member != server] if group else []
    found: Counter[str] = Counter()
    for database in cloud.cells.values() if others else ():
        with database.read() as rows:
            members = rows.all("instances", uuid=others, deleted=0)
            found.update(row["host"] for row in members if row["host"])
    return found
