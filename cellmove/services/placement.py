"""Placement: which consumer (a server, a migration) holds what of which host."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cellmove.errors import Conflict, StepFailed
from cellmove.model import Allocations
from cellmove.services.service import Answer, Service

MICROVERSION = "1.28"
"""Since Rocky: consumers bear a generation, and an empty `allocations` deletes one."""
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
