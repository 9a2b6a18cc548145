"""A revert in both cells' databases: the source's row is the server again, the target's goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellmove.dbcopy import objects
from cellmove.dbcopy.actions import ActionStarted, EventFinished, EventStarted, find_action
from cellmove.dbcopy.edits import Change, Edit, Remove, Upsert
from cellmove.dbcopy.hidden import delete_hidden
from cellmove.dbcopy.netcache import NetworkCached
from cellmove.steps.base import (
    Finding,
    Ports,
    Saved,
    SourceCellStep,
    Status,
    Step,
    TargetCellStep,
)

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Rows

AT_CONDUCTOR = "conductor_revert_snapshot_based_resize"
AT_TARGET = "compute_revert_snapshot_based_resize_at_dest"
AT_SOURCE = "compute_finish_revert_snapshot_based_resize_at_source"


class BeginRevert(TargetCellStep):
    """Take the migration's `finished`: the lock that nova's own confirm and revert use too."""

    name = "begin-revert"

    def describe(self) -> str:
        return f"set the migration to reverting in {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        move = self.move
        # nova's own lock looks the same; the action is written together with ours.
        not_ours = find_action(rows, move) is None
        return [
            Change(
                "migrations",
                self.migration_row,
                {"status": "reverting"},
                {"status": "finished"},
                not_ours=not_ours,
            ),
            Change(
                "instances",
                self.server_row,
                {"task_state": "resize_reverting", "availability_zone": move.source.zone},
                {"task_state": None, "vm_state": "resized"},
                not_ours=not_ours,
            ),
            ActionStarted(move, "revertResize"),
            EventStarted(move, AT_CONDUCTOR, move.conductor),
        ]


class CarryStateHome(SourceCellStep):
    """Bring the source's row and migration to the state of the revert."""

    name = "carry-state-home"

    def describe(self) -> str:
        return "prepare the source's row: task_state resize_reverting"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        move = self.move
        return [
            Change(
                "instances",
                self.server_row,
                {"task_state": "resize_reverting"},
                {"task_state": "resize_migrated"},
            ),
            Upsert(
                "instance_system_metadata",
                {**self.owned_row, "key": "old_vm_state"},
                {"value": move.vm_state},
            ),
            Change(
                "migrations",
                self.migration_row,
                {"status": "reverting"},
                {"status": "post-migrating"},
            ),
            EventStarted(move, AT_TARGET, move.target.name),
        ]


class FinishRevert(SourceCellStep):
    """The server is as it was: its state, its flavor, its host."""

    name = "finish-revert"

    def describe(self) -> str:
        return f"set the server to {self.move.vm_state} in {self.move.source.cell.name}"

    def ports(self, cloud: Cloud) -> Ports:
        return cloud.network.vifs(self.move.server)

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        extra = rows.one("instance_extra", **self.owned_row)
        if extra is None:
            return []
        move = self.move
        home = {
            "task_state": None,
            "vm_state": move.vm_state,
            "power_state": 1 if move.vm_state == "active" else 4,
        }
        plain = {
            "flavor": objects.flavors(extra["flavor"], old=None, new=None),
            "migration_context": None,
        }
        return [
            NetworkCached(move.server, ports),
            Change(
                "instances",
                self.server_row,
                home,
                {"task_state": "resize_reverting"},
                stamp=("launched_at",),
            ),
            Change("instance_extra", self.owned_row, plain),
            Remove(
                "instance_system_metadata", {"instance_uuid": move.server, "key": "old_vm_state"}
            ),
            Change(
                "migrations", self.migration_row, {"status": "reverted"}, {"status": "reverting"}
            ),
            EventFinished(move, AT_TARGET),
            EventStarted(move, AT_SOURCE, move.source.name),
            EventFinished(move, AT_SOURCE),
            EventFinished(move, AT_CONDUCTOR),
        ]


class DeleteTargetRecords(Step):
    """Delete the hidden copy in the target cell, every row of it."""

    name = "delete-target-records"
    reversible = False

    def describe(self) -> str:
        return f"delete the hidden records in {self.move.target.cell.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        with cloud.target(self.move).read() as rows:
            left = rows.one("instances", uuid=self.move.server)
        return Finding(Status.DONE if left is None else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        delete_hidden(cloud.api, cloud.target(self.move), self.move.target.cell, self.move.server)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")
