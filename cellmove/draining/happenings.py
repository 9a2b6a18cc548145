"""What a drain tells while it runs, and how it ended for each server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cellmove.errors import CellmoveError, Refusals, StepFailed
from cellmove.journal import Mark
from cellmove.model import Host, Transfer
from cellmove.steps.base import Step

Kind = Literal["begun", "step", "copy", "done", "failed", "left", "stopped", "confirmed", "note"]
"""`done`: it has arrived; `left`: it cannot be moved, and nothing was touched."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something happened; of one server, unless it is a `note` about the whole."""

    kind: Kind
    server: str = ""
    name: str = ""
    source: Host | None = None
    target: Host | None = None
    number: int | None = None
    """Of the move in the journal."""
    step: Step | None = None
    at: int = 0
    """Which step of all of them, from 1 on."""
    steps: int = 0
    mark: Mark | None = None
    transfer: Transfer | None = None
    note: str = ""


Tell = Callable[[Happening], None]
"""Called from several threads; must not raise."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended for one server: little, for a drain keeps it of each until it is over."""

    kind: Kind
    server: str
    name: str
    source: Host | None = None
    target: Host | None = None
    number: int | None = None
    """Of the move in the journal."""
    error: CellmoveError | None = None
    note: str = ""
    """What was passed over on its way; of others' turns what they wrote down."""

    def happening(self) -> Happening:
        """The same as it is told at once."""
        return Happening(
            self.kind,
            self.server,
            self.name,
            self.source,
            self.target,
            self.number,
            note=str(self.error or self.note),
        )


def kept(error: Exception) -> CellmoveError:
    """An error as an outcome keeps it: one of ours, without what it was raised in.

    A traceback holds every frame, and with it a cloud's sessions and all that was read there.
    """
    if not isinstance(error, CellmoveError):
        return StepFailed(
            "cellmove has a defect, or met something it does not know.",
            f"{type(error).__name__}: {error}",
            "See `cellmove moves` for how the server stands.",
        )
    for each in (error, *(error.reasons if isinstance(error, Refusals) else ())):
        each.__traceback__ = each.__cause__ = each.__context__ = None
    return error
