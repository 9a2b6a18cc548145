"""The filters: each says why a host cannot take the server, or nothing.

They are those that nova's scheduler has by default, and those that keep hosts for some projects,
images or traits: these say nothing until somebody has written such metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from cellmove.choosing.facts import Candidate, Wish
from cellmove.choosing.images import (
    has_traits_of_aggregates,
    has_version,
    is_isolated_alike,
    runs_image,
    suits_aggregates,
)
from cellmove.choosing.operators import match

Filter = Callable[[Candidate, Wish], str]
"""The reason against this host; empty when there is none."""

TENANT_KEY = "filter_tenant_id"
"""Metadata of an aggregate whose hosts are for some projects only; any suffix may follow."""
AGGREGATE_SCOPE = "aggregate_instance_extra_specs:"
CAPABILITY_SCOPE = "capabilities:"


def is_elsewhere(candidate: Candidate, wish: Wish) -> str:
    """The server's own host is no target."""
    return "the server is there already" if candidate.host.name == wish.source.name else ""


def is_wanted_cell(candidate: Candidate, wish: Wish) -> str:
    """Only the cells that were asked for."""
    if wish.cells is None or candidate.host.cell in wish.cells:
        return ""
    return f"it is in cell {candidate.host.cell.name}"


def takes_servers(candidate: Candidate, _wish: Wish) -> str:
    """Its nova-compute is up, enabled and new enough."""
    return candidate.unfit


def is_in_zone(candidate: Candidate, wish: Wish) -> str:
    """The zone that the owner asked for when the server was made."""
    if not wish.zone or candidate.host.zone == wish.zone:
        return ""
    return f"it is in zone {candidate.host.zone}, the server's owner asked for {wish.zone}"


def has_room(candidate: Candidate, wish: Wish) -> str:
    """Placement has room and the traits."""
    return "" if candidate.host.provider in wish.roomy else "Placement has no room or trait there"


def is_open_to_project(candidate: Candidate, wish: Wish) -> str:
    """Hosts of an aggregate for some projects take only these.

    nova 26: scheduler/filters/aggregate_multitenancy_isolation.py, and request_filter.py.
    """
    allowed = {
        project.strip()
        for aggregate in candidate.aggregates
        for key, value in aggregate.metadata.items()
        if key.startswith(TENANT_KEY)
        for project in value.split(",")
    }
    if not allowed or wish.project_id in allowed:
        return ""
    return "its aggregate is for other projects"


def matches_aggregates(candidate: Candidate, wish: Wish) -> str:
    """The flavor's `aggregate_instance_extra_specs:` are in the metadata of an aggregate.

    nova's filter takes specs without a scope too; it is not on by default, and then they mean
    nothing.
    """
    for key, wanted in wish.flavor.extra_specs.items():
        if not key.startswith(AGGREGATE_SCOPE):
            continue
        name = key.removeprefix(AGGREGATE_SCOPE)
        if not any(match(value, wanted) for value in candidate.metadata(name)):
            return f"no aggregate of it has {name} as {wanted}"
    return ""


def matches_capabilities(candidate: Candidate, wish: Wish) -> str:
    """The flavor's `capabilities:` hold.

    nova 26: scheduler/filters/compute_capabilities_filter.py.
    """
    for key, wanted in wish.flavor.extra_specs.items():
        if not key.startswith(CAPABILITY_SCOPE):
            continue
        name = key.removeprefix(CAPABILITY_SCOPE)
        found = _capability(candidate.capabilities, name.split(":"))
        if found is None or not match(str(found), wanted):
            return f"its {name} is {'unknown' if found is None else found}, not {wanted}"
    return ""


def keeps_group(candidate: Candidate, wish: Wish) -> str:
    """The policy of the server's group holds, counted over all cells.

    nova 26: scheduler/filters/affinity_filter.py.
    """
    here = wish.group_hosts.get(candidate.host.name, 0)
    if wish.group_policy == "anti-affinity" and here >= wish.group_limit:
        return "a member of its anti-affine group is there"
    if wish.group_policy == "affinity" and wish.group_hosts and not here:
        return "its affine group is elsewhere"
    return ""


FILTERS: Mapping[str, Filter] = {
    "elsewhere": is_elsewhere,
    "cell": is_wanted_cell,
    "service": takes_servers,
    "zone": is_in_zone,
    "project": is_open_to_project,
    "aggregate": matches_aggregates,
    "capabilities": matches_capabilities,
    "image": runs_image,
    "version": has_version,
    "image-aggregate": suits_aggregates,
    "trait-aggregate": has_traits_of_aggregates,
    "isolated": is_isolated_alike,
    "group": keeps_group,
    "room": has_room,
}
"""By the name that `--explain` shows, in the order in which they are asked."""


def _capability(known: object, path: list[str]) -> object | None:
    for part in path:
        if isinstance(known, str):
            try:
                known = json.loads(known)
            except ValueError:
                return None
        if not isinstance(known, Mapping):
            return None
        known = known.get(part)
    return known
