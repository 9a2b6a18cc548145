"""The states a move goes through, in nova's order, and which of cellmove's steps ends in each."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from tests.lab.oracle.records import Tables


@dataclass(frozen=True, slots=True)
class Side:
    """What tells the states of the records in one cell apart."""

    vm: str
    """`vm_state`; `same` as before the move."""
    task: str | None
    host: str
    """`source` or `target`."""
    hidden: bool
    claimed: bool
    """The row has a migration context and the migration names the target."""
    status: str | None
    """Of the migration under way."""


@dataclass(frozen=True, slots=True)
class State:
    """All that tells one checkpoint from another."""

    mapped: str
    """Where the instance mapping points."""
    source: Side | None
    target: Side | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One state and its name."""

    name: str
    step: str
    """The step of cellmove's that ends in it; none: the verb does, when all has settled."""
    state: State
    brief: bool = False
    """nova passes it within a few statements: it need not be seen there."""


def _source(task: str | None, status: str | None, *, claimed: bool = True, **more: Any) -> Side:
    return Side(**{"vm": "same", "task": task, "host": "source", "hidden": False} | more,
                claimed=claimed, status=status)  # fmt: skip


def _target(vm: str, task: str | None, status: str, *, hidden: bool, **more: Any) -> Side:
    host = "source" if vm == "same" else "target"
    return Side(**{"claimed": True} | more, vm=vm, task=task, host=host, hidden=hidden,
                status=status)  # fmt: skip


_LOCKED = _source("resize_prep", None, claimed=False)
_OPENED = _source("resize_prep", "pre-migrating", claimed=False)
_COPY = _target("same", "resize_prep", "pre-migrating", hidden=True, claimed=False)
_CLAIMED = _target("same", "resize_prep", "pre-migrating", hidden=True)
_OFF = _source("resize_migrated", "post-migrating")
_ARRIVING = _target("same", "resize_finish", "pre-migrating", hidden=True)
_KEPT = _source("resize_migrated", "post-migrating", hidden=True)
_RESIZED = _target("resized", None, "finished", hidden=False)
_CONFIRMING = _target("resized", None, "confirming", hidden=False)
_REVERTING = _target("resized", "resize_reverting", "reverting", hidden=False)
_GOING = _target("resized", "resize_reverting", "reverting", hidden=True)

CHECKPOINTS = {
    "resize": (
        Checkpoint("1 locked", "guard-server", State("source", _LOCKED, None)),
        Checkpoint("4 opened", "open-migration", State("source", _OPENED, None), brief=True),
        Checkpoint("5 copied", "copy-records", State("source", _OPENED, _COPY)),
        Checkpoint(
            "6 claimed",
            "write-source-claim",
            State("source", _source("resize_prep", "pre-migrating"), _CLAIMED),
        ),
        Checkpoint(
            "7 stopping",
            "begin-at-source",
            State("source", _source("resize_migrating", "migrating"), _CLAIMED),
        ),
        Checkpoint("8 stopped", "finish-at-source", State("source", _OFF, _CLAIMED)),
        Checkpoint("10 arriving", "begin-at-target", State("source", _OFF, _ARRIVING)),
        Checkpoint(
            "11 arrived",
            "finish-at-target",
            State("source", _OFF, _target("resized", None, "finished", hidden=True)),
        ),
        Checkpoint("12 VERIFY_RESIZE", "", State("target", _KEPT, _RESIZED)),
    ),
    "confirm": (
        Checkpoint("13c confirming", "begin-confirm", State("target", _KEPT, _CONFIRMING)),
        Checkpoint(
            "14c source gone",
            "delete-source-records",
            State("target", None, _CONFIRMING),
            brief=True,
        ),
        Checkpoint(
            "15c confirmed",
            "",
            State(
                "target",
                None,
                Side("same", None, "target", hidden=False, claimed=False, status="confirmed"),
            ),
        ),
    ),
    "revert": (
        Checkpoint("13r reverting", "restore-request-spec", State("target", _KEPT, _REVERTING)),
        Checkpoint(
            "14r home",
            "hide-target",
            State("source", _source("resize_reverting", "reverting"), _GOING),
        ),
        Checkpoint(
            "16r reverted",
            "",
            State("source", _source(None, "reverted", claimed=False), None),
        ),
    ),
}
"""By verb. cellmove has none of these states of nova's: 2 and 3, as it knows from the start that
the cell will be another one; 9, a second mark before the same work; 15r, as it starts the server
at home before it deletes anything at the target."""


@dataclass(frozen=True, slots=True)
class Course:
    """What a server's states are told by: what it was before."""

    vm: str
    """`vm_state`."""
    migrations: Set[str]
    """Those of the past."""
    cells: Mapping[int, str]
    """Id of a cell in the API database -> `source` or `target`."""

    def state(self, api: Tables, source: Tables, target: Tables) -> State:
        """The state that these records are in."""
        (mapping,) = api["instance_mappings"]
        mapped = self.cells[mapping["cell_id"]]
        # Its host never changes in the source cell.
        home = source["instances"][0]["host"] if source else None
        return State(mapped, self._side(source, home), self._side(target, home))

    def _side(self, tables: Tables, home: str | None) -> Side | None:
        if not tables:
            return None
        (row,) = tables["instances"]
        context = any(each["migration_context"] for each in tables.get("instance_extra", ()))
        rows = tables.get("migrations", ())
        now = next((each for each in rows if each["uuid"] not in self.migrations), None)
        # Until it knows that the cell will be another one, nova says that it will not.
        across = now is not None and now["cross_cell_move"]
        return Side(
            vm="same" if row["vm_state"] == self.vm else row["vm_state"],
            task=row["task_state"],
            host="source" if row["host"] == home else "target",
            hidden=bool(row["hidden"]),
            claimed=context and now is not None and now["dest_compute"] is not None,
            status=None if now is None else now["status"] if across else "within the cell",
        )
