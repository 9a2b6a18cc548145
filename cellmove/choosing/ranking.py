"""Every host judged: those that can take the server, best first, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cellmove.choosing.facts import Candidate, Multipliers, Wish
from cellmove.choosing.filters import FILTERS
from cellmove.choosing.weighers import weigh
from cellmove.model import Host


@dataclass(frozen=True, slots=True)
class Weighed:
    """A host that can take the server."""

    host: Host
    weights: Mapping[str, float]
    """Weigher -> what it gives."""

    @property
    def weight(self) -> float:
        """The more, the better."""
        return sum(self.weights.values())


@dataclass(frozen=True, slots=True)
class Dropped:
    """A host that cannot."""

    host: Host
    filter: str
    """The first that spoke against it."""
    why: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """The judgement over all hosts."""

    fit: tuple[Weighed, ...]
    """Best first; equals by name."""
    dropped: tuple[Dropped, ...]
    """By name."""

    @property
    def best(self) -> Host | None:
        return self.fit[0].host if self.fit else None

    def alternates(self, most: int) -> tuple[Host, ...]:
        """The best host and the next ones of its cell, at most so many of all.

        nova 26: scheduler/manager.py:_get_alternate_hosts.
        """
        cell = self.best.cell if self.best else None
        return tuple(each.host for each in self.fit if each.host.cell == cell)[:most]


def rank(candidates: Iterable[Candidate], wish: Wish, by: Multipliers) -> Ranking:
    """Filter and weigh."""
    fit: list[Candidate] = []
    dropped: list[Dropped] = []
    for candidate in sorted(candidates, key=lambda each: each.host.name):
        against = next(
            (
                Dropped(candidate.host, name, why)
                for name, says in FILTERS.items()
                if (why := says(candidate, wish))
            ),
            None,
        )
        if against:
            dropped.append(against)
        else:
            fit.append(candidate)
    weighed = [
        Weighed(candidate.host, weights)
        for candidate, weights in zip(fit, weigh(fit, wish, by), strict=True)
    ]
    weighed.sort(key=lambda each: -each.weight)
    return Ranking(tuple(weighed), tuple(dropped))
