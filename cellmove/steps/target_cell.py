"""A resize in the target cell's database, from the hidden copy to the visible row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellmove.dbcopy import objects
from cellmove.dbcopy.actions import EventFinished, EventStarted
from cellmove.dbcopy.copy import delete_records, read_records, write_records
from cellmove.dbcopy.edits import Change, Edit, Upsert
from cellmove.dbcopy.netcache import NetworkCached
from cellmove.errors import StepFailed
from cellmove.steps.base import Finding, Ports, Saved, Status, Step, TargetCellStep

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Rows


class CopyRecords(Step):
    """Copy the server's records into the target cell, hidden, in one transaction."""

    name = "copy-records"

    def describe(self) -> str:
        return f"copy the server's records into {self.move.target.cell.name}, hidden"

    def inspect(self, cloud: Cloud) -> Finding:
        with cloud.target(self.move).read() as rows:
            ours = rows.one("migrations", uuid=self.move.migration)
        return Finding(Status.TODO if ours is None else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        with cloud.source(self.move).read() as rows:
            records = read_records(rows, self.move.server)
        with cloud.target(self.move).write() as rows:
            if rows.one("migrations", uuid=self.move.migration) is None:
                write_records(rows, records, instance={"hidden": True})

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        with cloud.target(self.move).write() as rows:
            row = rows.one("instances", uuid=self.move.server)
            if row is None or rows.one("migrations", uuid=self.move.migration) is None:
                return
            if not row["hidden"]:
                raise StepFailed(
                    f"The copy in {self.move.target.cell.name} is not deleted.",
                    "It is not hidden: the server may live there.",
                    f"Compare both cells' rows of {self.move.server}.",
                )
            delete_records(rows, self.move.server)


class WriteTargetClaim(TargetCellStep):
    """Claim the target host by rows alone: its resource tracker counts them at its next audit."""

    name = "write-target-claim"

    def describe(self) -> str:
        return f"claim {self.move.target.name} in {self.move.target.cell.name}'s records"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        migration = rows.one("migrations", **self.migration_row)
        extra = rows.one("instance_extra", **self.owned_row)
        if migration is None or extra is None:
            return []
        move, event = self.move, "compute_prep_snapshot_based_resize_at_dest"
        named = {
            "dest_compute": move.target.name,
            "dest_node": move.target.node,
            "dest_host": move.target.address,
            "dest_compute_id": move.target.node_id,
        }
        claim = {
            "migration_context": objects.migration_context(move.server, migration["id"]),
            "flavor": objects.flavors(extra["flavor"], new=move.new_flavor),
        }
        return [
            Change("migrations", self.migration_row, named),
            Change("instance_extra", self.owned_row, claim),
            Upsert(
                "instance_system_metadata",
                {**self.owned_row, "key": "old_vm_state"},
                {"value": move.vm_state},
            ),
            Change("instances", self.server_row, {"availability_zone": move.target.zone}),
            EventStarted(move, event, move.target.name),
            EventFinished(move, event),
        ]


class BeginAtTarget(TargetCellStep):
    """Give the target's row the new flavor; work at the target begins."""

    name = "begin-at-target"

    def describe(self) -> str:
        return f"apply flavor {self.move.new_flavor.name}: task_state resize_finish"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        extra = rows.one("instance_extra", **self.owned_row)
        if extra is None:
            return []
        move, new = self.move, self.move.new_flavor
        size = {
            "instance_type_id": new.id,
            "memory_mb": new.memory_mb,
            "vcpus": new.vcpus,
            "root_gb": new.root_gb,
            "ephemeral_gb": new.ephemeral_gb,
        }
        flavors = objects.flavors(extra["flavor"], cur=new, old=move.old_flavor, new=new)
        return [
            Change(
                "instances",
                self.server_row,
                # A migration keeps its flavor; nova leaves the columns alone then.
                {"task_state": "resize_finish"} | (size if move.kind == "resize" else {}),
                {"task_state": "resize_prep"},
            ),
            Change("instance_extra", self.owned_row, {"flavor": flavors}),
            EventStarted(move, "compute_finish_snapshot_based_resize_at_dest", move.target.name),
        ]

    def execute(self, cloud: Cloud) -> None:
        super().execute(cloud)
        # Kept for `FinishAtTarget`: QEMU starts meanwhile, and later the guest would wait for it.
        cloud.network.vifs(self.move.server)


class FinishAtTarget(TargetCellStep):
    """The server lives on the target host: `resized`, its migration `finished`."""

    name = "finish-at-target"

    def describe(self) -> str:
        return f"place the server on {self.move.target.name}: vm_state resized"

    def ports(self, cloud: Cloud) -> Ports:
        return cloud.network.vifs(self.move.server)

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        move = self.move
        placed = {
            "task_state": None,
            "vm_state": "resized",
            "power_state": 1 if move.vm_state == "active" else 4,
            "host": move.target.name,
            "node": move.target.node,
            "compute_id": move.target.node_id,
        }
        return [
            NetworkCached(move.server, ports),
            Change(
                "instances",
                self.server_row,
                placed,
                {"task_state": "resize_finish"},
                stamp=("launched_at",),
            ),
            Change(
                "migrations",
                self.migration_row,
                {"status": "finished"},
                {"status": "pre-migrating"},
            ),
            EventFinished(move, "compute_finish_snapshot_based_resize_at_dest"),
        ]


class CloseTargetEvents(TargetCellStep):
    """Finish the conductor's events in the target cell too: nova leaves them open for ever."""

    name = "close-target-events"

    def describe(self) -> str:
        return f"finish the action's events in {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return [
            EventFinished(self.move, "cold_migrate"),
            EventFinished(self.move, "conductor_migrate_server"),
        ]
