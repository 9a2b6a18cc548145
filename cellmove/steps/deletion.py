"""A server that its owner deletes while it is moved: how it is seen, and what is cleared away.

nova-api deletes the row that the instance mapping points at, whatever its task_state, and knows
nothing of the other cell (nova 26: compute/api.py:_delete). What is of the move alone goes here;
the row itself, and what nova's deletion takes with it, are nova's.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cellmove.dbcopy.copy import delete_records
from cellmove.errors import StepFailed
from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of, other

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Allocations, Move

DELETIONS = ("delete",)
"""nova 26: compute/instance_actions.py; a forced one is called `delete` too."""
DELETING = ("deleting", "soft-deleting")
IN_FLIGHT = ("pre-migrating", "migrating", "post-migrating", "finished", "confirming", "reverting")
PATIENCE_SECONDS = 60.0
"""For nova to end a deletion that is under way: it may have to stop the guest first."""
PAUSE_SECONDS = 0.5
_SIDES: tuple[Side, Side] = ("source", "target")


@dataclass(frozen=True, slots=True)
class Deletion:
    """That the server is deleted, or that nova tried to."""

    side: Side
    """Whose row is the server's: the instance mapping points there."""
    whole: bool
    """nova has deleted it; else its deletion is under way, or has failed."""

    def sentence(self, move: Move) -> str:
        """What its owner has to know."""
        if self.whole:
            return "The server was deleted meanwhile: nothing of it or of the move is left over."
        return (
            "Somebody is deleting the server: nothing of the move is in the way. If it stays in "
            f"ERROR, run `openstack server delete {move.server}` again."
        )


def deletion_of(cloud: Cloud, move: Move) -> Deletion | None:
    """Whether the server was deleted since the move began; None: it was not.

    A soft-deleted row is always nova's, in whichever cell: we delete for good. It counts even
    when the mapping was moved after nova had read it.

    Raises:
        Unreachable: one of the databases.
    """
    with cloud.api.read() as rows:
        mapping = rows.one("instance_mappings", instance_uuid=move.server)
    mapped: Side = "source"
    if mapping is not None and mapping["cell_id"] == move.target.cell.id:
        mapped = "target"
    looks = [_deletion_in(cloud, move, side, mapped=side == mapped) for side in _SIDES]
    return next((found for found in looks if found), None)


def _deletion_in(cloud: Cloud, move: Move, side: Side, *, mapped: bool) -> Deletion | None:
    with cloud.cells[host_of(move, side).cell.uuid].read() as rows:
        found, deletions = rows.several(
            ("instances", {"uuid": move.server}),
            ("instance_actions", {"instance_uuid": move.server, "action": list(DELETIONS)}),
        )
    if not found:
        return Deletion(side, whole=True) if mapped else None
    if found[0]["deleted"]:
        return Deletion(side, whole=True)
    begun = any(str(each["start_time"])[:19] >= move.started_at for each in deletions)
    failed = found[0]["vm_state"] == "error" and begun
    if found[0]["task_state"] in DELETING or (mapped and failed):
        return Deletion(side, whole=False)
    return None


def settled(cloud: Cloud, move: Move, found: Deletion) -> Deletion:
    """The deletion once nova has ended it, or as it stands when the patience is over."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not found.whole and _under_way(cloud, move, found) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        found = deletion_of(cloud, move) or found
    return found


def _under_way(cloud: Cloud, move: Move, found: Deletion) -> bool:
    with cloud.cells[host_of(move, found.side).cell.uuid].read() as rows:
        row = rows.one("instances", uuid=move.server, deleted=0)
    return row is not None and row["task_state"] in DELETING


class _Clearing(Step):
    """A step of clearing away: it goes forward only, from whatever is there."""

    reversible = False

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


class _ClearDisks(_Clearing):
    """Delete the directory of a server that is deleted."""

    side: ClassVar[Side]

    def describe(self) -> str:
        return f"delete the deleted server's directory on {host_of(self.move, self.side).name}"

    def inspect(self, cloud: Cloud) -> Finding:
        here = cloud.hosts.reach(host_of(self.move, self.side).name)
        return Finding(Status.TODO if here.has_directory(self.move.server) else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        here = cloud.hosts.reach(host_of(self.move, self.side).name)
        if here.domain(self.move.server) is not None:
            raise StepFailed(
                f"The server's directory on {here.name} is not deleted.",
                "The guest is still defined there.",
                "Look at that guest before deleting anything.",
            )
        here.remove_directory(self.move.server)


class ClearSourceDisks(_ClearDisks):
    """Nothing of a deleted server's disks is left on the source."""

    name = "clear-source-disks"
    side = "source"


class ClearTargetDisks(_ClearDisks):
    """Nothing of a deleted server's disks is left on the target."""

    name = "clear-target-disks"
    side = "target"


class _ClearBindings(_Clearing):
    """Delete one side's bindings where they are not the active ones; most ports are gone."""

    side: ClassVar[Side]

    def describe(self) -> str:
        return f"delete the bindings left at {host_of(self.move, self.side).name}"

    def inspect(self, cloud: Cloud) -> Finding:
        return Finding(Status.TODO if self._left(cloud) else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        for port in self._left(cloud):
            cloud.network.unbind(port, host_of(self.move, self.side).name)

    def _left(self, cloud: Cloud) -> list[str]:
        here = host_of(self.move, self.side).name
        return [
            port.id
            for port in self.move.ports
            if any(b.host == here and not b.active for b in cloud.network.bindings(port.id))
        ]


class ClearSourceBindings(_ClearBindings):
    """No port waits for the way back to the source."""

    name = "clear-source-bindings"
    side = "source"


class ClearTargetBindings(_ClearBindings):
    """No port waits at the target."""

    name = "clear-target-bindings"
    side = "target"


class ClearAttachments(_Clearing):
    """Delete the attachments that no living row of the server's own cell names."""

    name = "clear-attachments"

    @classmethod
    def applies(cls, move: Move) -> bool:
        return bool(move.volumes or move.stale_attachments)

    def describe(self) -> str:
        return "delete the attachments of the deleted server that nova does not know"

    def inspect(self, cloud: Cloud) -> Finding:
        return Finding(Status.TODO if self._left(cloud) else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        for each in self._left(cloud):
            cloud.volumes.delete(each)

    def _left(self, cloud: Cloud) -> list[str]:
        ours = {volume.id for volume in self.move.volumes}
        known = self._known(cloud)
        stale = set(self.move.stale_attachments)
        return [
            each.id
            for each in cloud.volumes.attachments(self.move.server)
            if each.id not in known and (each.volume in ours or each.id in stale)
        ]

    def _known(self, cloud: Cloud) -> set[str]:
        found = deletion_of(cloud, self.move)
        if found is None or found.whole:
            return set()
        owned = {"instance_uuid": self.move.server, "deleted": 0}
        with cloud.cells[host_of(self.move, found.side).cell.uuid].read() as rows:
            return {row["attachment_id"] for row in rows.all("block_device_mapping", **owned)}


class ClearAllocations(_Clearing):
    """Free what the migration holds, and what was claimed after nova had deleted the server."""

    name = "clear-allocations"

    def describe(self) -> str:
        return "free what the move holds in Placement"

    def inspect(self, cloud: Cloud) -> Finding:
        return Finding(Status.TODO if self._left(cloud) else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        left = self._left(cloud)
        if left:
            cloud.placement.replace([dataclasses.replace(each, resources={}) for each in left])

    def _left(self, cloud: Cloud) -> list[Allocations]:
        found = deletion_of(cloud, self.move)
        gone = found is not None and found.whole
        consumers = [self.move.migration, *([self.move.server] if gone else [])]
        held = [cloud.placement.allocations(consumer) for consumer in consumers]
        return [each for each in held if each.resources]


class _ClearRecords(_Clearing):
    """Delete the copy of a deleted server's records in the cell that does not own it."""

    side: ClassVar[Side]

    def describe(self) -> str:
        return f"delete the server's records in {host_of(self.move, self.side).cell.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        with cloud.cells[self._cell].read() as rows:
            left = rows.count("instances", uuid=self.move.server)
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        found = deletion_of(cloud, self.move)
        if found is None or found.side == self.side:
            raise StepFailed(
                f"The records in {host_of(self.move, self.side).cell.name} are not deleted.",
                "The instance mapping points at them, or the server is not deleted.",
                f"Compare both cells' rows of {self.move.server}.",
            )
        with cloud.cells[self._cell].write() as rows:
            delete_records(rows, self.move.server)

    @property
    def _cell(self) -> str:
        return host_of(self.move, self.side).cell.uuid


class ClearSourceRecords(_ClearRecords):
    """The source cell has nothing of a server that was deleted in the target cell."""

    name = "clear-source-records"
    side = "source"


class ClearTargetRecords(_ClearRecords):
    """The target cell has nothing of a server that was deleted in the source cell."""

    name = "clear-target-records"
    side = "target"


class _FailMigration(_Clearing):
    """Say in the server's own cell that the migration came to nothing, as nova's rollback does."""

    side: ClassVar[Side]

    def describe(self) -> str:
        return f"set the migration to error in {host_of(self.move, self.side).cell.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        with cloud.cells[host_of(self.move, self.side).cell.uuid].read() as rows:
            row = rows.one("migrations", uuid=self.move.migration)
        moving = row is not None and row["status"] in IN_FLIGHT
        return Finding(Status.TODO if moving else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        with cloud.cells[host_of(self.move, self.side).cell.uuid].write() as rows:
            where = {"uuid": self.move.migration, "status": list(IN_FLIGHT)}
            rows.change("migrations", {"status": "error"}, expect=None, **where)


class FailSourceMigration(_FailMigration):
    """The resource tracker of the source counts it no more."""

    name = "fail-source-migration"
    side = "source"


class FailTargetMigration(_FailMigration):
    """The resource tracker of the target counts it no more."""

    name = "fail-target-migration"
    side = "target"


def cleared_sides(found: Deletion) -> tuple[Side, ...]:
    """Where everything of the server goes; where nova still has its row, that is nova's to do."""
    return (other(found.side), found.side) if found.whole else (other(found.side),)
