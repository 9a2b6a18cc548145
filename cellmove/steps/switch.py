"""The switch between the cells: one shown, the mapping moved (`api`), the other hidden.

A row is shown before the mapping points at it, and hidden after it points elsewhere: at no moment
does nova-api find a hidden row, or a listing miss the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cellmove.dbcopy.compare import Difference, differences
from cellmove.dbcopy.copy import read_records
from cellmove.dbcopy.edits import Change, Edit
from cellmove.errors import Conflict, StepFailed
from cellmove.steps.base import Finding, Saved, SourceCellStep, Status, Step, TargetCellStep

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Rows
    from cellmove.steps.base import Ports

VISIBLE = (False, None)
"""nova takes NULL for visible."""


class CompareRecords(Step):
    """A gate: the mapping does not move while the two copies say different things."""

    name = "compare-records"

    def describe(self) -> str:
        source, target = self.move.source.cell.name, self.move.target.cell.name
        return f"see that the records in {source} and {target} say the same"

    def inspect(self, cloud: Cloud) -> Finding:
        try:
            found = self._differences(cloud)
        except Conflict as error:  # asked before there is a copy
            return Finding(Status.TODO, str(error))
        return Finding(Status.TODO, _said(found)) if found else Finding(Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        found = self._differences(cloud)
        if found:
            raise StepFailed(
                "The two copies of the server's records differ.",
                f"{_said(found)}",
                f"Somebody changed one of them: see `cellmove compare {self.move.server}`.",
            )

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        """Nothing was touched."""

    def _differences(self, cloud: Cloud) -> list[Difference]:
        with cloud.source(self.move).read() as rows:
            source = read_records(rows, self.move.server)
        with cloud.target(self.move).read() as rows:
            target = read_records(rows, self.move.server)
        return differences(source, target, unfinished={self.move.request_id})


class ShowTarget(TargetCellStep):
    """Show the target's row before the mapping points at it: no listing misses the server."""

    name = "show-target"

    def describe(self) -> str:
        return f"show the server in {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        resized = {"vm_state": "resized", "task_state": None, "host": self.move.target.name}
        return _shown(self.server_row, resized)


class HideSource(SourceCellStep):
    """Hide the source's row; it is kept whole for a revert."""

    name = "hide-source"

    def describe(self) -> str:
        return f"hide the server in {self.move.source.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return _hidden(self.server_row, {"task_state": "resize_migrated"})


class ShowSource(SourceCellStep):
    """Show the source's row before the mapping points at it: no listing misses the server."""

    name = "show-source"

    def describe(self) -> str:
        return f"show the server in {self.move.source.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return _shown(self.server_row, {"task_state": "resize_reverting"})


class HideTarget(TargetCellStep):
    """Hide the target's row until it is deleted."""

    name = "hide-target"

    def describe(self) -> str:
        return f"hide the server in {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return _hidden(self.server_row, {"task_state": "resize_reverting"})


def _shown(server: Mapping[str, Any], state: Mapping[str, Any]) -> Sequence[Edit]:
    return [Change("instances", server, {"hidden": False}, {"hidden": True, **state})]


def _hidden(server: Mapping[str, Any], state: Mapping[str, Any]) -> Sequence[Edit]:
    return [Change("instances", server, {"hidden": True}, {"hidden": VISIBLE, **state})]


def _said(found: Sequence[Difference]) -> str:
    first = found[0]
    column = f"{first.table}.{first.column}" if first.column else first.table
    named = f"{column} of {first.key}" if first.key else column
    text = f"{named}: {first.here:.80} here, {first.there:.80} there"
    return text + (f", and {len(found) - 1} more." if len(found) > 1 else ".")
