"""How far a drain is, while it runs: a table on a terminal, lines elsewhere, JSON for programs.

All are told of happenings from several threads at once. None may fail a move: one that cannot be
shown any more falls silent.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cellmove.draining.happenings import Happening
from cellmove.journal import Mark
from cellmove.model import Host, Transfer
from cellmove.report.base import VERSION, Document, duration, size

SECONDS_BETWEEN_LINES: Final = 5.0
_STYLES: Final = {"done": "green", "confirmed": "green", "failed": "bold red", "left": "yellow"}
_WORDS: Final = {"done": "has arrived", "confirmed": "confirmed", "stopped": "stopped"}


class Shown(Protocol):
    """What shows a drain."""

    def tell(self, happening: Happening) -> None:
        """Something happened."""
        ...

    def end(self) -> None:
        """The drain is over."""
        ...


class Silent:
    """Shows only what is said of the whole drain."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def tell(self, happening: Happening) -> None:
        """Notes."""
        if happening.kind == "note" and not happening.server:
            self._console.print(Text(happening.note))

    def end(self) -> None:
        """Nothing."""


class Slow:
    """Lets no more than one copy of a server through every few seconds, and its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at: dict[str, float] = {}

    def lets(self, happening: Happening) -> bool:
        """Whether to show it."""
        copied = happening.transfer
        if happening.kind != "copy" or copied is None:
            return True
        now = self._clock()
        whole = copied.done_bytes >= copied.total_bytes
        if not whole and now - self._said_at.get(happening.server, 0.0) < SECONDS_BETWEEN_LINES:
            return False
        self._said_at[happening.server] = now
        return True


class Lines:
    """A line for everything that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._slow = Slow()

    def tell(self, happening: Happening) -> None:
        """One line, if it is worth one."""
        if (line := _line(happening)) and self._slow.lets(happening):
            self._console.print(Text(line))

    def end(self) -> None:
        """Nothing."""


class JsonLines:
    """A JSON document a line on standard output."""

    def __init__(self) -> None:
        self._slow = Slow()

    def tell(self, happening: Happening) -> None:
        """One line."""
        if self._slow.lets(happening):
            sys.stdout.write(json.dumps(event_document(happening)) + "\n")
            sys.stdout.flush()

    def end(self) -> None:
        """Nothing."""


@dataclass(slots=True)
class _Line:
    """A server under way."""

    name: str
    source: str
    target: str
    step: str = ""
    copied: Transfer | None = None


class Board:
    """A table of what is under way, with the counts beneath; what is over scrolls up."""

    def __init__(self, console: Console, servers: int) -> None:
        self._console = console
        self._servers = servers
        self._under_way: dict[str, _Line] = {}
        self._counts: Counter[str] = Counter()
        self._live = Live(console=console, transient=True, get_renderable=self._table)
        self._live.start()

    def tell(self, happening: Happening) -> None:
        """Change the table."""
        if happening.kind == "begun":
            line = _Line(happening.name, _host(happening.source), _host(happening.target))
            self._under_way[happening.server] = line
        elif (line_there := self._under_way.get(happening.server)) and happening.step:
            back = "back: " if happening.mark is Mark.UNDOING else ""
            line_there.step = f"{back}{happening.at}/{happening.steps} {happening.step.name}"
            line_there.copied = None
        elif line_there and happening.transfer:
            line_there.copied = happening.transfer
        elif text := _line(happening):
            self._ended(happening)
            self._console.print(Text(text, style=_STYLES.get(happening.kind, "")))

    def end(self) -> None:
        """Take the table away; what scrolled up stays."""
        self._live.stop()

    def _ended(self, happening: Happening) -> None:
        if happening.kind != "note":
            self._counts[happening.kind] += 1
            self._under_way.pop(happening.server, None)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in ("server", "from", "to", "step", "copied", "rate", "left"):
            table.add_column(column, no_wrap=True)
        for line in list(self._under_way.values()):
            table.add_row(line.name, line.source, line.target, line.step, *_copy(line.copied))
        counts = ", ".join(f"{many} {kind}" for kind, many in self._counts.items()) or "none yet"
        table.caption = f"{self._servers} servers to move; {counts}"
        table.caption_justify = "left"
        return table


class Guarded:
    """One teller at a time; silent for good when something of it fails."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._lost = False

    def tell(self, happening: Happening) -> None:
        """As the display does."""
        self._try(lambda: self._shown.tell(happening))

    def end(self) -> None:
        """As the display does; nothing is shown after it."""
        self._try(self._shown.end)
        self._lost = True

    def say(self, text: str) -> None:
        """A message about the whole."""
        self.tell(Happening("note", note=text))

    def _try(self, show: Callable[[], None]) -> None:
        with self._lock:
            if not self._lost:
                try:
                    show()
                except Exception:  # noqa: BLE001 (a picture is never worth a server)
                    self._lost = True


def shown(console: Console, servers: int, *, as_json: bool, quiet: bool) -> Guarded:
    """What fits: `console` is that of messages."""
    if as_json:
        return Guarded(JsonLines())
    if quiet:
        return Guarded(Silent(console))
    if console.is_terminal and not console.is_dumb_terminal:
        return Guarded(Board(console, servers))
    return Guarded(Lines(console))


def event_document(happening: Happening) -> Document:
    """In docs/json.rst: "An event of a drain"."""
    copied = happening.transfer
    return {
        "version": VERSION,
        "event": happening.kind,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "server": happening.server or None,
        "name": happening.name or None,
        "move": happening.number,
        "source": _host(happening.source) or None,
        "target": _host(happening.target) or None,
        "step": happening.step.name if happening.step else None,
        "mark": happening.mark.value if happening.mark else None,
        "disk": copied.disk if copied else None,
        "done_bytes": copied.done_bytes if copied else None,
        "total_bytes": copied.total_bytes if copied else None,
        "note": happening.note or None,
    }


def _line(happening: Happening) -> str:
    """What there is to say; empty: nothing."""
    who, note = happening.name or happening.server, happening.note
    if happening.kind == "begun":
        way = f"{_host(happening.source)} to {_host(happening.target)}"
        return f"{who}: move {happening.number}, {way}, {happening.steps} steps"
    if happening.kind == "step" and happening.step:
        words = {Mark.BEGUN: "", Mark.UNDOING: "taking back ", Mark.FAILED: "failed: "}
        if happening.mark not in words:
            return ""
        word = words[happening.mark]
        return f"{who}: {happening.at}/{happening.steps} {word}{happening.step.name}"
    if happening.kind == "copy" and happening.transfer:
        told = ", ".join(filter(None, _copy(happening.transfer)))
        return f"{who}: {happening.transfer.disk}: {told}"
    word = _WORDS.get(happening.kind, happening.kind if happening.kind != "note" else "")
    if happening.kind == "done" and happening.target:
        word = f"{word} on {happening.target.name}"
    return ": ".join(part for part in (who, word, note) if part)


def _copy(copied: Transfer | None) -> tuple[str, str, str]:
    """Amount, rate and time left."""
    if copied is None:
        return "", "", ""
    amount = f"{size(copied.done_bytes)} of {size(copied.total_bytes)}"
    rate = copied.done_bytes / copied.seconds if copied.seconds else 0.0
    left = copied.total_bytes - copied.done_bytes
    return (
        amount,
        f"{size(rate)}/s" if rate else "",
        duration(left / rate) if rate and left else "",
    )


def _host(host: Host | None) -> str:
    return host.name if host else ""
