"""What a look found."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cellmove.errors import CellmoveError


class Result(enum.Enum):
    """How well it is."""

    OK = "ok"
    WARN = "warn"
    """A move may still work; somebody should look."""
    FAIL = "fail"
    """A move will not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the check."""

    what: str
    result: Result
    seen: str = ""
    do: str = ""


def ok(what: str, seen: str) -> Finding:
    """It is well."""
    return Finding(what, Result.OK, seen)


def warn(what: str, seen: str, do: str) -> Finding:
    """Somebody should look."""
    return Finding(what, Result.WARN, seen, do)


def fail(what: str, seen: str, do: str) -> Finding:
    """A move will not work."""
    return Finding(what, Result.FAIL, seen, do)


def guarded(
    what: str, look: Callable[[], Iterator[Finding]], do: str | None = None
) -> Iterator[Finding]:
    """What the look finds; an error that ends it is a failure of `what`.

    `do` replaces the error's own advice where that would be to run this check.
    """
    try:
        yield from look()
    except CellmoveError as error:
        yield fail(what, f"{error.what} {error.seen}".strip(), do or error.do)
