"""What a drain tells while it runs, and how it ended for each server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cellmove.errors import CellmoveError
from cellmove.journal import Mark
from cellmove.model import Host, Move, Transfer
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
    """How it ended for one server."""

    kind: Kind
    server: str
    name: str
    move: Move | None = None
    number: int | None = None
    error: CellmoveError | None = None
    note: str = ""
    """What another conductor wrote down of it, or an earlier part of the same drain."""

    def happening(self) -> Happening:
        """The same as it is told at once."""
        return Happening(
            self.kind,
            self.server,
            self.name,
            self.move.source if self.move else None,
            self.move.target if self.move else None,
            self.number,
            note=str(self.error or self.note),
        )
