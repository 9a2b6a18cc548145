"""Outside calls that are counted, and that can go wrong at the n-th one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

When = Literal["before", "inside", "after"]
"""Never made; cut off in a transaction; made, but the answer is lost."""


class Blown(Exception):
    """The trap went off."""


@dataclass(slots=True)
class Trap:
    """Counts calls; set `at` and `when` to blow at one of them, once."""

    calls: int = 0
    at: int = 0
    when: When = "before"
    kind: type[BaseException] = Blown
    watch: Callable[[], None] = lambda: None
    """Called after each call that was made."""

    def arm(self, at: int, when: When, kind: type[BaseException] = Blown) -> None:
        """Blow at the `at`-th call from now on."""
        self.calls, self.at, self.when, self.kind = 0, at, when, kind

    def spring(self, when: When) -> None:
        """Blow if this is the call and the moment."""
        if self.calls == self.at and self.when == when:
            raise self.kind(f"call {self.at}, {when}")

    def around(self, real: Any) -> Any:
        """The same object, each call of which is counted."""
        return _Counted(real, self)


class _Counted:
    def __init__(self, real: Any, trap: Trap) -> None:
        self._real = real
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name in ("read", "write"):
            return functools.partial(self._transaction, found)
        if name == "reach":
            return lambda host: _Counted(found(host), self._trap)
        return functools.partial(self._call, found) if callable(found) else found

    def _call(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        self._trap.calls += 1
        self._trap.spring("before")
        answer = real(*args, **kwargs)
        self._trap.watch()
        self._trap.spring("after")
        return answer

    @contextmanager
    def _transaction(self, real: Any) -> Iterator[Any]:
        self._trap.calls += 1
        number = self._trap.calls
        self._trap.spring("before")
        with real() as rows:
            yield rows
            if self._trap.at == number:
                self._trap.spring("inside")
        self._trap.watch()
        if self._trap.at == number and self._trap.when == "after":
            raise self._trap.kind(f"call {number}, after")
