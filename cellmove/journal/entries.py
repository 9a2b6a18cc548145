"""A move as the journal knows it: the frozen move, its events, and the state they add up to."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from cellmove.errors import Refused
from cellmove.model import Cell, Disk, Flavor, Host, Move, Port, Volume

Verb = Literal["resize", "confirm", "revert"]
Saved = Mapping[str, Sequence[str]]


class Mark(enum.Enum):
    """What an event says of its step; the last three are of the move as a whole (step is empty)."""

    BEGUN = "begun"
    DONE = "done"
    FOUND = "found"
    """The effect was there before us: never undone."""
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    FINISHED = "finished"
    TAKEN_BACK = "taken-back"


class State(enum.Enum):
    """How a move stands, derived from its events."""

    OPEN = "open"
    """Begun and neither finished nor taken back: `resume` or `undo`."""
    UNDOING = "undoing"
    """Its undo was begun and is not complete: `undo` goes on."""
    FINISHED = "finished"
    TAKEN_BACK = "taken back"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal."""

    at: str
    step: str
    mark: Mark
    saved: Saved = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A move with its events."""

    number: int
    verb: Verb
    move: Move
    created_at: str
    events: tuple[Event, ...]

    @property
    def state(self) -> State:
        """How the move stands."""
        marks = [event.mark for event in self.events]
        if Mark.FINISHED in marks:
            return State.FINISHED
        if Mark.TAKEN_BACK in marks:
            return State.TAKEN_BACK
        return State.UNDOING if Mark.UNDOING in marks else State.OPEN

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do, forward or back."""
        return self.state in (State.OPEN, State.UNDOING)

    def last(self, step: str) -> Mark | None:
        """The step's newest mark other than FAILED; None when it was never begun."""
        marks = [e.mark for e in self.events if e.step == step and e.mark is not Mark.FAILED]
        return marks[-1] if marks else None

    def saved(self, step: str) -> Saved:
        """What the step's first look kept: later looks see our own half-made change."""
        return next((e.saved for e in self.events if e.step == step and e.mark is Mark.BEGUN), {})


def under_way(entry: Entry, leased: Refused | None) -> Refused:
    """The error for a server whose earlier move is neither finished nor taken back.

    `leased`: the error for that move itself, if a process works on it.
    """
    what = f"Server {entry.move.server} has a move under way."
    seen = f"Move {entry.number} ({entry.verb}) is {entry.state.value}."
    if leased:
        return Refused(what, f"{seen} {leased.seen}", leased.do)
    either = f"Run `cellmove resume {entry.number}` or `cellmove undo {entry.number}`."
    undo = f"Run `cellmove undo {entry.number}`."
    return Refused(what, seen, either if entry.state is State.OPEN else undo)


def move_of(text: str) -> Move:
    """The move that was written as this JSON."""
    data = json.loads(text)
    return Move(
        **data
        | {
            "source": _host(data["source"]),
            "target": _host(data["target"]),
            "old_flavor": Flavor(**data["old_flavor"]),
            "new_flavor": Flavor(**data["new_flavor"]),
            "ports": tuple(Port(**port) for port in data["ports"]),
            "disks": tuple(Disk(**disk) for disk in data["disks"]),
            "volumes": tuple(Volume(**volume) for volume in data.get("volumes", ())),
            "stale_attachments": tuple(data.get("stale_attachments", ())),
        }
    )


def now() -> str:
    """By this machine's clock, for people; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _host(data: dict[str, Any]) -> Host:
    return Host(**data | {"cell": Cell(**data["cell"])})
