"""Which notification belongs to which step: the set and the order that nova sends.

Seen on the bus of nova 26 while it moved a server by itself, and read in
compute/manager.py:prep_snapshot_based_resize_at_dest, resize_snapshot_based_at_source...,
conductor/tasks/cross_cell_migrate.py and compute/utils.py:notify_about_resize_prep_instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cellmove.journal import Mark, Verb
from cellmove.steps import confirm, revert, source_cell, target_cell

Where = Literal["source", "target"]


@dataclass(frozen=True, slots=True)
class Event:
    """One notification."""

    name: str
    publisher: Literal["source", "target", "conductor"]
    """Whose nova-compute says it. nova's conductor, too, calls itself nova-compute."""
    cell: Where
    """In which cell the server is read."""
    payload: Literal["action", "prep", "exists"] = "action"
    lists_volumes: bool = False
    """Whether nova hands the volumes to it; else it says null."""


Key = tuple[Verb, str, Mark]

EVENTS: Final[Mapping[Key, tuple[Event, ...]]] = {
    ("resize", target_cell.WriteTargetClaim.name, Mark.BEGUN): (
        Event("instance.exists", "target", "source", "exists"),
        Event("instance.resize_prep.start", "target", "source", "prep"),
    ),
    ("resize", target_cell.WriteTargetClaim.name, Mark.DONE): (
        Event("instance.resize_prep.end", "target", "source", "prep"),
    ),
    ("resize", source_cell.BeginAtSource.name, Mark.DONE): (
        Event("instance.resize.start", "source", "source", lists_volumes=True),
    ),
    ("resize", source_cell.FinishAtSource.name, Mark.DONE): (
        Event("instance.resize.end", "source", "source", lists_volumes=True),
    ),
    ("resize", target_cell.BeginAtTarget.name, Mark.DONE): (
        Event("instance.resize_finish.start", "target", "target", lists_volumes=True),
    ),
    ("resize", target_cell.FinishAtTarget.name, Mark.DONE): (
        Event("instance.resize_finish.end", "target", "target", lists_volumes=True),
    ),
    ("confirm", confirm.BeginConfirm.name, Mark.DONE): (
        Event("instance.resize_confirm.start", "conductor", "source"),
    ),
    ("confirm", confirm.FinishConfirm.name, Mark.DONE): (
        Event("instance.resize_confirm.end", "conductor", "target"),
    ),
    ("revert", revert.BeginRevert.name, Mark.DONE): (
        Event("instance.resize_revert.start", "conductor", "target"),
    ),
    ("revert", revert.CarryStateHome.name, Mark.DONE): (
        Event("instance.exists", "target", "target", "exists"),
    ),
    ("revert", revert.DeleteTargetRecords.name, Mark.DONE): (
        Event("instance.resize_revert.end", "conductor", "source"),
    ),
}
