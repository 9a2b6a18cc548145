"""The two copies of a server between its resize and its confirm or revert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.dbcopy.cells import mapped_cells
from cellmove.dbcopy.compare import Difference, differences
from cellmove.dbcopy.copy import Records, read_records
from cellmove.dbcopy.tables import ACTIONS
from cellmove.errors import Refused
from cellmove.intake.found import locate
from cellmove.model import Cell

BEGINNINGS = ("resize", "migrate")
ENDINGS = ("confirmResize", "revertResize")


@dataclass(frozen=True, slots=True)
class Compared:
    """What two cells say of one server."""

    server: str
    name: str
    here: Cell
    """The cell that owns the server."""
    there: Cell
    found: Sequence[Difference]


def compare(cloud: Cloud, asked: str) -> Compared:
    """What differs between the two cells' records of this server, but for what must.

    Raises:
        Refused: there is no such server, or it is in one cell only.
    """
    server = locate(cloud, asked)
    with cloud.api.read() as rows:
        cells = [each.cell for each in mapped_cells(rows) if each.cell.uuid in cloud.cells]
        mapping = rows.one("instance_mappings", instance_uuid=server)
    copies = [(cell, copy) for cell in cells if (copy := _copy(cloud, cell, server)) is not None]
    if len(copies) != 2:
        names = " and ".join(cell.name or cell.uuid for cell, _ in copies)
        raise Refused(
            f"There are no two copies of server {asked} to compare.",
            f"Its records are in {names}." if names else "No cell has records of it.",
            "A server has two from `cellmove resize` until it is confirmed or reverted.",
        )
    owner = mapping["cell_id"] if mapping is not None else None
    (here, ours), (there, theirs) = sorted(copies, key=lambda each: each[0].id != owner)
    found = differences(ours, theirs, unfinished=_under_way(ours) | _under_way(theirs))
    return Compared(server, ours.instance["display_name"] or server, here, there, found)


def _copy(cloud: Cloud, cell: Cell, server: str) -> Records | None:
    with cloud.cells[cell.uuid].read() as rows:
        there = rows.count("instances", uuid=server, deleted=0)
        return read_records(rows, server) if there else None


def _under_way(records: Records) -> set[str | None]:
    """Requests of the resize that made the copies, and of its end: each cell has its own events."""
    newest = [
        row
        for row in sorted(records.tables[ACTIONS], key=lambda row: str(row["start_time"]))
        if row["action"] in BEGINNINGS + ENDINGS
    ]
    begun = max((n for n, row in enumerate(newest) if row["action"] in BEGINNINGS), default=0)
    return {row["request_id"] for row in newest[begun:]}
