"""Every error cellmove raises on purpose, each three sentences: what, what was seen, what to do."""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Exit(enum.IntEnum):
    """Exit codes: they say what state the cloud is in, and are stable."""

    DONE = 0
    REFUSED = 1
    """Nothing was touched."""
    USAGE = 2
    TAKEN_BACK = 3
    """Failed, and all that was begun has been taken back."""
    NOT_TAKEN_BACK = 4
    """Failed, and something remains: it is printed with the next command."""
    STOPPED = 5
    """Stopped on request; `cellmove resume` goes on."""
    SOME_FAILED = 6
    FINDINGS = 7
    """The audit or the check found something."""


class CellmoveError(Exception):
    """Root of all errors: `what` went wrong, what was `seen`, what to `do` next."""

    exit_code = Exit.REFUSED
    """Outside a move nothing has been touched; inside, the conductor says how it stands."""

    def __init__(self, what: str, seen: str = "", do: str = "") -> None:
        super().__init__(what, seen, do)
        self.what = what
        self.seen = seen
        self.do = do

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.seen, self.do) if part)


class Refused(CellmoveError):
    """The request cannot be honoured; nothing was touched."""

    exit_code = Exit.REFUSED


class Usage(Refused):
    """The command was typed in a way that it cannot be run."""

    exit_code = Exit.USAGE


class Refusals(Refused):
    """Several reasons at once, so that the operator mends them all before the next try."""

    def __init__(self, what: str, reasons: Sequence[Refused]) -> None:
        super().__init__(what, f"{len(reasons)} reasons.", "Mend them and run the command again.")
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"- {reason}" for reason in self.reasons)])


class StepFailed(CellmoveError):
    """A step did not do what it should; what it began can be undone."""


class Conflict(StepFailed):
    """Somebody else changed a record between our look and our write: nothing was written."""


class Unknown(StepFailed):
    """The outcome of a call is not known (a time-out, a lost link): look before going on."""


class Unreachable(CellmoveError):
    """A database, service or host could not be reached at all."""


class TakenBack(CellmoveError):
    """A move failed, and all that it began has been taken back."""

    exit_code = Exit.TAKEN_BACK


class UndoIncomplete(CellmoveError):
    """Undo stopped at something that resists; what remains is named."""

    exit_code = Exit.NOT_TAKEN_BACK

    def __init__(
        self, what: str, seen: str = "", do: str = "", remains: Sequence[str] = ()
    ) -> None:
        super().__init__(what, seen, do)
        self.remains = tuple(remains)
        """Commands that take back by hand what was not, in the order in which to run them."""


class Stopped(CellmoveError):
    """The operator asked to stop; the journal covers what was done."""

    exit_code = Exit.STOPPED
