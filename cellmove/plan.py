"""The scores: each verb as a tuple of step classes, in the order in which they are run.

All that can be refused is found before the guest stops; destruction comes last.
"""

from __future__ import annotations

from cellmove.journal import Verb
from cellmove.model import Move
from cellmove.steps import (
    allocations,
    api,
    confirm,
    disks,
    guests,
    network,
    revert,
    source_cell,
    target_cell,
    wiring,
)
from cellmove.steps.base import Step

RESIZE: tuple[type[Step], ...] = (
    # Claim: nothing is felt by the guest.
    source_cell.GuardServer,
    source_cell.OpenMigration,
    allocations.HoldSourceAllocation,
    allocations.ClaimTarget,
    target_cell.CopyRecords,
    network.BindPorts,
    target_cell.WriteTargetClaim,
    source_cell.WriteSourceClaim,
    disks.MakeTargetDirectory,
    guests.DefineTargetGuest,
    # The guest stops, and its disks cross.
    source_cell.BeginAtSource,
    guests.StopSourceGuest,
    disks.CopyDisks,
    guests.ForgetSourceGuest,
    wiring.UnplugSourcePorts,
    network.ActivateTargetBindings,
    source_cell.FinishAtSource,
    # It starts at the target.
    target_cell.BeginAtTarget,
    wiring.PlugTargetPorts,
    guests.StartTargetGuest,
    target_cell.FinishAtTarget,
    # The switch: shown before the mapping moves, hidden after it.
    target_cell.ShowTarget,
    api.PointMapping,
    source_cell.HideSource,
    api.UpdateRequestSpec,
    source_cell.CloseSourceEvents,
    target_cell.CloseTargetEvents,
)

CONFIRM: tuple[type[Step], ...] = (
    confirm.BeginConfirm,
    # From here on only forward.
    disks.RemoveSourceDisks,
    network.DeleteSourceBindings,
    allocations.ReleaseSourceAllocation,
    confirm.DeleteSourceRecords,
    confirm.FinishConfirm,
)

REVERT: tuple[type[Step], ...] = (
    revert.BeginRevert,
    api.RestoreRequestSpec,
    revert.CarryHistoryHome,
    revert.CarryStateHome,
    # The resized guest stops and is forgotten; its disks stay for now.
    guests.StopTargetGuest,
    guests.DefineSourceGuest,
    guests.ForgetTargetGuest,
    wiring.UnplugTargetPorts,
    network.ActivateSourceBindings,
    # The switch home, then the old guest starts on its old disks.
    revert.ShowSource,
    api.PointMappingHome,
    revert.HideTarget,
    wiring.PlugSourcePorts,
    guests.StartSourceGuest,
    allocations.ReturnAllocation,
    revert.FinishRevert,
    # From here on only forward.
    disks.RemoveTargetDisks,
    network.DeleteTargetBindings,
    revert.DeleteTargetRecords,
)

SCORES: dict[Verb, tuple[type[Step], ...]] = {
    "resize": RESIZE,
    "confirm": CONFIRM,
    "revert": REVERT,
}


def plan(verb: Verb, move: Move) -> tuple[Step, ...]:
    """The steps of this verb for this move."""
    return tuple(step(move) for step in SCORES[verb])
