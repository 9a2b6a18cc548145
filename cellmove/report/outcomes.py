"""The answers of the verbs that change something: where each server is, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.errors import CellmoveError, Exit
from cellmove.journal import Entry, Verb
from cellmove.model import Move
from cellmove.report.base import Document, duration
from cellmove.report.failures import error_document
from cellmove.report.moves import after_verb, arrived, entry_document, warnings, where


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended for one server."""

    verb: Verb
    asked: str
    """The server as it was asked for: what the next command can be told."""
    move: Move | None = None
    number: int | None = None
    error: CellmoveError | None = None
    downtime_seconds: float | None = None
    """How long the guest was kept off; None: it was not, or it did not get that far."""

    @property
    def exit_code(self) -> Exit:
        """Of this server alone."""
        return self.error.exit_code if self.error else Exit.DONE

    def document(self) -> Document:
        """One element of `results`."""
        host, flavor = where(self.verb, self.move) if self.move and not self.error else (None, None)
        return {
            "asked": self.asked,
            "server": self.move.server if self.move else None,
            "name": self.move.name if self.move else None,
            "verb": self.verb,
            "move": self.number,
            "exit_code": int(self.exit_code),
            "host": host.name if host else None,
            "cell": host.cell.name if host else None,
            "flavor": flavor.name if flavor else None,
            "downtime_seconds": self.downtime_seconds,
            "warnings": warnings(self.verb, self.move) if self.move and not self.error else [],
            "next": [] if self.error else after_verb(self.verb, self.asked),
            "error": error_document(self.error) if self.error else None,
        }

    def print(self, console: Console) -> None:
        """One or two lines."""
        if self.error:
            console.print(Text(f"{self.asked}: ", style="bold red"), Text(str(self.error)), sep="")
        elif self.move:
            console.print(arrived(self.verb, self.move))
            if self.downtime_seconds is not None:
                off = duration(self.downtime_seconds)
                console.print(f"Its guest was off for {off}, and then booted.")
            for each in warnings(self.verb, self.move):
                console.print(Text(each, style="yellow"))
            print_next(console, after_verb(self.verb, self.asked))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How it ended for all of them."""

    command: str
    outcomes: Sequence[Outcome]

    @property
    def exit_code(self) -> Exit:
        """The one that all share; else that it was stopped, or that some failed."""
        codes = {outcome.exit_code for outcome in self.outcomes}
        if Exit.STOPPED in codes:
            return Exit.STOPPED
        return codes.pop() if len(codes) == 1 else Exit.SOME_FAILED

    def document(self) -> Document:
        """In docs/json.rst: "A result"."""
        return {
            "command": self.command,
            "exit_code": int(self.exit_code),
            "results": [outcome.document() for outcome in self.outcomes],
        }

    def print(self, console: Console) -> None:
        """Server by server; of several, the count last."""
        for outcome in self.outcomes:
            outcome.print(console)
        if len(self.outcomes) > 1:
            done = sum(1 for each in self.outcomes if not each.error)
            console.print(f"{done} of {len(self.outcomes)} servers done.")


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The answer of `undo`."""

    entry: Entry

    def document(self) -> Document:
        """In docs/json.rst: "A move taken back"."""
        return {"command": "undo", "move": entry_document(self.entry)}

    def print(self, console: Console) -> None:
        """One line."""
        entry = self.entry
        how = entry.events[-1].note or f"{entry.move.name} is as it was before."
        console.print(f"Move {entry.number} is wholly taken back: {how}")


def print_next(console: Console, commands: Sequence[str]) -> None:
    """What to type next, if there is something: each on a line of its own, to be copied."""
    for lead, command in zip(("Next:", "  or:"), commands, strict=False):
        console.print(f"{lead} {command}", soft_wrap=True)
