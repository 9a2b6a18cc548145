"""The scores: each verb as a tuple of step classes, in the order in which they are run.

All that can be refused is found before the guest stops; destruction comes last.
"""

from __future__ import annotations

from cellmove.journal import Verb
from cellmove.model import Move
from cellmove.steps import (
    allocations,
    api,
    attachments,
    carry,
    confirm,
    connections,
    disks,
    firmware,
    guests,
    mappings,
    network,
    revert,
    source_cell,
    switch,
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
    attachments.ReserveTargetAttachments,
    mappings.NoteTargetAttachments,
    attachments.ReserveSourceAttachments,
    target_cell.WriteTargetClaim,
    source_cell.WriteSourceClaim,
    disks.MakeTargetDirectory,
    guests.DefineTargetGuest,
    disks.PrecopyDisks,
    # The guest stops, and the rest of its disks crosses.
    source_cell.BeginAtSource,
    guests.StopSourceGuest,
    disks.CopyDisks,
    disks.ForgetWrites,
    firmware.CopyFirmware,
    guests.ForgetSourceGuest,
    wiring.UnplugSourcePorts,
    mappings.NoteSourceAttachments,
    connections.DisconnectSourceVolumes,
    attachments.ReleaseSourceAttachments,
    network.ActivateTargetBindings,
    source_cell.FinishAtSource,
    # It starts at the target.
    target_cell.BeginAtTarget,
    attachments.ExportToTarget,
    connections.ConnectTargetVolumes,
    mappings.StoreTargetConnections,
    connections.PlaceTargetVolumes,
    wiring.PlugTargetPorts,
    guests.StartTargetGuest,
    target_cell.FinishAtTarget,
    # The switch: shown before the mapping moves, hidden after it.
    carry.CarryChangesOver,
    switch.CompareRecords,
    switch.ShowTarget,
    api.PointMapping,
    switch.HideSource,
    api.UpdateRequestSpec,
    source_cell.CloseSourceEvents,
    target_cell.CloseTargetEvents,
)

CONFIRM: tuple[type[Step], ...] = (
    confirm.BeginConfirm,
    carry.CarryHistoryOver,
    # From here on only forward.
    disks.RemoveSourceDisks,
    firmware.RemoveSourceFirmware,
    attachments.DeleteSourceAttachments,
    network.DeleteSourceBindings,
    allocations.ReleaseSourceAllocation,
    confirm.DeleteSourceRecords,
    confirm.FinishConfirm,
)

REVERT: tuple[type[Step], ...] = (
    revert.BeginRevert,
    api.RestoreRequestSpec,
    carry.CarryHistoryHome,
    revert.CarryStateHome,
    attachments.ReserveSourceAttachments,
    mappings.CarryVolumesHome,
    attachments.ReserveTargetAttachments,
    # The resized guest stops and is forgotten; its disks stay for now.
    guests.StopTargetGuest,
    guests.DefineSourceGuest,
    guests.ForgetTargetGuest,
    wiring.UnplugTargetPorts,
    mappings.NoteTargetAttachments,
    connections.DisconnectTargetVolumes,
    attachments.ReleaseTargetAttachments,
    attachments.ExportToSource,
    connections.ConnectSourceVolumes,
    mappings.StoreSourceConnections,
    connections.PlaceSourceVolumes,
    network.ActivateSourceBindings,
    # The switch home, then the old guest starts on its old disks.
    carry.CarryChangesHome,
    switch.ShowSource,
    api.PointMappingHome,
    switch.HideTarget,
    wiring.PlugSourcePorts,
    guests.StartSourceGuest,
    allocations.ReturnAllocation,
    revert.FinishRevert,
    # From here on only forward.
    disks.RemoveTargetDisks,
    firmware.RemoveTargetFirmware,
    network.DeleteTargetBindings,
    attachments.DeleteTargetAttachments,
    revert.DeleteTargetRecords,
)

SCORES: dict[Verb, tuple[type[Step], ...]] = {
    "resize": RESIZE,
    "confirm": CONFIRM,
    "revert": REVERT,
}


def plan(verb: Verb, move: Move) -> tuple[Step, ...]:
    """The steps of this verb for this move."""
    return tuple(step(move) for step in SCORES[verb] if step.applies(move))
