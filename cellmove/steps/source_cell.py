"""A resize in the source cell's database, from the guard to the hidden row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellmove.dbcopy import objects
from cellmove.dbcopy.actions import (
    ActionStarted,
    EventFinished,
    EventStarted,
    find_action,
)
from cellmove.dbcopy.edits import Change, Edit, Upsert
from cellmove.steps.base import Finding, Ports, SourceCellStep, Status

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Rows


class GuardServer(SourceCellStep):
    """Take the server's `task_state`: the lock that nova-api and nova-compute respect too."""

    name = "guard-server"

    def describe(self) -> str:
        return f"lock {self.move.name} with task_state resize_prep in {self.move.source.cell.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        with self.database(cloud).read() as rows:
            row = rows.one("instances", **self.server_row)
            if row is None:
                return Finding(Status.BLOCKED, "The server is gone from its cell.")
            if row["task_state"] and find_action(rows, self.move) is None:
                why = f"Something else works on the server: its task_state is {row['task_state']}."
                return Finding(Status.BLOCKED, why)
        return super().inspect(cloud)

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        before = {
            "task_state": None,
            "vm_state": self.move.vm_state,
            "host": self.move.source.name,
        }
        after = {"task_state": "resize_prep", "progress": 0, "auto_disk_config": False}
        action = "resize" if self.move.kind == "resize" else "migrate"
        return [
            Change(
                "instances",
                self.server_row,
                after,
                before,
                # nova's own lock looks the same; the action is written together with ours.
                not_ours=find_action(rows, self.move) is None,
            ),
            ActionStarted(self.move, action),
        ]


class OpenMigration(SourceCellStep):
    """Make the migration record, and begin the conductor's events."""

    name = "open-migration"

    def describe(self) -> str:
        return f"open migration {self.move.migration} in {self.move.source.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        move = self.move
        values = {
            "instance_uuid": move.server,
            "status": "pre-migrating",
            "migration_type": move.kind,
            "source_compute": move.source.name,
            "source_node": move.source.node,
            "old_instance_type_id": move.old_flavor.id,
            "new_instance_type_id": move.new_flavor.id,
            "hidden": False,
            "cross_cell_move": True,
            "user_id": move.actor_user_id,
            "project_id": move.actor_project_id,
        }
        return [
            Upsert("migrations", self.migration_row, values),
            EventStarted(move, "conductor_migrate_server", move.conductor),
            EventStarted(move, "cold_migrate", move.conductor),
        ]


class WriteSourceClaim(SourceCellStep):
    """Repeat the target's claim in the source cell, with this cell's own migration id.

    nova-api routes events by it, and nova-compute sets a migration to `error` when the server's
    migration context names another one.
    """

    name = "write-source-claim"

    def describe(self) -> str:
        return f"name {self.move.target.name} in {self.move.source.cell.name}'s migration"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        migration = rows.one("migrations", **self.migration_row)
        if migration is None:
            return []
        target = self.move.target
        # nova leaves dest_compute_id NULL here: it would be a foreign id in this cell.
        named = {
            "dest_compute": target.name,
            "dest_node": target.node,
            "dest_host": target.address,
        }
        context = objects.migration_context(self.move.server, migration["id"])
        return [
            Change("migrations", self.migration_row, named),
            Change("instance_extra", self.owned_row, {"migration_context": context}),
        ]


class BeginAtSource(SourceCellStep):
    """Announce that the guest is about to stop, and remember both flavors."""

    name = "begin-at-source"

    def describe(self) -> str:
        return "announce the stop: task_state resize_migrating, migration migrating"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        extra = rows.one("instance_extra", **self.owned_row)
        if extra is None:
            return []
        move = self.move
        flavors = objects.flavors(extra["flavor"], old=move.old_flavor, new=move.new_flavor)
        return [
            Change(
                "instances",
                self.server_row,
                {"task_state": "resize_migrating"},
                {"task_state": "resize_prep"},
            ),
            Change("instance_extra", self.owned_row, {"flavor": flavors}),
            Upsert(
                "instance_system_metadata",
                {**self.owned_row, "key": "old_vm_state"},
                {"value": move.vm_state},
            ),
            Change(
                "migrations",
                self.migration_row,
                {"status": "migrating"},
                {"status": "pre-migrating"},
            ),
            EventStarted(move, "compute_prep_snapshot_based_resize_at_source", move.source.name),
        ]


class FinishAtSource(SourceCellStep):
    """Say that the guest is off and its disks are kept."""

    name = "finish-at-source"

    def describe(self) -> str:
        return "note the guest as off: task_state resize_migrated, migration post-migrating"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        move = self.move
        return [
            Change(
                "instances",
                self.server_row,
                {"task_state": "resize_migrated", "power_state": 4},
                {"task_state": "resize_migrating"},
            ),
            Change(
                "migrations",
                self.migration_row,
                {"status": "post-migrating"},
                {"status": "migrating"},
            ),
            EventFinished(move, "compute_prep_snapshot_based_resize_at_source"),
            EventStarted(move, "compute_finish_snapshot_based_resize_at_dest", move.target.name),
        ]


class CloseSourceEvents(SourceCellStep):
    """Finish the action's events in the source cell, so that its history is whole too."""

    name = "close-source-events"

    def describe(self) -> str:
        return f"finish the action's events in {self.move.source.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return [
            EventFinished(self.move, "compute_finish_snapshot_based_resize_at_dest"),
            EventFinished(self.move, "cold_migrate"),
            EventFinished(self.move, "conductor_migrate_server"),
        ]
