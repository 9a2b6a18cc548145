"""A confirm in both cells' databases: the target's row becomes the server, the source's goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellmove.dbcopy import objects
from cellmove.dbcopy.actions import ActionStarted, EventFinished, EventStarted, find_action
from cellmove.dbcopy.edits import Change, Edit, Remove
from cellmove.dbcopy.hidden import delete_hidden
from cellmove.steps.base import Finding, Ports, Saved, Status, Step, TargetCellStep

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Rows

AT_CONDUCTOR = "conductor_confirm_snapshot_based_resize"
AT_SOURCE = "compute_confirm_snapshot_based_resize_at_source"


class BeginConfirm(TargetCellStep):
    """Take the migration's `finished`: the lock that nova's own confirm and revert use too."""

    name = "begin-confirm"

    def describe(self) -> str:
        return f"set the migration to confirming in {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        move = self.move
        return [
            Change(
                "migrations",
                self.migration_row,
                {"status": "confirming"},
                {"status": "finished"},
                # nova's own lock looks the same; the action is written together with ours.
                not_ours=find_action(rows, move) is None,
            ),
            ActionStarted(move, "confirmResize"),
            EventStarted(move, AT_CONDUCTOR, move.conductor),
            EventStarted(move, AT_SOURCE, move.source.name),
        ]


class DeleteSourceRecords(Step):
    """Delete the hidden copy in the source cell, every row of it, as nova's hard delete does."""

    name = "delete-source-records"
    reversible = False

    def describe(self) -> str:
        return f"delete the hidden records in {self.move.source.cell.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        with cloud.source(self.move).read() as rows:
            left = rows.one("instances", uuid=self.move.server)
        return Finding(Status.DONE if left is None else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        delete_hidden(cloud.api, cloud.source(self.move), self.move.source.cell, self.move.server)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


class FinishConfirm(TargetCellStep):
    """The server is plain again: active or stopped, without a trace of the resize."""

    name = "finish-confirm"
    reversible = False

    def describe(self) -> str:
        return f"set the server to active or stopped in {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        server = rows.one("instances", **self.server_row)
        extra = rows.one("instance_extra", **self.owned_row)
        if server is None or extra is None:
            return []
        off = server["power_state"] == 4
        plain = {
            "flavor": objects.flavors(extra["flavor"], old=None, new=None),
            "migration_context": None,
        }
        return [
            Change(
                "migrations", self.migration_row, {"status": "confirmed"}, {"status": "confirming"}
            ),
            Change(
                "instances",
                self.server_row,
                {"vm_state": "stopped" if off else "active"},
                {"task_state": None},
            ),
            Change("instance_extra", self.owned_row, plain),
            Remove(
                "instance_system_metadata",
                {"instance_uuid": self.move.server, "key": "old_vm_state"},
            ),
            EventFinished(self.move, AT_SOURCE),
            EventFinished(self.move, AT_CONDUCTOR),
        ]
