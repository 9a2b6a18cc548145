"""What the workers of one conductor share: the journal, the way to a cloud, and the signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from cellmove.cloud import Cloud
from cellmove.conductor import Conductor
from cellmove.draining.agenda import Task
from cellmove.draining.happenings import Happening, Tell
from cellmove.intake import Actor
from cellmove.interrupts import Interrupts
from cellmove.journal import Entry, Journal, Mark, State
from cellmove.model import Transfer
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.steps.base import Step

Watch = Callable[[Step, Mark], None]
Open = Callable[[str, Callable[[Transfer], None]], AbstractContextManager[OpenCloud]]
"""Opens a cloud for one move: its request id, and who is told of its copies."""


class Holds:
    """While one of several threads takes something back, signals wait for it."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self.should_stop = interrupts.should_stop

    def hold(self, number: int) -> None:
        """This move is being taken back."""
        with self._lock:
            self._held.add(number)
            self._interrupts.hold()

    def release(self, number: int) -> None:
        """No more."""
        with self._lock:
            self._held.discard(number)
            if not self._held:
                self._interrupts.release()


@dataclass(frozen=True, slots=True)
class Tools:
    """All of it is safe in several threads."""

    journal: Journal
    open: Open
    actor: Callable[[OpenCloud], Actor]
    notices: Callable[[Cloud, Entry], AbstractContextManager[Sequence[Watch]]]
    """Who tells the cloud's listeners of a move's steps."""
    tell: Tell


@dataclass(frozen=True, slots=True)
class Remarks:
    """What is worth knowing of one server on its way: told at once, and kept for its end."""

    tell: Tell
    task: Task
    said: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        """One more."""
        self.said.append(text)
        self.tell(Happening("note", self.task.server, self.task.name, note=text))

    @property
    def text(self) -> str:
        """All of them."""
        return " ".join(self.said)


def conduct(tools: Tools, holds: Holds, cloud: Cloud, entry: Entry) -> None:
    """Run a move of the journal from where it is, in its own direction.

    Raises:
        CellmoveError: as the conductor does.
    """
    journal, move = tools.journal, entry.move
    steps = plan(entry.verb, move)
    order = {step.name: at for at, step in enumerate(steps, 1)}
    begun = Happening(
        "begun", move.server, move.name, move.source, move.target, entry.number, steps=len(steps)
    )
    tools.tell(begun)
    told = threading.Lock()

    def watch(step: Step, mark: Mark) -> None:
        with told:  # steps may go side by side
            if mark in (Mark.FAILED, Mark.UNDOING):
                holds.hold(entry.number)
            tools.tell(replace(begun, kind="step", step=step, mark=mark, at=order[step.name]))
            for each in notices:
                each(step, mark)

    try:
        with journal.lease(move.id) as lease, tools.notices(cloud, entry) as notices:
            conductor = Conductor(
                journal, cloud, watch, lambda: holds.should_stop() or lease.lost, abreast=True
            )
            if entry.state is State.UNDOING:
                conductor.undo(journal.entry(move.id), steps)
            else:
                conductor.conduct(entry.number, steps, take_back=True)
    finally:
        holds.release(entry.number)
