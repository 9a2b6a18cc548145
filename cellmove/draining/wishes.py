"""What somebody wants of a drain: frozen values, without any look at the cloud."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

from cellmove.draining.window import Window
from cellmove.errors import Usage

Order = Literal["smallest", "largest", "oldest", "name"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Resident:
    """A server that is to leave."""

    server: str
    name: str
    project_id: str
    host: str
    flavor: str
    created_at: str
    local_gb: int
    """Its disks on the hypervisor, as its flavor has them."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a server may be told by; a term that is empty says nothing."""

    projects: Collection[str] = ()
    """Ids."""
    flavors: Collection[str] = ()
    tags: Collection[str] = ()
    names: Collection[str] = ()
    """Patterns as of a shell: `web-*`."""

    def hits(self, one: Resident) -> list[bool]:
        """For each term that says something, whether it is so for this server."""
        said = (
            (self.projects, one.project_id in self.projects),
            (self.flavors, one.flavor in self.flavors),
            (self.tags, not set(self.tags).isdisjoint(one.tags)),
            (self.names, any(fnmatchcase(one.name, each) for each in self.names)),
        )
        return [hit for term, hit in said if term]


@dataclass(frozen=True, slots=True)
class Limit:
    """How many failures are borne: a number, or a share of all servers."""

    number: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Limit:
        """`3` or `10%`.

        Raises:
            Usage: it is neither.
        """
        found = re.fullmatch(r"(\d+)(%?)", text.strip())
        if found is None or (found[2] and int(found[1]) > 100):
            raise Usage(f"{text!r} is no number of failures.", do="Write it like 3 or 10%.")
        return cls(int(found[1]), bool(found[2]))

    def exceeded(self, failures: int, servers: int) -> bool:
        """Whether these are more failures than are borne."""
        return failures > (self.number * servers // 100 if self.percent else self.number)


@dataclass(frozen=True, slots=True)
class Wishes:
    """All that the command was told."""

    cell: str | None = None
    host: str | None = None
    to_cell: str | None = None
    order: Order = "smallest"
    only: Terms = field(default_factory=Terms)
    """Each of its terms must hit."""
    but: Terms = field(default_factory=Terms)
    """None of its terms may hit."""
    parallel: int = 2
    """Moves at a time of this conductor."""
    total: int | None = None
    """Moves at a time of all conductors together."""
    per_host: int | None = None
    """Moves at a time from or to one hypervisor, of all conductors together."""
    max_failures: Limit = field(default_factory=lambda: Limit(5))
    confirm_after_seconds: float | None = None
    """So long after a server's arrival it is confirmed; None: never."""
    window: Window | None = None
    cold: bool = False
    flatten: bool = False

    def wants(self, one: Resident) -> bool:
        """Whether this server is to leave."""
        return all(self.only.hits(one)) and not any(self.but.hits(one))

    def ordered(self, found: Iterable[Resident]) -> list[Resident]:
        """Those that are to leave, in the order in which they do."""
        wanted = [each for each in found if self.wants(each)]
        if self.order == "name":
            return sorted(wanted, key=lambda each: (each.name, each.server))
        wanted.sort(key=lambda each: (each.created_at, each.server))
        if self.order != "oldest":
            wanted.sort(key=lambda each: each.local_gb, reverse=self.order == "largest")
        return wanted


def seconds(text: str) -> float | None:
    """A time like `90s`, `30m`, `2h` or `1d`; None: `never`.

    Raises:
        Usage: it is none of these.
    """
    if text.strip() == "never":
        return None
    found = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if found is None:
        raise Usage(f"{text!r} is no length of time.", do="Write it like 30m, 2h, 1d or never.")
    return float(int(found[1]) * _UNITS[found[2]])
