"""The answers of `moves` and `show`: what the journal holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from rich.console import Console
from rich.text import Text

from cellmove.conductor import remains
from cellmove.journal import Entry, Mark
from cellmove.plan import plan
from cellmove.report.base import Document, duration, table
from cellmove.report.downtime import downtime_seconds
from cellmove.report.failures import print_remains
from cellmove.report.moves import (
    entry_document,
    move_facts,
    next_commands,
    place,
    state_text,
)
from cellmove.report.outcomes import print_next

_STYLES = {
    Mark.BEGUN: "yellow",
    Mark.DONE: "green",
    Mark.FAILED: "bold red",
    Mark.UNDOING: "yellow",
}


@dataclass(frozen=True, slots=True)
class StepLine:
    """How one step stands."""

    name: str
    mark: Mark | None
    """None: it was not begun."""
    at: str
    """When it was begun; ISO 8601, empty when it was not."""
    seconds: float | None
    """Worked on it: from each beginning, forward or back, to the event that followed."""
    note: str
    """What its newest failure said."""


def step_line(entry: Entry, name: str) -> StepLine:
    """How this step of the move stands, from the journal's events alone."""
    events = [event for event in entry.events if event.step == name]
    if not events:
        return StepLine(name, None, "", None, "")
    seconds = sum(
        (datetime.fromisoformat(after.at) - datetime.fromisoformat(event.at)).total_seconds()
        for event, after in pairwise(events)
        if event.mark in (Mark.BEGUN, Mark.UNDOING)
    )
    notes = [event.note for event in events if event.note]
    return StepLine(name, events[-1].mark, events[0].at, seconds, notes[-1] if notes else "")


@dataclass(frozen=True, slots=True)
class Moves:
    """All moves, or the newest of them."""

    entries: Sequence[Entry]
    where: str

    def document(self) -> Document:
        """In docs/json.rst: "The moves"."""
        return {
            "command": "moves",
            "journal": self.where,
            "moves": [entry_document(entry) for entry in self.entries],
        }

    def print(self, console: Console) -> None:
        """A table, newest last: there a terminal leaves the eye."""
        if not self.entries:
            console.print(f"There are no moves in {self.where}.")
            return
        moves = table("move", "verb", "server", "from", "to", "begun (UTC)", "state")
        for entry in self.entries:
            moves.add_row(
                str(entry.number),
                entry.verb,
                f"{entry.move.name}\n{entry.move.server}",
                place(entry.move.source),
                place(entry.move.target),
                _moment(entry.created_at),
                Text(*state_text(entry.state)),
            )
        if earlier := self.entries[0].number - 1:
            console.print(f"Moves 1 to {earlier} are not shown.")
        console.print(moves)


@dataclass(frozen=True, slots=True)
class Shown:
    """One move, step by step."""

    entry: Entry
    steps: Sequence[str]
    """Names, in order."""
    later: Sequence[Entry] = ()
    """The moves of the same server after it."""

    def document(self) -> Document:
        """In docs/json.rst: "One move"."""
        return {
            "command": "show",
            "move": entry_document(self.entry),
            "downtime_seconds": downtime_seconds(self.entry),
            "steps": [
                {
                    "number": number,
                    "name": line.name,
                    "mark": line.mark.value if line.mark else None,
                    "at": line.at or None,
                    "seconds": line.seconds,
                    "note": line.note,
                }
                for number, line in self._lines()
            ],
            "remains": list(self._remains()),
            "next": next_commands(self.entry, self.later),
        }

    def print(self, console: Console) -> None:
        """Facts, steps, the next command."""
        entry = self.entry
        about = move_facts(entry.verb, entry.move)
        about.add_row("move", f"{entry.number} ({entry.move.id})")
        about.add_row("request id", entry.move.request_id)
        about.add_row("begun", f"{_moment(entry.created_at)} UTC")
        about.add_row("state", Text(*state_text(entry.state)))
        if (down := downtime_seconds(entry)) is not None:
            about.add_row("downtime", f"{duration(down)}, and the guest's own boot")
        console.print(about)
        console.print()
        steps = table("#", "step", "state", "begun (UTC)", "took", "note")
        for number, line in self._lines():
            steps.add_row(
                str(number), line.name, _mark(line), _moment(line.at), _took(line), line.note
            )
        console.print(steps)
        console.print()
        print_remains(console, self._remains())
        print_next(console, next_commands(entry, self.later))

    def _remains(self) -> tuple[str, ...]:
        return remains(self.entry, plan(self.entry.verb, self.entry.move))

    def _lines(self) -> list[tuple[int, StepLine]]:
        return [(n, step_line(self.entry, name)) for n, name in enumerate(self.steps, 1)]


def _mark(line: StepLine) -> Text:
    if line.mark is None:
        return Text("not begun", style="dim")
    return Text(line.mark.value, style=_STYLES.get(line.mark, ""))


def _moment(at: str) -> str:
    return at[:19].replace("T", " ")


def _took(line: StepLine) -> str:
    return "" if line.seconds is None else duration(line.seconds)
