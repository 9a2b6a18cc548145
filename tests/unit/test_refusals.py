"""The pure questions of a refusal, at the edges that a whole cloud reaches only with pains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cellmove.dbcopy.api import ServerGroup
from cellmove.intake import refusals
from cellmove.model import Allocations, Candidate, Disk
from cellmove.steps.allocations import amounts
from tests.unit.samples import GIB, flavor, move

MOVE = move()
SERVER = MOVE.server
OLD, NEW = flavor("c1"), flavor("c2")


def test_a_root_disk_may_stay_as_large_as_it_is() -> None:
    root = Disk("disk", "qcow2", NEW.root_gb * GIB)
    assert list(refusals.of_flavors(OLD, NEW, root)) == []
    (found,) = refusals.of_flavors(OLD, NEW, replace(root, size_bytes=root.size_bytes + 1))
    assert f"{NEW.root_gb + 1} GB or more" in found.do


@pytest.mark.parametrize(
    ("policy", "hosts", "refused"),
    [
        ("anti-affinity", {"b": "cmp2a"}, True),
        ("anti-affinity", {"b": "cmp2b"}, False),
        ("anti-affinity", {SERVER: "cmp2a"}, False),
        ("affinity", {"b": "cmp1a"}, True),
        ("affinity", {"b": "cmp2a"}, False),
        ("affinity", {"b": "cmp1a", "c": "cmp2a"}, False),
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


@pytest.mark.parametrize(("there", "refused"), [(0, False), (1, False), (2, True), (3, True)])
def test_anti_affinity_may_allow_more_than_one_on_a_host(there: int, *, refused: bool) -> None:
    members = tuple(f"member-{number}" for number in range(there))
    group = ServerGroup("g", "web", "anti-affinity", (SERVER, *members), max_per_host=2)
    hosts = dict.fromkeys(members, "cmp2a") | {SERVER: "cmp1a"}
    found = list(refusals.of_group(group, SERVER, hosts, MOVE.target))
    assert bool(found) is refused
    assert all(f"has {there} there" in each.seen for each in found)


def test_room_is_enough_when_it_is_just_enough() -> None:
    needs = amounts(NEW)
    assert list(refusals.of_room([Candidate({})], needs, {}, MOVE.target)) == []
    (found,) = refusals.of_room([], needs, needs | {"DISK_GB": 1}, MOVE.target)
    assert found.seen == "2 DISK_GB are needed, 1 are free."


def test_no_room_where_each_amount_is_free_is_told_of_the_ports() -> None:
    needs = amounts(NEW)
    (found,) = refusals.of_room([], needs, needs, MOVE.target)
    assert "QoS" in found.seen


def test_an_allocation_on_two_providers_is_refused() -> None:
    both = {MOVE.source.provider: {"VCPU": 1}, MOVE.target.provider: {"VCPU": 1}}
    held = Allocations(SERVER, both, 1)
    (found,) = refusals.of_allocations(held, {MOVE.source.provider}, MOVE.source)
    assert MOVE.target.provider in found.seen
    assert list(refusals.of_allocations(held, {*both}, MOVE.source)) == []
