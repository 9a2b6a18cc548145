"""Placement in memory: consumers with generations, providers with room."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cellmove.errors import Conflict, StepFailed
from cellmove.model import Allocations


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a provider has of one resource class."""

    total: int
    reserved: int = 0
    allocation_ratio: float = 1.0
    max_unit: int = 2**31 - 1

    @property
    def capacity(self) -> int:
        return math.floor((self.total - self.reserved) * self.allocation_ratio)


class FakePlacement:
    """A `cloud.Placement`; the contract suite holds it to a real Placement."""

    def __init__(self) -> None:
        self._inventories: dict[str, Mapping[str, Inventory]] = {}
        self._consumers: dict[str, Allocations] = {}

    def add_provider(self, provider: str, inventory: Mapping[str, Inventory]) -> None:
        """Make a provider, or give one another inventory."""
        self._inventories[provider] = dict(inventory)

    def snapshot(self) -> dict[str, object]:
        """Who holds what for whom. Generations are left out: they only ever count writes."""
        return {
            held.consumer: (held.project_id, held.user_id, held.resources)
            for held in self._consumers.values()
        }

    def allocations(self, consumer: str) -> Allocations:
        return self._consumers.get(consumer, Allocations(consumer, {}, None))

    def replace(self, changes: Sequence[Allocations]) -> None:
        for change in changes:
            self._check_generation(change)
        after = dict(self._consumers)
        for change in changes:
            after.pop(change.consumer, None)
            if change.resources:
                after[change.consumer] = _written(change)
        for change in changes:
            self._check_room(change, after)
        self._consumers = after

    def free(self, provider: str) -> Mapping[str, int]:
        if provider not in self._inventories:
            raise StepFailed(f"The inventory of provider {provider} could not be read.")
        return {
            name: max(0, min(has.max_unit, has.capacity - _used(self._consumers, provider, name)))
            for name, has in self._inventories[provider].items()
        }

    def _check_generation(self, change: Allocations) -> None:
        expected = self.allocations(change.consumer).generation
        if change.generation != expected:
            raise Conflict(
                "Somebody else changed the allocations between our look and our write.",
                f"Expected generation {expected} but got {change.generation}.",
            )

    def _check_room(self, change: Allocations, after: Mapping[str, Allocations]) -> None:
        for provider, amounts in change.resources.items():
            if provider not in self._inventories:
                raise StepFailed("Placement did not change the allocations.", "No such provider.")
            for name, amount in amounts.items():
                has = self._inventories[provider].get(name, Inventory(0))
                if amount > has.max_unit or _used(after, provider, name) > has.capacity:
                    raise Conflict("The host has no room for the allocations.", f"{name} is full.")


def _written(change: Allocations) -> Allocations:
    resources = {provider: dict(amounts) for provider, amounts in change.resources.items()}
    return replace(change, resources=resources, generation=(change.generation or 0) + 1)


def _used(consumers: Mapping[str, Allocations], provider: str, name: str) -> int:
    return sum(held.resources.get(provider, {}).get(name, 0) for held in consumers.values())
