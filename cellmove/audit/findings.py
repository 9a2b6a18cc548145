"""What the audit found: a stable name for it, its evidence, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from cellmove.cloud import Cloud

Mend = Callable[[Cloud], None]


class Severity(enum.Enum):
    """How bad it is; the worst first."""

    LOST = "lost"
    """Something that the server needs is not there, or nobody can find it."""
    DOUBLE = "double"
    """Something is there twice and must be there once."""
    LEFT_OVER = "left over"
    """Nobody needs it."""
    ODD = "odd"
    """It is not as nova leaves it; somebody should look."""


@dataclass(frozen=True, slots=True)
class Where:
    """Of what, and in which place; each may be empty."""

    server: str = ""
    name: str = ""
    """What people call the server."""
    cell: str = ""
    """Its name; empty: in none, or in several."""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    code: str
    """Its kind: a name that stays."""
    severity: Severity
    where: Where
    seen: str
    """The evidence: what is where."""
    do: tuple[str, ...] = ()
    """Commands that mend it, in this order."""
    thing: str = ""
    """What tells it from others of its kind: a port, a consumer, a volume..."""
    mend: Mend | None = field(default=None, compare=False)
    """Mends it without any harm; None: a person decides."""
    always: bool = False
    """Whether it is wrong even while something works on the server."""

    @property
    def key(self) -> tuple[str, ...]:
        """The same in two looks at the same thing."""
        return self.code, self.where.server, self.where.host, self.thing


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A server that something works on: what is unusual of it is no finding."""

    server: str
    name: str
    why: str
    do: str
