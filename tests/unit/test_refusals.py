"""The pure questions of a refusal, at the edges that a whole cloud reaches only with pains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cellmove.dbcopy.api import ServerGroup
from cellmove.intake import refusals
from cellmove.model import Allocations, Disk, Flavor
from tests.unit.samples import GIB, flavor, move

MOVE = move()
SERVER = MOVE.server
OLD, NEW = flavor("c1"), flavor("c2")


def test_a_root_disk_may_stay_as_large_as_it_is() -> None:
    root = Disk("disk", "qcow2", NEW.root_gb * GIB)
    assert list(refusals.of_flavors(OLD, NEW, root)) == []
    (found,) = refusals.of_flavors(OLD, NEW, replace(root, size_bytes=root.size_bytes + 1))
    assert f"{NEW.root_gb + 1} GB or more" in found.do


@pytest.mark.parametrize("key", ["hw:cpu_policy", "resources:VGPU", "trait:X", "quota:cpu_shares"])
@pytest.mark.parametrize("side", ["old", "new"])
def test_extra_specs_of_either_flavor_are_refused(key: str, side: str) -> None:
    marked = {key: "1"}
    old = replace(OLD, extra_specs=marked) if side == "old" else OLD
    new = replace(NEW, extra_specs=marked) if side == "new" else NEW
    (found,) = refusals.of_flavors(old, new, None)
    assert key in found.seen
    assert (old if side == "old" else new).name in found.seen


def test_a_flavor_that_stays_is_judged_once() -> None:
    swapping: Flavor = replace(OLD, swap_mb=64)
    assert len(list(refusals.of_flavors(swapping, swapping, None))) == 1


def test_plain_extra_specs_are_welcome() -> None:
    assert list(refusals.of_flavors(OLD, replace(NEW, extra_specs={"team:x": "1"}), None)) == []


@pytest.mark.parametrize(
    ("policy", "hosts", "refused"),
    [
        ("anti-affinity", {"b": "cmp2a"}, True),
        ("anti-affinity", {"b": "cmp2b"}, False),
        ("anti-affinity", {SERVER: "cmp2a"}, False),
        ("affinity", {"b": "cmp1a"}, True),
        ("affinity", {"b": "cmp2a"}, False),
        ("affinity", {}, False),
        ("soft-anti-affinity", {"b": "cmp2a"}, False),
        ("soft-affinity", {"b": "cmp1a"}, False),
    ],
)
def test_a_hard_policy_holds_across_cells(
    policy: str, hosts: dict[str, str], *, refused: bool
) -> None:
    group = ServerGroup("g", "web", policy, (SERVER, "b"))
    assert bool(list(refusals.of_group(group, SERVER, hosts, MOVE.target))) is refused


def test_room_is_enough_when_it_is_just_enough() -> None:
    held = Allocations(SERVER, {MOVE.source.provider: {"VCPU": 1}}, 1)
    free = {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 2}
    asked = (NEW, MOVE.source, MOVE.target)
    assert list(refusals.of_allocations(held, free, *asked)) == []
    (found,) = refusals.of_allocations(held, free | {"DISK_GB": 1}, *asked)
    assert found.seen == "2 DISK_GB are needed, 1 are free."


def test_an_allocation_on_two_providers_is_refused() -> None:
    both = {MOVE.source.provider: {"VCPU": 1}, MOVE.target.provider: {"VCPU": 1}}
    free = {"VCPU": 9, "MEMORY_MB": 999, "DISK_GB": 99}
    held = Allocations(SERVER, both, 1)
    (found,) = refusals.of_allocations(held, free, NEW, MOVE.source, MOVE.target)
    assert MOVE.target.provider in found.seen
