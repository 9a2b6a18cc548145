"""A whole drain: workers side by side, until nothing is left to do or somebody stops it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cellmove.draining.agenda import Agenda, Task
from cellmove.draining.happenings import Happening, Outcome
from cellmove.draining.scope import Found
from cellmove.draining.work import Work
from cellmove.errors import CellmoveError
from cellmove.journal import Busy, Entry, Turn

POLL_SECONDS = 0.5
"""How long a worker that found nothing to do waits before it looks again."""
HELD_SECONDS = 2.0
"""The same for a server that another conductor has."""
LOOK_SECONDS = 2.0
"""How often the failures of all conductors are counted."""


@dataclass(slots=True)
class Drain:
    """One conductor's share of a drain."""

    work: Work
    found: Found
    clock: Callable[[], float] = time.time
    outcomes: list[Outcome] = field(default_factory=list)
    given_up: bool = False
    """Whether there were more failures than are borne."""
    cut_short: bool = False
    """Whether somebody stopped it twice: what runs is not waited for."""
    broken: CellmoveError | None = None
    """What kept the workers from going on: the journal, which all of it hangs on."""
    _agenda: Agenda = field(init=False)
    _failures: int = 0
    _counted_at: float = 0.0
    _announced: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._agenda = Agenda(self._tasks(), self.clock)

    def run(self) -> list[Outcome]:
        """Do all of it; how it ended for each server, in the order in which it did.

        Meant for the main thread: signals reach it here. Asked to stop, each worker ends the step
        that it is in; asked twice, nobody is waited for, and the journal covers what was begun.
        """
        workers = [
            threading.Thread(target=self._worker, name=f"worker {number}", daemon=True)
            for number in range(1, self.work.wishes.parallel + 1)
        ]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(POLL_SECONDS)
        except KeyboardInterrupt:
            self.cut_short = True
        with self._lock:
            return list(self.outcomes)

    @property
    def stopped(self) -> bool:
        """Whether it ended because somebody asked for it."""
        return self.work.holds.should_stop()

    def _tasks(self) -> list[Task]:
        """What was begun first; then the servers in order; confirms whenever they are due."""
        found, wishes = self.found, self.work.wishes
        tasks = [
            # A confirm's turn is over already.
            Task("confirm" if entry.verb == "confirm" else "move", *_of(entry), entry)
            for entry in found.begun
        ]
        tasks += [Task("move", each.server, each.name, each.host) for each in found.wanted]
        if wishes.confirm_after_seconds is not None:
            tasks += [
                self._confirm(each.server, each.name, each.host, each.since)
                for each in found.waiting
                if each.entry is not None and each.since
            ]
        return tasks

    def _confirm(self, server: str, name: str, host: str, since: str) -> Task:
        after = self.work.wishes.confirm_after_seconds or 0.0
        due = dt.datetime.fromisoformat(since).timestamp() + after
        return Task("confirm", server, name, host, due=due)

    def _worker(self) -> None:
        try:
            while (task := self._next()) is not None:
                following: list[Task] = []
                if task.kind == "confirm":
                    self._note(self.work.confirmed(task))
                elif not self._moved(task, following):
                    continue
                self._agenda.over(*following)
        except CellmoveError as error:
            self.broken = error

    def _next(self) -> Task | None:
        """The next thing to do, waiting for it; None: there is nothing more."""
        while not (self.stopped or self.broken or self._too_many() or self._agenda.empty):
            may_move = self._is_open()
            task = self._agenda.pick(may_move=may_move)
            if task is not None:
                return task
            self._agenda.wait(POLL_SECONDS)
        return None

    def _moved(self, task: Task, following: list[Task]) -> bool:
        """Move one if it is its turn; False: it is not, and the task is back on the agenda."""
        turn = self.work.turn(task)
        outcome = self.work.moved(task, turn) if isinstance(turn, Turn) else turn
        if isinstance(outcome, Outcome):
            self._note(outcome)
            if outcome.kind == "done":
                following += self._following(outcome)
            return True
        if outcome is Busy.OVER:
            self._note(self._of_others(task))
            return True
        if outcome is Busy.TAKEN:
            self._agenda.put_back(task, HELD_SECONDS)
            return False
        self._agenda.rest(POLL_SECONDS, task.host if outcome is Busy.HOST else "")
        self._agenda.put_back(task, POLL_SECONDS)
        return False

    def _following(self, outcome: Outcome) -> list[Task]:
        """Its confirm, if it is to be confirmed by us; counted from now on."""
        after = self.work.wishes.confirm_after_seconds
        if after is None or outcome.source is None:
            return []
        due = self.clock() + after
        return [Task("confirm", outcome.server, outcome.name, outcome.source.name, due=due)]

    def _of_others(self, task: Task) -> Outcome | None:
        """How a server's turn ended that another conductor had, or an earlier run of the same."""
        turns = self.work.tools.journal.turns(self.work.drain)
        turn = next((each for each in turns if each.server == task.server), None)
        if turn is None or turn.result is None:
            return None
        return Outcome(turn.result, task.server, task.name, number=turn.move, note=turn.note)

    def _note(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        with self._lock:
            self.outcomes.append(outcome)
        if not self.cut_short:
            self.work.tools.tell(outcome.happening())

    def _too_many(self) -> bool:
        """Whether more servers failed than are borne, of all conductors together."""
        with self._lock:
            if self.given_up:
                return True
            own = sum(1 for each in self.outcomes if each.kind == "failed")
            if self.clock() - self._counted_at > LOOK_SECONDS:
                self._counted_at = self.clock()
                self._failures = self.work.tools.journal.failures(self.work.drain)
            servers = len(self.found.begun) + len(self.found.wanted)
            limit = self.work.wishes.max_failures
            self.given_up = limit.exceeded(max(own, self._failures), servers)
            return self.given_up

    def _is_open(self) -> bool:
        """Whether servers may be moved now; the first to find it shut says until when."""
        window = self.work.wishes.window
        if window is None:
            return True
        now = dt.datetime.fromtimestamp(self.clock())  # noqa: DTZ006 - windows are local time
        left = window.opens_in(now)
        if not left:
            self._announced = ""
            return True
        opens = f"{now + left:%a %d %b %H:%M}"
        with self._lock:
            new, self._announced = opens != self._announced, opens
        if new and self._agenda.moves_left():
            text = f"Outside of the window {window.text}: nothing is begun until {opens}."
            self.work.tools.tell(Happening("note", note=text))
        return False


def _of(entry: Entry) -> tuple[str, str, str]:
    """Server, its name, and the host that it leaves."""
    return entry.move.server, entry.move.name, entry.move.source.name


def looked(work: Work, found: Found) -> list[Outcome]:
    """Take every server in and move none, as many at a time as would be moved."""
    servers = iter(found.wanted)
    lock = threading.Lock()
    outcomes: list[Outcome] = []

    def worker() -> None:
        while not work.holds.should_stop():
            with lock:
                each = next(servers, None)
            if each is None:
                return
            outcomes.append(work.looked_at(Task("move", each.server, each.name, each.host)))

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(work.wishes.parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
    order = {each.server: at for at, each in enumerate(found.wanted)}
    return sorted(outcomes, key=lambda each: order[each.server])
