"""The scores: each verb as a tuple of step classes, in the order in which they are run.

All that can be refused is found before the guest stops; destruction comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from cellmove.journal import Verb
from cellmove.model import Move
from cellmove.steps import (
    allocations,
    api,
    attachments,
    bases,
    carry,
    confirm,
    connections,
    deletion,
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
from cellmove.steps.base import Side, Step

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
    bases.KeepSourceBases,
    bases.BringBases,
    disks.PrecopyDisks,
    # The guest stops, and the rest of its disks crosses.
    source_cell.BeginAtSource,
    attachments.ExportSharedToTarget,
    connections.ConnectSharedVolumes,
    mappings.StoreSharedConnections,
    guests.StopSourceGuest,
    disks.CopyDisks,
    disks.ForgetWrites,
    firmware.CopyFirmware,
    guests.ForgetSourceGuest,
    mappings.NoteSourceAttachments,
    connections.DisconnectSourceVolumes,
    attachments.ReleaseSourceAttachments,
    network.ActivateTargetBindings,
    attachments.ExportToTarget,
    connections.ConnectTargetVolumes,
    mappings.StoreTargetConnections,
    connections.PlaceTargetVolumes,
    wiring.PlugTargetPorts,
    # It starts at the target.
    source_cell.FinishAtSource,
    target_cell.BeginAtTarget,
    wiring.UnplugSourcePorts,
    attachments.ReleaseSharedAttachments,
    guests.LaunchTargetGuest,
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
    bases.RestoreSourceBases,
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
    bases.ReleaseSourceBases,
    network.DeleteTargetBindings,
    attachments.DeleteTargetAttachments,
    revert.DeleteTargetRecords,
)

SCORES: dict[Verb, tuple[type[Step], ...]] = {
    "resize": RESIZE,
    "confirm": CONFIRM,
    "revert": REVERT,
}

Lane = tuple[type[Step], ...]

ABREAST: dict[Verb, tuple[tuple[Lane, ...], ...]] = {
    "resize": (
        (
            (network.BindPorts,),
            (allocations.HoldSourceAllocation, allocations.ClaimTarget),
            (
                target_cell.CopyRecords,
                attachments.ReserveTargetAttachments,
                mappings.NoteTargetAttachments,
                attachments.ReserveSourceAttachments,
                target_cell.WriteTargetClaim,
                source_cell.WriteSourceClaim,
                guests.DefineTargetGuest,
            ),
            (disks.MakeTargetDirectory,),
        ),
        (
            (
                attachments.ExportSharedToTarget,
                connections.ConnectSharedVolumes,
                mappings.StoreSharedConnections,
            ),
            (guests.StopSourceGuest,),
        ),
        (
            (network.ActivateTargetBindings,),
            (
                guests.ForgetSourceGuest,
                mappings.NoteSourceAttachments,
                connections.DisconnectSourceVolumes,
                attachments.ReleaseSourceAttachments,
                attachments.ExportToTarget,
                connections.ConnectTargetVolumes,
                mappings.StoreTargetConnections,
                connections.PlaceTargetVolumes,
                wiring.PlugTargetPorts,
            ),
        ),
        (
            (guests.LaunchTargetGuest,),
            (source_cell.FinishAtSource, target_cell.BeginAtTarget),
            (wiring.UnplugSourcePorts, attachments.ReleaseSharedAttachments),
        ),
        (
            (switch.HideSource, source_cell.CloseSourceEvents),
            (api.UpdateRequestSpec,),
            (target_cell.CloseTargetEvents,),
        ),
    ),
    # Removing the disks comes first, by itself: while it cannot begin, all can be taken back.
    "confirm": (
        (
            (attachments.DeleteSourceAttachments,),
            (network.DeleteSourceBindings,),
            (allocations.ReleaseSourceAllocation,),
        ),
    ),
    "revert": (
        (
            (wiring.UnplugTargetPorts,),
            (
                mappings.NoteTargetAttachments,
                connections.DisconnectTargetVolumes,
                attachments.ReleaseTargetAttachments,
                attachments.ExportToSource,
                connections.ConnectSourceVolumes,
                mappings.StoreSourceConnections,
                connections.PlaceSourceVolumes,
            ),
            (network.ActivateSourceBindings,),
        ),
        ((allocations.ReturnAllocation,), (revert.FinishRevert,)),
        ((network.DeleteTargetBindings,), (attachments.DeleteTargetAttachments,)),
    ),
}
"""Lanes that may run at the same time: no step of one builds on, or touches, what another's does.

They are begun in the order given here: what others wait for comes first. Together the lanes of one
such stretch are steps that follow each other in the score, which stays the order of an undo.
Neutron activates the bindings before QEMU is launched, not beside it: the layer-2 agent's next look
is what everybody waits for, and on a busy machine each would slow the other down.
"""

CLEARING: dict[Side, tuple[type[Step], ...]] = {
    "source": (
        disks.ForgetWrites,
        guests.StopSourceGuest,
        guests.ForgetSourceGuest,
        wiring.UnplugSourcePorts,
        connections.DisconnectSourceVolumes,
        deletion.ClearSourceDisks,
        firmware.RemoveSourceFirmware,
        deletion.ClearSourceBindings,
    ),
    "target": (
        guests.StopTargetGuest,
        guests.ForgetTargetGuest,
        wiring.UnplugTargetPorts,
        connections.DisconnectTargetVolumes,
        deletion.ClearTargetDisks,
        firmware.RemoveTargetFirmware,
        deletion.ClearTargetBindings,
    ),
}
"""What is done at a host for a server that was deleted in mid-move; twice is once."""

CLEARED_SERVICES: tuple[type[Step], ...] = (deletion.ClearAttachments, deletion.ClearAllocations)
"""After both hosts, while the rows still name what is nova's."""

CLEARED_RECORDS: dict[Side, tuple[type[Step], ...]] = {
    "source": (deletion.ClearTargetRecords, deletion.FailSourceMigration),
    "target": (deletion.ClearSourceRecords, deletion.FailTargetMigration),
}
"""By the side whose row is the server's: the other cell's copy goes, last of all."""


def clearing(move: Move, found: deletion.Deletion) -> tuple[Step, ...]:
    """The steps that clear a deleted server's move away, from wherever it stood."""
    kinds: list[type[Step]] = [disks.ForgetWrites]
    for side in deletion.cleared_sides(found):
        kinds += CLEARING[side]
    kinds += [*CLEARED_SERVICES, *CLEARED_RECORDS[found.side]]
    return tuple(step(move) for step in dict.fromkeys(kinds) if step.applies(move))


def plan(verb: Verb, move: Move) -> tuple[Step, ...]:
    """The steps of this verb for this move."""
    return tuple(step(move) for step in SCORES[verb] if step.applies(move))


def stretches(verb: Verb, steps: Sequence[Step]) -> Iterator[list[list[Step]]]:
    """The plan in stretches, one after the other: each is some lanes, mostly one."""
    lane_of = {
        kind: (number, place)
        for number, lanes in enumerate(ABREAST[verb])
        for place, lane in enumerate(lanes)
        for kind in lane
    }
    alone = (-1, 0)
    for _, group in groupby(steps, key=lambda step: lane_of.get(type(step), alone)[0]):
        lanes: dict[int, list[Step]] = {}
        for step in group:
            lanes.setdefault(lane_of.get(type(step), alone)[1], []).append(step)
        yield [lanes[place] for place in sorted(lanes)]
