"""What is still to be done, and what may be done now: asked by all workers of one conductor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from cellmove.journal import Entry


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to do with one server."""

    kind: Literal["move", "confirm"]
    server: str
    name: str
    host: str
    """Where it is, or was before it left."""
    entry: Entry | None = None
    """The open move that is to go on; of a confirm: the move that is confirmed."""
    due: float = 0.0
    """Not before this time (of the agenda's clock)."""


@dataclass(slots=True)
class Agenda:
    """Tasks in order; each is picked by one worker, who says when it is over."""

    tasks: list[Task]
    clock: Callable[[], float] = time.time
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Told of everything that may let somebody go on."""
    _active: int = 0
    _rests: dict[str, float] = field(default_factory=dict)
    """Host -> until when nothing of it is picked; empty name: of all."""

    def pick(self, *, may_move: bool) -> Task | None:
        """The first that may be done now; it is the caller's until `over` or `put_back`."""
        with self.changed:
            now = self.clock()
            for at, task in enumerate(self.tasks):
                if task.due <= now and (task.kind == "confirm" or (may_move and self._awake(task))):
                    self._active += 1
                    return self.tasks.pop(at)
        return None

    def over(self, *following: Task) -> None:
        """A picked task is done with; others may follow from it."""
        with self.changed:
            self._active -= 1
            self.tasks.extend(following)
            self.changed.notify_all()

    def put_back(self, task: Task, seconds: float) -> None:
        """A picked task could not be done now: in its old place again, after this time."""
        with self.changed:
            self._active -= 1
            self.tasks.insert(0, replace(task, due=self.clock() + seconds))

    def rest(self, seconds: float, host: str = "") -> None:
        """Pick no move (off this host) for so long: there is no use in asking."""
        with self.changed:
            self._rests[host] = self.clock() + seconds

    def wait(self, seconds: float) -> None:
        """Until something changed, or so long."""
        with self.changed:
            self.changed.wait(seconds)

    def drop(self, tasks: Iterable[Task]) -> None:
        """Forget these, if nobody has picked them."""
        gone = set(map(id, tasks))
        with self.changed:
            self.tasks = [each for each in self.tasks if id(each) not in gone]

    @property
    def empty(self) -> bool:
        """Whether nothing is left to do and nobody does anything from which more could follow."""
        with self.changed:
            return not self.tasks and not self._active

    def moves_left(self) -> bool:
        """Whether a move waits to be picked."""
        with self.changed:
            return any(task.kind == "move" for task in self.tasks)

    def _awake(self, task: Task) -> bool:
        now = self.clock()
        return all(self._rests.get(name, 0.0) <= now for name in ("", task.host))
