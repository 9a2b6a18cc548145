"""The servers of all cells, each once, as nova's API lists them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.cells import CELL0, mapped_cells
from cellmove.dbcopy.database import Row
from cellmove.dbcopy.servers import shown_servers
from cellmove.errors import Refused
from cellmove.model import Cell

_REBUILD = dict.fromkeys(
    ("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD"
)
_RESIZE = dict.fromkeys(
    ("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE"
)
_SOFT = dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "REBOOT")
_HARD = ("rebooting_hard", "reboot_pending_hard", "reboot_started_hard")
_MIGRATING = {"migrating": "MIGRATING"}

STATUSES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "active": (
        "ACTIVE",
        _REBUILD
        | _RESIZE
        | _SOFT
        | dict.fromkeys(_HARD, "HARD_REBOOT")
        | _MIGRATING
        | {"updating_password": "PASSWORD"},
    ),
    "building": ("BUILD", {}),
    "stopped": ("SHUTOFF", _RESIZE | _REBUILD),
    "resized": ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    "paused": ("PAUSED", _MIGRATING),
    "suspended": ("SUSPENDED", {}),
    "rescued": ("RESCUE", {}),
    "error": ("ERROR", _REBUILD),
    "deleted": ("DELETED", {}),
    "soft-delete": ("SOFT_DELETED", {}),
    "shelved": ("SHELVED", {}),
    "shelved_offloaded": ("SHELVED_OFFLOADED", {}),
}
"""vm_state -> what nova's API says, and what it says instead in a task_state.

nova 26: api/openstack/common.py:status_from_state.
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """One server of the list."""

    server: str
    name: str
    project_id: str
    status: str
    """As nova's API has it."""
    host: str
    """Empty: none."""
    cell: Cell
    flavor: str


def status_of(vm_state: str | None, task_state: str | None) -> str:
    """What nova's API calls a server in these states."""
    usual, during = STATUSES.get(vm_state or "", ("UNKNOWN", {}))
    return during.get(task_state or "", usual)


def listing(
    cloud: Cloud,
    *,
    cell: str | None = None,
    host: str | None = None,
    project_id: str | None = None,
) -> list[Listed]:
    """All servers that nova's API lists of these cells, newest first.

    Statements grow with the number of cells alone. Left out are servers that are in no cell: those
    being built, and those that were never placed (cell0).

    Raises:
        Refused: there is no such cell or host.
        Unreachable: a cell's database does not answer.
    """
    cells = _cells(cloud, cell, host)
    with ExitStack() as stack:
        # All snapshots before the first row: a server that changes its cell meanwhile is seen in
        # one of them at least, for it is shown in the new cell before it is hidden in the old one.
        opened = [(each, stack.enter_context(cloud.cells[each.uuid].read())) for each in cells]
        found = [
            (str(row["created_at"] or ""), _listed(row, each))
            for each, rows in opened
            for row in shown_servers(rows, host=host, project_id=project_id)
        ]
    found.sort(key=lambda dated: (dated[0], dated[1].server), reverse=True)
    return _once(cloud, [listed for _, listed in found])


def _once(cloud: Cloud, found: Sequence[Listed]) -> list[Listed]:
    """While two cells show a server, the mapping decides."""
    counts: dict[str, int] = {}
    for each in found:
        counts[each.server] = counts.get(each.server, 0) + 1
    twice = [server for server, count in counts.items() if count > 1]
    if not twice:
        return list(found)
    with cloud.api.read() as rows:
        mapped = {
            row["instance_uuid"]: row["cell_id"]
            for row in rows.all("instance_mappings", instance_uuid=twice)
        }
    chosen = {each.server: each for each in found if mapped.get(each.server) == each.cell.id}
    return list({each.server: chosen.get(each.server, each) for each in found}.values())


def _cells(cloud: Cloud, cell: str | None, host: str | None) -> list[Cell]:
    with cloud.api.read() as rows:
        known = [each.cell for each in mapped_cells(rows) if each.cell.uuid != CELL0]
        of_host = None if host is None else api.cell_of_host(rows, host)
    if host is not None and of_host is None:
        raise Refused(
            f"There is no host {host!r}.",
            "nova maps it to no cell.",
            "See `openstack compute service list`.",
        )
    wanted = [each for each in known if cell in (None, each.uuid, each.name)]
    if not wanted:
        raise Refused(
            f"There is no cell {cell!r}.", f"There are {_names(known)}.", "Name one of them."
        )
    return [each for each in wanted if of_host in (None, each.id)]


def _listed(row: Row, cell: Cell) -> Listed:
    return Listed(
        row["uuid"],
        row["display_name"] or "",
        # Said of thousands, kept once.
        sys.intern(row["project_id"] or ""),
        status_of(row["vm_state"], row["task_state"]),
        sys.intern(row["host"] or ""),
        cell,
        sys.intern(row["flavor"]),
    )


def _names(cells: Iterable[Cell]) -> str:
    return ", ".join(each.name or each.uuid for each in cells)
