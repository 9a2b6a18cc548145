"""The step: one change to one system of record, how to see it, and how to take it back."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from cellmove.errors import StepFailed

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Database, Rows
    from cellmove.dbcopy.edits import Edit
    from cellmove.model import Host, Move, Vif

Side = Literal["source", "target"]

Ports: TypeAlias = "tuple[Vif, ...]"

Saved = Mapping[str, Sequence[str]]
"""What the world is about to forget: kept in the journal from the first look on. Never a secret."""


def host_of(move: Move, side: Side) -> Host:
    """The move's hypervisor on this side."""
    return move.source if side == "source" else move.target


def other(side: Side) -> Side:
    """The other side."""
    return "target" if side == "source" else "source"


class Status(enum.Enum):
    """What a look at a step's effect found."""

    TODO = "todo"
    """Not there, or only partly: `execute` converges from either."""
    DONE = "done"
    """As this step would leave it."""
    BLOCKED = "blocked"
    """Neither; a person decides."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of `Step.inspect`."""

    status: Status
    why: str = ""
    saved: Saved = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One change to one system of record.

    Made of the frozen `Move` alone, so that a journal of (move, verb) rebuilds the same steps
    after a crash. Steps hand nothing to each other: a later one reads where an earlier one wrote.
    """

    move: Move
    name: ClassVar[str]
    """Verb and object, e.g. `bind-ports`: the step's name in the journal, stable for ever."""
    reversible: ClassVar[bool] = True

    @classmethod
    def applies(cls, move: Move) -> bool:  # noqa: ARG003
        """Whether this move has anything for the step to do; else its plan is without it."""
        return True

    @abstractmethod
    def describe(self) -> str:
        """One line of the plan, from the move alone."""

    @abstractmethod
    def inspect(self, cloud: Cloud) -> Finding:
        """Look, never touch. Asked too early, the answer is TODO, never an error."""

    @abstractmethod
    def execute(self, cloud: Cloud) -> None:
        """Make the change, from nothing or from half; twice is once.

        Raises:
            StepFailed: it could not; what was begun can be undone.
        """

    @abstractmethod
    def undo(self, cloud: Cloud, saved: Saved) -> None:
        """Take the change back, whole or half; `saved` is what the first look kept.

        Removes only what this move provably made; a foreign object stays as it is.

        Raises:
            StepFailed: something resists; nothing after it is undone.
        """


class RowsStep(Step):
    """A step that edits the rows of one database, all in one transaction: never half."""

    @property
    def server_row(self) -> dict[str, object]:
        """Finds the server in `instances`."""
        return {"uuid": self.move.server, "deleted": 0}

    @property
    def owned_row(self) -> dict[str, object]:
        """Finds what belongs to the server in the tables beside `instances`."""
        return {"instance_uuid": self.move.server, "deleted": 0}

    @property
    def migration_row(self) -> dict[str, object]:
        """Finds this move's migration; it has the same uuid in both cells."""
        return {"uuid": self.move.migration, "deleted": 0}

    @abstractmethod
    def database(self, cloud: Cloud) -> Database:
        """The database this step writes to."""

    @abstractmethod
    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        """What to change; computed from the rows so that it is the same before and after.

        Empty when the rows it builds on are not there yet.
        """

    def ports(self, cloud: Cloud) -> Ports:
        """The server's ports, for a step whose rows repeat what Neutron says; asked beforehand."""
        return ()

    def inspect(self, cloud: Cloud) -> Finding:
        ports = self.ports(cloud)
        with self.database(cloud).read() as rows:
            edits = self.edits(rows, ports)
            if edits and all(edit.holds(rows) for edit in edits):
                return Finding(Status.DONE)
            return Finding(Status.TODO, saved={edit.key: edit.remember(rows) for edit in edits})

    def execute(self, cloud: Cloud) -> None:
        ports = self.ports(cloud)
        with self.database(cloud).write() as rows:
            edits = self.edits(rows, ports)
            if not edits:
                raise StepFailed(f"{self.name} finds no rows to change.", "They are gone.")
            for edit in edits:
                edit.apply(rows)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        ports = self.ports(cloud)
        with self.database(cloud).write() as rows:
            for edit in reversed(self.edits(rows, ports)):
                if edit.key in saved:
                    edit.restore(rows, saved[edit.key])


class SourceCellStep(RowsStep):
    """A step that writes to the source cell's database."""

    def database(self, cloud: Cloud) -> Database:
        return cloud.source(self.move)


class TargetCellStep(RowsStep):
    """A step that writes to the target cell's database."""

    def database(self, cloud: Cloud) -> Database:
        return cloud.target(self.move)
