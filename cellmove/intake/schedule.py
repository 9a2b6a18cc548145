"""Choosing a target when none is named: up, enabled, in another cell, with the most room."""

from __future__ import annotations

from collections.abc import Iterable

from cellmove.cloud import Cloud
from cellmove.dbcopy.api import compute_service, host, hosts_of_cell, zone_of_host
from cellmove.errors import Refused
from cellmove.model import Cell, Flavor, Host
from cellmove.steps.allocations import amounts


def choose(cloud: Cloud, cells: Iterable[Cell], flavor: Flavor) -> Host:
    """The host of these cells with the most free memory among those that have room.

    Raises:
        Refused: none has; every host is named with its reason.
    """
    fits: list[tuple[int, str, Host]] = []
    dropped: list[str] = []
    for candidate, why in _candidates(cloud, cells):
        free = {} if why else cloud.placement.free(candidate.provider)
        short = [name for name, need in amounts(flavor).items() if free.get(name, 0) < need]
        if why or short:
            dropped.append(f"{candidate.name}: {why or 'too little ' + ', '.join(short)}")
        else:
            fits.append((-free["MEMORY_MB"], candidate.name, candidate))
    if not fits:
        raise Refused(
            "No host of another cell can take the server.",
            "; ".join(dropped) or "There is none.",
            "Make room on one of them, or choose a smaller flavor.",
        )
    return min(fits)[2]


def _candidates(cloud: Cloud, cells: Iterable[Cell]) -> list[tuple[Host, str]]:
    """Every host of these cells, with the reason that rules it out before Placement is asked."""
    found = []
    for cell in cells:
        with cloud.api.read() as api, cloud.cells[cell.uuid].read() as rows:
            for name in hosts_of_cell(api, cell):
                candidate = host(rows, name, cell, zone_of_host(api, name))
                service = compute_service(rows, name)
                if candidate is None:
                    continue
                why = ""
                if service is None or not service.is_up():
                    why = "nova-compute is not up"
                elif service.disabled:
                    why = "nova-compute is disabled"
                found.append((candidate, why))
    return found
