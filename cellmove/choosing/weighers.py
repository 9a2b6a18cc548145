"""The weighers: what speaks for one host rather than another, with nova's values and meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellmove.choosing.facts import Candidate, Multipliers, Wish


@dataclass(frozen=True, slots=True)
class Weigher:
    """One view of a host."""

    name: str
    multiplier: str
    """Its field of `Multipliers`, and the key of an aggregate's metadata that overrides it."""
    raw: Callable[[Candidate, Wish], float]
    floor: float | None = None
    """The least value, which weighs 0; None: the least that was seen."""


def _of_group(policy: str, sign: int) -> Callable[[Candidate, Wish], float]:
    def raw(candidate: Candidate, wish: Wish) -> float:
        if wish.group_policy != policy:
            return 0
        return sign * wish.group_hosts.get(candidate.host.name, 0)

    return raw


def _stays(candidate: Candidate, wish: Wish) -> float:
    if wish.cells is not None:
        return 0  # the cell was named: nothing is preferred
    return 1 if candidate.host.cell == wish.source.cell else -1


WEIGHERS = (
    Weigher("ram", "ram_weight_multiplier", lambda host, _: host.free_ram_mb, 0),
    Weigher("cpu", "cpu_weight_multiplier", lambda host, _: host.free_vcpus, 0),
    Weigher("disk", "disk_weight_multiplier", lambda host, _: host.free_disk_mb, 0),
    Weigher("soft-affinity", "soft_affinity_weight_multiplier", _of_group("soft-affinity", 1)),
    Weigher(
        "soft-anti-affinity",
        "soft_anti_affinity_weight_multiplier",
        _of_group("soft-anti-affinity", -1),
    ),
    Weigher("cross-cell", "cross_cell_move_weight_multiplier", _stays),
)
"""nova 26: scheduler/weights/; without those that know only nova's own process."""


def weigh(candidates: Sequence[Candidate], wish: Wish, by: Multipliers) -> list[dict[str, float]]:
    """Weigher -> what it gives each candidate, in the order of the candidates.

    Values are brought to 0..1 over these candidates, then multiplied. nova 26: weights.py.
    """
    weights: list[dict[str, float]] = [{} for _ in candidates]
    for weigher in WEIGHERS:
        raw = [weigher.raw(candidate, wish) for candidate in candidates]
        for into, candidate, value in zip(
            weights, candidates, _normal(raw, weigher.floor), strict=True
        ):
            into[weigher.name] = value * _multiplier(candidate, weigher.multiplier, by)
    return weights


def _normal(raw: Sequence[float], floor: float | None) -> list[float]:
    if not raw:
        return []
    values = [value if floor is None else max(value, floor) for value in raw]
    least, most = min(values) if floor is None else floor, max(values)
    if least == most:
        return [0.0] * len(values)
    return [(value - least) / (most - least) for value in values]


def _multiplier(candidate: Candidate, name: str, by: Multipliers) -> float:
    """The least of what its aggregates say; what cannot be read counts for nothing."""
    given: float = getattr(by, name)
    try:
        return min((float(value) for value in candidate.metadata(name)), default=given)
    except ValueError:
        return given
