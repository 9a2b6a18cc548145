"""Ctrl-C and its relatives: first stop between two steps, then inside one; never in an undo."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP is among them: a lost terminal must not cut a step in two."""

_FIRST = (
    "Stopping after this step. Once more stops inside it where it can be cut; `cellmove resume` "
    "goes on from either."
)
_LATER = "Taking back: that is finished before anything stops."


class Interrupts(AbstractContextManager["Interrupts"]):
    """While the block runs, signals ask to stop instead of killing.

    Enter it in the main thread only: Python delivers signals nowhere else.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._asked = False
        self._undoing = False
        self._before: dict[signal.Signals, Any] = {}

    def should_stop(self) -> bool:
        """Whether somebody asked to stop: the conductor looks between two steps."""
        return self._asked

    def hold(self) -> None:
        """From here on steps are being taken back: every signal waits until that is done."""
        self._undoing = True

    def release(self) -> None:
        """The next move begins: signals may stop it."""
        self._undoing = False

    def __enter__(self) -> Self:
        self._before = {
            each: signal.signal(each, self._heard)
            for each in SIGNALS
            # One that is ignored stays so: under nohup a lost terminal means nothing.
            if signal.getsignal(each) is not signal.SIG_IGN
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._undoing:
            self._say(_LATER)
        elif self._asked:
            raise KeyboardInterrupt
        else:
            self._asked = True
            self._say(_FIRST)
