"""The answer of `--explain`: every host, and why it was or was not chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from cellmove.choosing import Dropped, Weighed
from cellmove.intake.explained import Explained
from cellmove.report.base import Document, table

CLOSE_LOOK = "host"
"""In the place of a filter: what was found by looking at the host itself."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One host of a choice."""

    host: str
    cell: str
    rank: int | None
    """Among those that passed all filters; None: it did not."""
    weights: dict[str, float]
    filter: str
    """What dropped it; empty: nothing did."""
    why: str
    chosen: bool = False

    def document(self) -> Document:
        """In docs/json.rst, under Parts."""
        return {
            "host": self.host,
            "cell": self.cell,
            "rank": self.rank,
            "weight": None if self.rank is None else round(sum(self.weights.values()), 4),
            "weights": {name: round(value, 4) for name, value in self.weights.items()},
            "filter": self.filter or None,
            "why": self.why,
            "chosen": self.chosen,
        }

    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.weights.items() if value)
        weight = "" if self.rank is None else f"{sum(self.weights.values()):.2f}"
        verdict = f"{self.filter}: {self.why}" if self.filter else "chosen" if self.chosen else ""
        rank = "" if self.rank is None else str(self.rank)
        return rank, self.host, self.cell, weight, parts, verdict


def judged(explained: Explained) -> Iterator[Judged]:
    """Every host: those that can be had best first, then the others by name."""
    for rank, each in enumerate(explained.fit, 1):
        yield _fit(explained, rank, each)
    for dropped in explained.dropped:
        yield _dropped(dropped)


def explained_document(explained: Explained) -> Document:
    """One element of `explained`."""
    return {
        "server": explained.server,
        "name": explained.name,
        "flavor": explained.flavor,
        "hosts": [each.document() for each in judged(explained)],
    }


def print_explained(console: Console, choices: Sequence[Explained]) -> None:
    """A table a server."""
    for each in choices:
        if not each.told:
            continue
        rows = table("#", "host", "cell", "weight", "of which", "verdict")
        for host in judged(each):
            rows.add_row(*host.row())
        console.print(f"Hosts for {each.name} ({each.server}) with flavor {each.flavor}:")
        console.print(rows)
        console.print()


def _fit(explained: Explained, rank: int, each: Weighed) -> Judged:
    name = each.host.name
    reasons = explained.looked_at.get(name, ())
    return Judged(
        host=name,
        cell=each.host.cell.name,
        rank=rank,
        weights=dict(each.weights),
        filter=CLOSE_LOOK if reasons else "",
        why=" ".join(f"{reason.what} {reason.seen}" for reason in reasons),
        chosen=name == explained.chosen,
    )


def _dropped(each: Dropped) -> Judged:
    return Judged(each.host.name, each.host.cell.name, None, {}, each.filter, each.why)
