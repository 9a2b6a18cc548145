"""How far a move is, while it runs: live on a terminal, a line now and then elsewhere.

All of it goes to standard error. Nothing here may fail a move: a lost terminal is no reason to
take a server back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cellmove.journal import Mark
from cellmove.model import Transfer
from cellmove.report.base import duration, size
from cellmove.steps.base import Step

SECONDS_BETWEEN_LINES = 5.0
_ENDS = {
    Mark.DONE: ("done", "green"),
    Mark.FOUND: ("there", "green"),
    Mark.FAILED: ("failed", "bold red"),
    Mark.UNDONE: ("undone", "yellow"),
}


class Display(Protocol):
    """What shows the steps of one move, and the bytes of one disk at a time."""

    def begin(self, title: str, steps: Sequence[Step]) -> None:
        """A move begins; `steps` are all of it, those done earlier included."""
        ...

    def step(self, step: Step, mark: Mark) -> None:
        """A step was begun, or ended in one way or another."""
        ...

    def transfer(self, transfer: Transfer) -> None:
        """More of a disk was copied."""
        ...

    def say(self, text: str) -> None:
        """A message for the operator."""
        ...

    def end(self) -> None:
        """The move is over."""
        ...


class Quiet:
    """Shows nothing but messages."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, title: str, steps: Sequence[Step]) -> None:
        """Nothing."""

    def step(self, step: Step, mark: Mark) -> None:
        """Nothing."""

    def transfer(self, transfer: Transfer) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Said all the same."""
        self._console.print(text)

    def end(self) -> None:
        """Nothing."""


class Lines(Quiet):
    """A line for each step, and one now and then while a disk is copied."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console)
        self._clock = clock
        self._numbers: dict[str, str] = {}
        self._copy: tuple[str, float, int] = ("", 0.0, 0)
        """The disk under way, when its copy began, and how much was there by then."""
        self._said_at = 0.0

    def begin(self, title: str, steps: Sequence[Step]) -> None:
        """The title, with the number of steps."""
        width = len(str(len(steps)))
        self._numbers = {s.name: f"{n:{width}}/{len(steps)}" for n, s in enumerate(steps, 1)}
        self.say(f"{title}: {len(steps)} steps")

    def step(self, step: Step, mark: Mark) -> None:
        """What it is about to do; how it ended only when that is not what was to be expected."""
        number = self._numbers.get(step.name, "")
        if mark is Mark.BEGUN:
            self.say(f"{number} {step.name}: {step.describe()}")
        elif mark is Mark.UNDOING:
            self.say(f"{number} taking back {step.name}")
        elif mark is Mark.FOUND:
            self.say(f"{number} {step.name}: there already")
        elif mark is Mark.FAILED:
            self.say(f"{number} {step.name}: failed")

    def transfer(self, transfer: Transfer) -> None:
        """A line every few seconds, and one at the end."""
        now = self._clock()
        if self._copy[0] != _named(transfer):
            self._copy = (_named(transfer), now, transfer.done_bytes)
            self._said_at = now
        whole = transfer.done_bytes >= transfer.total_bytes
        if whole or now - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = now
            self.say(self._line(transfer, now))

    def _line(self, transfer: Transfer, now: float) -> str:
        _disk, since, before = self._copy
        rate = (transfer.done_bytes - before) / (now - since) if now > since else 0.0
        line = (
            f"  {_named(transfer)}: {size(transfer.done_bytes)} of {size(transfer.total_bytes)}"
            f", {size(rate)}/s"
        )
        left = transfer.total_bytes - transfer.done_bytes
        return f"{line}, {duration(left / rate)} left" if rate and left else line


class _Amount(ProgressColumn):
    """Bytes and rate in the units of all our output."""

    def render(self, task: Task) -> Text:
        """E.g. `312.0 MiB of 2.0 GiB, 85.1 MiB/s`."""
        rate = f", {size(task.speed)}/s" if task.speed else ""
        return Text(f"{size(task.completed)} of {size(task.total or 0)}{rate}")


class Alive(Quiet):
    """Finished steps scroll up; the one under way and the bytes stay at the bottom."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console)
        self._clock = clock
        self._begun_at = clock()
        self._steps = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("step {task.fields[at]} of {task.total}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bytes = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            _Amount(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self._live = Live(Group(self._steps, self._bytes), console=console, transient=True)
        self._task = TaskID(0)
        self._disks: dict[str, TaskID] = {}
        self._order: list[str] = []

    def begin(self, title: str, steps: Sequence[Step]) -> None:
        """The title, and the display beneath it."""
        self._order = [step.name for step in steps]
        self._console.print(Text(title, style="bold"))
        self._task = self._steps.add_task("", total=len(steps), at=0)
        self._live.start()

    def step(self, step: Step, mark: Mark) -> None:
        """Move the display on."""
        if mark in _ENDS:
            self._ended(step, mark)
        else:
            self._begun_at = self._clock()
            verb = "taking back " if mark is Mark.UNDOING else ""
            at = self._order.index(step.name)
            text = f"{verb}{step.name}: {step.describe()}"
            self._steps.update(self._task, description=text, completed=at, at=at + 1)

    def transfer(self, transfer: Transfer) -> None:
        """Move the bar on."""
        name = _named(transfer)
        if name not in self._disks:
            self._disks[name] = self._bytes.add_task(name, total=None)
        self._bytes.update(
            self._disks[name],
            completed=transfer.done_bytes,
            total=transfer.total_bytes,
        )

    def end(self) -> None:
        """Take the display away; what scrolled up stays."""
        self._live.stop()
        self._steps.remove_task(self._task)
        self._drop_disks()

    def _ended(self, step: Step, mark: Mark) -> None:
        word, style = _ENDS[mark]
        took = "" if mark is Mark.FOUND else f"  {duration(self._clock() - self._begun_at)}"
        self._console.print(Text(f"{word:>6}", style=style), Text(f"  {step.name}{took}"), sep="")
        self._drop_disks()

    def _drop_disks(self) -> None:
        for task in self._disks.values():
            self._bytes.remove_task(task)
        self._disks.clear()


def _named(transfer: Transfer) -> str:
    """The disk, and which time it is copied: what it has is copied once, then what is written."""
    return f"{transfer.disk}, round {transfer.round}" if transfer.round else transfer.disk


class Guarded:
    """A display that falls silent for good when something of it fails."""

    def __init__(self, shown: Display) -> None:
        self._shown = shown
        self._lost = False

    def begin(self, title: str, steps: Sequence[Step]) -> None:
        """As the display does."""
        self._try(self._shown.begin, title, steps)

    def step(self, step: Step, mark: Mark) -> None:
        """As the display does."""
        self._try(self._shown.step, step, mark)

    def transfer(self, transfer: Transfer) -> None:
        """As the display does."""
        self._try(self._shown.transfer, transfer)

    def say(self, text: str) -> None:
        """As the display does."""
        self._try(self._shown.say, text)

    def end(self) -> None:
        """As the display does."""
        self._try(self._shown.end)

    def _try(self, show: Callable[..., None], *what: object) -> None:
        if not self._lost:
            try:
                show(*what)
            except Exception:  # noqa: BLE001 (a picture is never worth a server)
                self._lost = True


def display(console: Console, *, quiet: bool) -> Guarded:
    """What fits this console."""
    if quiet:
        return Guarded(Quiet(console))
    if console.is_terminal and not console.is_dumb_terminal:
        return Guarded(Alive(console))
    return Guarded(Lines(console))
