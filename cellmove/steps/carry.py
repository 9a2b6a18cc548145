"""What was done to the server after its records were copied: from its own cell into the other.

nova-api writes to one cell only, the mapped one. Renames, locks, addresses and all history of the
time of a move or of VERIFY_RESIZE are lost by nova; here they travel, both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from cellmove.dbcopy.edits import Mirror
from cellmove.dbcopy.history import carry, drop_carried, missing
from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of, other

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Database, Rows

OWNERS = (
    *("display_name", "display_description", "hostname", "access_ip_v4", "access_ip_v6"),
    *("locked", "locked_by", "auto_disk_config"),
)
"""What nova's API lets one change of a server that is resized; never what its host decides."""

OWN_KEYS = ("old_vm_state", "clean_attempts")
"""System metadata that each cell has for itself."""

HISTORY = "history"


class _CarryHistory(Step):
    """Add the actions, events and faults that one side's cell lacks."""

    side: ClassVar[Side]
    """Where it is written."""
    begun: ClassVar[str] = ""
    """The target's migration has this status by then; asked earlier, it is not done."""

    def describe(self) -> str:
        return f"copy the history since into {host_of(self.move, self.side).cell.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        with self._from(cloud).read() as there, self._to(cloud).read() as here:
            if self._is_going(there):
                return Finding(Status.BLOCKED, "The server is being deleted, or it is gone.")
            saved = self._lacking(there, here)
            early = self._is_early(here if self.side == "target" else there)
        return Finding(Status.TODO if saved or early else Status.DONE, saved=saved)

    def execute(self, cloud: Cloud) -> None:
        with self._from(cloud).read() as there, self._to(cloud).write() as here:
            self._carry(there, here)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        with self._to(cloud).write() as here:
            self._drop(here, saved)

    def _lacking(self, there: Rows, here: Rows) -> dict[str, Sequence[str]]:
        names = missing(there, here, self.move.server, self._besides())
        return {HISTORY: names} if names else {}

    def _carry(self, there: Rows, here: Rows) -> None:
        carry(there, here, self.move.server, self._besides())

    def _drop(self, here: Rows, saved: Saved) -> None:
        drop_carried(here, self.move.server, saved.get(HISTORY, ()))

    def _besides(self) -> tuple[str, ...]:
        return ()

    def _is_going(self, there: Rows) -> bool:
        """Whether its owner has deleted it: the mapping must not move to a copy that lives on."""
        row = there.one("instances", uuid=self.move.server, deleted=0)
        return row is None or row["task_state"] in ("deleting", "soft-deleting")

    def _is_early(self, target: Rows) -> bool:
        migration = target.one("migrations", uuid=self.move.migration)
        return migration is None or self.begun not in ("", migration["status"])

    def _to(self, cloud: Cloud) -> Database:
        return cloud.cells[host_of(self.move, self.side).cell.uuid]

    def _from(self, cloud: Cloud) -> Database:
        return cloud.cells[host_of(self.move, other(self.side)).cell.uuid]


class CarryHistoryHome(_CarryHistory):
    """Copy home every action since the copy, this revert's own too; nova keeps only that one."""

    name = "carry-history-home"
    side = "source"
    begun = "reverting"


class CarryHistoryOver(_CarryHistory):
    """Keep what only the source cell knows of the server's history: its records are deleted."""

    name = "carry-history-over"
    side = "target"
    begun = "confirming"


class _CarryChanges(_CarryHistory):
    """Bring all over that has changed since, at the last moment before the mapping moves."""

    def describe(self) -> str:
        return f"bring what has changed since into {host_of(self.move, self.side).cell.name}"

    def _lacking(self, there: Rows, here: Rows) -> dict[str, Sequence[str]]:
        saved = super()._lacking(there, here)
        changed = [edit for edit in self._edits(there) if not edit.holds(here)]
        return saved | {edit.key: edit.remember(here) for edit in changed}

    def _carry(self, there: Rows, here: Rows) -> None:
        for edit in self._edits(there):
            edit.apply(here)
        super()._carry(there, here)

    def _drop(self, here: Rows, saved: Saved) -> None:
        super()._drop(here, saved)
        for edit in self._mirrors([], [], [], []):
            edit.restore(here, saved.get(edit.key, ()))

    def _edits(self, there: Rows) -> list[Mirror]:
        server = self.move.server
        found = there.all("instances", uuid=server, deleted=0)
        if not found:
            return []
        owned = {"instance_uuid": server, "deleted": 0}
        return self._mirrors(
            [{name: row[name] for name in ("uuid", *OWNERS)} for row in found],
            [_pair(row) for row in there.all("instance_metadata", **owned)],
            [_pair(row) for row in there.all("instance_system_metadata", **owned)],
            [{"tag": row["tag"]} for row in there.all("tags", resource_id=server)],
        )

    def _mirrors(self, *wanted: Sequence[dict[str, object]]) -> list[Mirror]:
        instance, metadata, system, tags = wanted
        row = {"uuid": self.move.server, "deleted": 0}
        owned = {"instance_uuid": self.move.server, "deleted": 0}
        return [
            Mirror("instances", row, "uuid", instance),
            Mirror("instance_metadata", owned, "key", metadata),
            Mirror("instance_system_metadata", owned, "key", system, OWN_KEYS),
            Mirror("tags", {"resource_id": self.move.server}, "tag", tags),
        ]


class CarryChangesOver(_CarryChanges):
    """What was done to the server during the move is not lost in the target cell."""

    name = "carry-changes-over"
    side = "target"

    def _besides(self) -> tuple[str, ...]:
        """Each cell writes this resize's own events for itself."""
        return (self.move.request_id,)


class CarryChangesHome(_CarryChanges):
    """What was done to the resized server is not lost at home."""

    name = "carry-changes-home"
    side = "source"
    begun = "reverting"


def _pair(row: dict[str, object]) -> dict[str, object]:
    return {name: row[name] for name in ("key", "value", "created_at")}
