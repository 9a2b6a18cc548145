"""Choosing a target as nova's scheduler would, over all cells: pure, over what was read before."""

from cellmove.choosing.facts import Aggregate, Candidate, Multipliers, Wish
from cellmove.choosing.ranking import Dropped, Ranking, Weighed, rank

__all__ = [
    "Aggregate",
    "Candidate",
    "Dropped",
    "Multipliers",
    "Ranking",
    "Weighed",
    "Wish",
    "rank",
]
