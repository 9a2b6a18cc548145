"""Placement: which consumer (a server, a migration) holds what of which host."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from cellmove.errors import Conflict, StepFailed
from cellmove.model import Allocations, Candidate, ResourceGroup
from cellmove.services.service import Answer, Service

MICROVERSION = "1.36"
"""Since Train, and what nova itself wants: consumers bear a generation, groups of a request bear
names and come back with the provider chosen for each, and may be held to one subtree."""
SHARING = "MISC_SHARES_VIA_AGGREGATE"
"""Trait of a provider whose inventory all of its aggregates may use, e.g. a shared file system."""
LIMIT = 1000
"""As many candidates as nova's scheduler looks at (`max_placement_results`)."""
TRIES = 5
"""When others change the same provider meanwhile; Placement itself has tried ten times a try."""


class Placement:
    """`cloud.Placement` over HTTP; the service must be pinned to `MICROVERSION`.

    Placement 8: handlers/allocation.py, objects/allocation.py.
    """

    def __init__(self, service: Service, pause_seconds: float = 0.2) -> None:
        self._service = service
        self._pause_seconds = pause_seconds

    def allocations(self, consumer: str) -> Allocations:
        """What a consumer holds; nothing, without a generation, when it does not exist."""
        found = _done(
            self._service.get(f"/allocations/{consumer}"),
            f"The allocations of {consumer} could not be read.",
        )
        held = {
            provider: dict(part["resources"]) for provider, part in found["allocations"].items()
        }
        return Allocations(
            consumer=consumer,
            resources=held,
            generation=found.get("consumer_generation"),
            project_id=found.get("project_id"),
            user_id=found.get("user_id"),
        )

    def held(self) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
        """Consumer -> provider -> resource class -> amount, of all consumers.

        Placement lists no consumers; it is asked once for each provider.
        """
        found: dict[str, dict[str, Mapping[str, int]]] = {}
        for each in self._listed():
            provider = each["uuid"]
            answer = self._service.get(f"/resource_providers/{provider}/allocations")
            if answer.status == 404:
                continue  # It went while we were looking.
            what = f"The allocations on provider {provider} could not be read."
            for consumer, part in _done(answer, what)["allocations"].items():
                found.setdefault(consumer, {})[provider] = dict(part["resources"])
        return found

    def replace(self, changes: Sequence[Allocations]) -> None:
        """All of these consumers at once; `generation` is the one expected, None for a new one.

        Raises:
            Conflict: a consumer's generation is another one, or there is no room.
            StepFailed: Placement refuses for another reason.
        """
        body = {change.consumer: _body(change) for change in changes if self._changes(change)}
        if not body:
            return
        for attempt in range(TRIES):
            answer = self._service.send("POST", "/allocations", body)
            if not _provider_race(answer):
                break
            time.sleep(self._pause_seconds * 2**attempt)
        if answer.status == 409:
            raise _conflict(answer)
        _done(answer, "Placement did not change the allocations.")

    def free(self, provider: str) -> Mapping[str, int]:
        """Resource class -> the most that one consumer can still be given on this provider."""
        what = f"The inventory of provider {provider} could not be read."
        path = f"/resource_providers/{provider}"
        inventories = _done(self._service.get(f"{path}/inventories"), what)["inventories"]
        usages = _done(self._service.get(f"{path}/usages"), what)["usages"]
        return {name: _room(held, usages.get(name, 0)) for name, held in inventories.items()}

    def used(self, project: str, user: str | None = None) -> Mapping[str, int]:
        """Resource class -> what all consumers of a project, or of a user in it, hold."""
        query = {"project_id": project} | ({} if user is None else {"user_id": user})
        answer = self._service.get("/usages", **query)
        found: Mapping[str, int] = _done(answer, "What the project uses could not be read.")[
            "usages"
        ]
        return found

    def providers(self, root: str) -> frozenset[str]:
        """The provider itself, those nested under it, and those that share with one of them."""
        tree = {each["uuid"] for each in self._listed(in_tree=root)}
        aggregates: set[str] = set()
        for provider in tree:
            answer = self._service.get(f"/resource_providers/{provider}/aggregates")
            what = f"The aggregates of provider {provider} could not be read."
            aggregates.update(_done(answer, what)["aggregates"])
        if not aggregates:
            return frozenset(tree)
        members = f"in:{','.join(sorted(aggregates))}"
        sharing = self._listed(member_of=members, required=SHARING)
        return frozenset(tree | {each["uuid"] for each in sharing})

    def candidates(
        self, root: str, needs: Mapping[str, int], groups: Sequence[ResourceGroup] = ()
    ) -> tuple[Candidate, ...]:
        """How this host could give `needs` and each group; empty when it cannot.

        First out of its own tree; what it has of others that share with it is asked for when its
        tree alone is not enough: Placement leaves them out of a request for one tree.
        """
        asked = [("resources", _listing(needs)), *_granular(groups)]
        found = self._candidates(root, groups, [*asked, ("in_tree", root)])
        if found or not needs.keys() - self.free(root).keys():
            return found
        return self._candidates(root, groups, [*asked, ("limit", str(LIMIT))])

    def roomy(
        self,
        needs: Mapping[str, int],
        groups: Sequence[ResourceGroup] = (),
        *,
        required: Collection[str] = (),
        forbidden: Collection[str] = (),
    ) -> frozenset[str]:
        """All hosts' providers that could give it, with and without these traits.

        As nova's scheduler asks, no more than `LIMIT` ways are looked at.
        """
        traits = [*sorted(required), *(f"!{trait}" for trait in sorted(forbidden))]
        asked = [("resources", _listing(needs)), *_granular(groups), ("limit", str(LIMIT))]
        asked += [("root_required", ",".join(traits))] if traits else []
        answer = self._service.get(f"/allocation_candidates?{urlencode(asked)}")
        found = _done(answer, "What the hosts can give could not be read.")
        roots = {
            provider: summary["root_provider_uuid"]
            for provider, summary in found["provider_summaries"].items()
            if SHARING not in summary["traits"]
        }
        return frozenset(
            roots[provider]
            for request in found["allocation_requests"]
            for provider in request["allocations"]
            if provider in roots
        )

    def _candidates(
        self, root: str, groups: Sequence[ResourceGroup], asked: Sequence[tuple[str, str]]
    ) -> tuple[Candidate, ...]:
        answer = self._service.get(f"/allocation_candidates?{urlencode(asked)}")
        requests = _done(answer, f"What provider {root} can give could not be read.")[
            "allocation_requests"
        ]
        return tuple(_candidate(each, groups) for each in requests if root in each["allocations"])

    def _listed(self, **query: str) -> Sequence[Mapping[str, Any]]:
        answer = self._service.get("/resource_providers", **query)
        found: Sequence[Mapping[str, Any]] = _done(answer, "The providers could not be read.")[
            "resource_providers"
        ]
        return found

    def _changes(self, change: Allocations) -> bool:
        """Whether there is something to send for this consumer.

        Emptying a consumer that does not exist must not be sent: Placement would make one that
        holds nothing, which nobody sees and whose generation nobody can know.
        """
        if change.resources or change.generation is not None:
            return True
        if self.allocations(change.consumer).generation is None:
            return False
        raise Conflict(
            f"Consumer {change.consumer} holds something in Placement meanwhile.",
            "It was expected not to exist.",
            "Look at it, then try again.",
        )


def _body(change: Allocations) -> Mapping[str, Any]:
    return {
        "allocations": {
            provider: {"resources": dict(amounts)} for provider, amounts in change.resources.items()
        },
        "project_id": change.project_id,
        "user_id": change.user_id,
        "consumer_generation": change.generation,
    }


def _listing(amounts: Mapping[str, int]) -> str:
    return ",".join(f"{name}:{amount}" for name, amount in sorted(amounts.items()))


def _granular(groups: Sequence[ResourceGroup]) -> Iterator[tuple[str, str]]:
    """Each group from one provider, all groups of one port from one device's subtree."""
    for group in groups:
        yield f"resources_{group.id}", _listing(group.resources)
        if group.traits:
            yield f"required_{group.id}", ",".join(group.traits)
    for port in dict.fromkeys(group.port for group in groups):
        together = [f"_{group.id}" for group in groups if group.port == port]
        if len(together) > 1:
            yield "same_subtree", ",".join(together)
    if groups:
        yield "group_policy", "none"


def _candidate(request: Mapping[str, Any], groups: Sequence[ResourceGroup]) -> Candidate:
    resources = {
        provider: dict(part["resources"]) for provider, part in request["allocations"].items()
    }
    chosen = {group.id: request["mappings"][f"_{group.id}"][0] for group in groups}
    return Candidate(resources, chosen)


def _room(inventory: Mapping[str, Any], used: int) -> int:
    """As Placement counts it: the ratio applies to what is left of the total after the reserve."""
    capacity = (inventory["total"] - inventory["reserved"]) * inventory["allocation_ratio"]
    most: int = min(inventory["max_unit"], math.floor(capacity) - used)
    return max(0, most)


def _provider_race(answer: Answer) -> bool:
    """Whether another consumer changed the same provider at the same moment: worth a retry."""
    return (
        answer.status == 409
        and answer.code == "placement.concurrent_update"
        and "consumer generation conflict" not in answer.message
    )


def _conflict(answer: Answer) -> Conflict:
    seen = f"Placement answered {answer.message}."
    if answer.code == "placement.concurrent_update":
        what = "Somebody else changed the allocations between our look and our write."
        return Conflict(what, seen, "Look at them, then try again.")
    what = "The host has no room for the allocations."
    return Conflict(what, seen, "Choose another host, or make room on this one.")


def _done(answer: Answer, what: str) -> Mapping[str, Any]:
    if not answer.ok:
        raise StepFailed(what, f"Placement answered {answer.message}.", "See Placement's log.")
    return answer.body
