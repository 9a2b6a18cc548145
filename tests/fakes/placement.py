"""Placement in memory: consumers with generations, providers with room."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from cellmove.errors import Conflict, StepFailed
from cellmove.model import Allocations, Candidate, ResourceGroup


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
        self._roots: dict[str, str] = {}
        """Nested provider -> the root of its tree."""
        self._traits: dict[str, Collection[str]] = {}
        self._sharing: dict[str, Collection[str]] = {}
        """Sharing provider -> the roots that share it."""

    def add_provider(
        self,
        provider: str,
        inventory: Mapping[str, Inventory],
        *,
        root: str | None = None,
        traits: Collection[str] = (),
        shared_by: Collection[str] = (),
    ) -> None:
        """Make a provider, nested or shared or plain, or give one another inventory."""
        self._inventories[provider] = dict(inventory)
        self._traits[provider] = traits
        if root is not None:
            self._roots[provider] = root
        if shared_by:
            self._sharing[provider] = shared_by

    def snapshot(self) -> dict[str, object]:
        """Who holds what for whom. Generations are left out: they only ever count writes."""
        return {
            held.consumer: (held.project_id, held.user_id, held.resources)
            for held in self._consumers.values()
        }

    def allocations(self, consumer: str) -> Allocations:
        return self._consumers.get(consumer, Allocations(consumer, {}, None))

    def held(self) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
        return {each.consumer: each.resources for each in self._consumers.values()}

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

    def used(self, project: str, user: str | None = None) -> Mapping[str, int]:
        total: Counter[str] = Counter()
        for consumer in self._consumers.values():
            if consumer.project_id == project and user in (None, consumer.user_id):
                for held in consumer.resources.values():
                    total.update(held)
        return dict(total)

    def providers(self, root: str) -> frozenset[str]:
        sharing = {provider for provider, roots in self._sharing.items() if root in roots}
        return self._tree(root) | sharing

    def candidates(
        self, root: str, needs: Mapping[str, int], groups: Sequence[ResourceGroup] = ()
    ) -> tuple[Candidate, ...]:
        wanted: list[tuple[Mapping[str, int], Collection[str]]] = [
            ({name: amount}, ()) for name, amount in needs.items()
        ]
        wanted += [(dict(group.resources), group.traits) for group in groups]
        own = set().union(*(self._inventories[each] for each in self._tree(root)))
        near = self._tree(root) if needs.keys() <= own else self.providers(root)
        options = [
            [each for each in sorted(near) if self._gives(each, amounts, traits)]
            for amounts, traits in wanted
        ]
        found = (self._candidate(way, wanted, groups) for way in itertools.product(*options))
        return tuple(each for each in found if each is not None and root in each.resources)

    def roomy(
        self,
        needs: Mapping[str, int],
        groups: Sequence[ResourceGroup] = (),
        *,
        required: Collection[str] = (),
        forbidden: Collection[str] = (),
    ) -> frozenset[str]:
        roots = self._inventories.keys() - self._roots.keys() - self._sharing.keys()
        return frozenset(
            root
            for root in roots
            if self.candidates(root, needs, groups)
            and set(required) <= set(self._traits[root])
            and not set(forbidden) & set(self._traits[root])
        )

    def _candidate(
        self,
        way: Sequence[str],
        wanted: Sequence[tuple[Mapping[str, int], Collection[str]]],
        groups: Sequence[ResourceGroup],
    ) -> Candidate | None:
        resources: dict[str, Counter[str]] = {}
        for provider, (amounts, _) in zip(way, wanted, strict=True):
            resources.setdefault(provider, Counter()).update(amounts)
        if not all(self._gives(each, amounts, ()) for each, amounts in resources.items()):
            return None
        chosen = way[len(way) - len(groups) :]
        return Candidate(
            {each: dict(amounts) for each, amounts in resources.items()},
            {group.id: each for group, each in zip(groups, chosen, strict=True)},
        )

    def _gives(self, provider: str, amounts: Mapping[str, int], traits: Collection[str]) -> bool:
        free = self.free(provider)
        enough = all(free.get(name, 0) >= amount for name, amount in amounts.items())
        return enough and set(traits) <= set(self._traits[provider])

    def _tree(self, root: str) -> frozenset[str]:
        nested = {provider for provider, of in self._roots.items() if of == root}
        return frozenset({root} & self._inventories.keys() | nested)

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
