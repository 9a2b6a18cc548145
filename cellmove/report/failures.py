"""Errors as answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.errors import CellmoveError, Refusals, UndoIncomplete
from cellmove.report.base import Document


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that ended the command."""

    error: CellmoveError

    def document(self) -> Document:
        """In docs/json.rst: "An error"."""
        return {"error": error_document(self.error)}

    def print(self, console: Console) -> None:
        """What; then what was seen, and what to do, each on a line of its own."""
        console.print(Text("Error: ", style="bold red"), Text(self.error.what), sep="")
        for reason in _reasons(self.error):
            console.print(Text(f"- {reason}"))
        for part in (self.error.seen, self.error.do):
            if part:
                console.print(Text(part))
        print_remains(console, _remains(self.error))


def error_document(error: CellmoveError) -> Document:
    """An error, with the reasons it collects."""
    return {
        "what": error.what,
        "seen": error.seen,
        "do": error.do,
        "exit_code": int(error.exit_code),
        "reasons": [{"what": r.what, "seen": r.seen, "do": r.do} for r in _reasons(error)],
        "remains": list(_remains(error)),
    }


def print_remains(console: Console, remains: Sequence[str]) -> None:
    """What was not taken back, as commands: each on a line of its own, to be copied."""
    if remains:
        console.print("To take back by hand what remains, if undo cannot:")
    for command in remains:
        console.print(f"  {command}", soft_wrap=True)


def _remains(error: CellmoveError) -> tuple[str, ...]:
    return error.remains if isinstance(error, UndoIncomplete) else ()


def _reasons(error: CellmoveError) -> tuple[CellmoveError, ...]:
    return error.reasons if isinstance(error, Refusals) else ()
