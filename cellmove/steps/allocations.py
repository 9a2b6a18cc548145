"""Placement: who holds the resources of which provider while the server is in two places."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cellmove.errors import StepFailed
from cellmove.model import Allocations, Flavor
from cellmove.steps.base import Finding, Saved, Status, Step

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Move


def amounts(flavor: Flavor, *, boots_from_volume: bool = False) -> dict[str, int]:
    """What a server of this flavor takes, as nova asks Placement for it (no extra specs)."""
    root_gb = 0 if boots_from_volume else flavor.root_gb
    disk_gb = root_gb + flavor.ephemeral_gb + math.ceil(flavor.swap_mb / 1024)
    needs = {"VCPU": flavor.vcpus, "MEMORY_MB": flavor.memory_mb, "DISK_GB": disk_gb}
    return {name: amount for name, amount in needs.items() if amount}


def claim_of(move: Move) -> Mapping[str, Mapping[str, int]]:
    """What the server takes at the target, provider by provider."""
    needs = amounts(move.new_flavor, boots_from_volume=move.boots_from_volume)
    return move.claim or {move.target.provider: needs}


class HoldSourceAllocation(Step):
    """Hand the server's allocation to its migration: the source stays booked for a revert."""

    name = "hold-source-allocation"

    def describe(self) -> str:
        return f"hold the allocation on {self.move.source.name} under the migration"

    def inspect(self, cloud: Cloud) -> Finding:
        held = cloud.placement.allocations(self.move.migration)
        return Finding(Status.DONE if held.resources else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        server = cloud.placement.allocations(self.move.server)
        held = cloud.placement.allocations(self.move.migration)
        if not held.resources and server.resources:
            _hand_over(cloud, server, held)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        held = cloud.placement.allocations(self.move.migration)
        if held.resources:
            _hand_over(cloud, held, cloud.placement.allocations(self.move.server))


class ClaimTarget(Step):
    """Claim room for the new flavor on the target: from here on nobody else can have it."""

    name = "claim-target"

    def describe(self) -> str:
        total: Counter[str] = Counter()
        for part in claim_of(self.move).values():
            total.update(part)
        needs = ", ".join(f"{n} {name}" for name, n in total.items())
        return f"claim {needs} on {self.move.target.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        server = cloud.placement.allocations(self.move.server)
        claimed = self.move.target.provider in server.resources
        return Finding(Status.DONE if claimed else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        server = cloud.placement.allocations(self.move.server)
        if self.move.target.provider in server.resources:
            return
        if server.resources:
            raise StepFailed(
                "The server still holds an allocation of its own.",
                f"It is on provider {', '.join(server.resources)}.",
                "It should be held by the migration: look at both consumers in Placement.",
            )
        cloud.placement.replace(
            [
                dataclasses.replace(
                    server,
                    resources=claim_of(self.move),
                    project_id=self.move.project_id,
                    user_id=self.move.user_id,
                )
            ]
        )

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        server = cloud.placement.allocations(self.move.server)
        if server.resources == claim_of(self.move):
            cloud.placement.replace([dataclasses.replace(server, resources={})])


class ReleaseSourceAllocation(Step):
    """Free what the migration still holds on the source."""

    name = "release-source-allocation"
    reversible = False

    def describe(self) -> str:
        return f"free the allocation on {self.move.source.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        held = cloud.placement.allocations(self.move.migration)
        return Finding(Status.TODO if held.resources else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        held = cloud.placement.allocations(self.move.migration)
        if held.resources:
            cloud.placement.replace([dataclasses.replace(held, resources={})])

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


class ReturnAllocation(Step):
    """Give the source's allocation back to the server; its claim on the target goes with it."""

    name = "return-allocation"

    def describe(self) -> str:
        return f"return the allocation on {self.move.source.name} to the server"

    def inspect(self, cloud: Cloud) -> Finding:
        held = cloud.placement.allocations(self.move.migration)
        server = cloud.placement.allocations(self.move.server)
        if not held.resources and self.move.source.provider in server.resources:
            return Finding(Status.DONE)
        saved = {"server": [json.dumps(server.resources)]}
        return Finding(Status.TODO, saved=saved)

    def execute(self, cloud: Cloud) -> None:
        held = cloud.placement.allocations(self.move.migration)
        if held.resources:
            _hand_over(cloud, held, cloud.placement.allocations(self.move.server))

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        server = cloud.placement.allocations(self.move.server)
        held = cloud.placement.allocations(self.move.migration)
        if held.resources or self.move.source.provider not in server.resources:
            return
        before = json.loads(saved["server"][0])
        cloud.placement.replace(
            [
                _owned(dataclasses.replace(held, resources=server.resources), server),
                dataclasses.replace(server, resources=before),
            ]
        )


def _hand_over(cloud: Cloud, giver: Allocations, taker: Allocations) -> None:
    """One request: the giver ends with nothing, the taker with all that the giver had."""
    cloud.placement.replace(
        [
            dataclasses.replace(giver, resources={}),
            _owned(dataclasses.replace(taker, resources=giver.resources), giver),
        ]
    )


def _owned(taker: Allocations, giver: Allocations) -> Allocations:
    return dataclasses.replace(taker, project_id=giver.project_id, user_id=giver.user_id)
