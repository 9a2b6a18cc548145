"""Hosts are filtered and weighed with nova's values, over all cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cellmove.choosing import Aggregate, Candidate, Multipliers, Ranking, Wish, rank
from cellmove.model import Flavor, Host
from tests.fakes.databases import C1, CELL1, CELL2

CELLS = {"1": CELL1, "2": CELL2}


def host(name: str) -> Host:
    """`1a` is in the server's own cell, `2a` in the other."""
    return Host(name, name, 1, f"rp-{name}", "192.0.2.1", f"az{name[0]}", CELLS[name[0]])


def candidate(name: str, **known: Any) -> Candidate:
    known = {"supports": (("x86_64", "kvm", "hvm"),), "free_ram_mb": 1000, **known}
    return Candidate(host(name), **known)


def wish(**wanted: Any) -> Wish:
    everywhere = frozenset(f"rp-{name}" for name in ("1a", "1b", "1c", "2a", "2b", "2c"))
    return replace(Wish(C1, host("1a"), "our-project", roomy=everywhere), **wanted)


def ranked(*candidates: Candidate, by: Multipliers | None = None, **wanted: Any) -> Ranking:
    return rank(candidates, wish(**wanted), by or Multipliers())


def names(ranking: Ranking) -> list[str]:
    return [each.host.name for each in ranking.fit]


def flavor(**specs: str) -> Flavor:
    return replace(C1, extra_specs={key.replace("__", ":"): value for key, value in specs.items()})


AGGREGATE = "aggregate_instance_extra_specs__disk"


@pytest.mark.parametrize(
    ("name", "known", "wanted"),
    [
        ("service", {"unfit": "nova-compute is disabled"}, {}),
        ("cell", {}, {"cells": (CELL1,)}),
        ("zone", {}, {"zone": "az1"}),
        ("room", {}, {"roomy": frozenset()}),
        ("project", {"aggregates": (Aggregate("a", {"filter_tenant_id2": "x, y"}),)}, {}),
        ("aggregate", {}, {"flavor": flavor(**{AGGREGATE: "ssd"})}),
        (
            "aggregate",
            {"aggregates": (Aggregate("a", {"disk": "hdd"}),)},
            {"flavor": flavor(**{AGGREGATE: "ssd"})},
        ),
        ("capabilities", {}, {"flavor": flavor(capabilities__hypervisor_type="QEMU")}),
        (
            "capabilities",
            {"capabilities": {"cpu_info": '{"arch": "x86_64"}'}},
            {"flavor": flavor(capabilities__cpu_info__arch="s== aarch64")},
        ),
        ("image", {}, {"image": {"hw_architecture": "aarch64"}}),
        ("image", {"supports": ()}, {"image": {"hw_vm_mode": "hvm"}}),
        (
            "version",
            {"capabilities": {"hypervisor_version": 7002010}},
            {"image": {"img_hv_requested_version": ">=6.0, <7.2.10"}},
        ),
        (
            "version",
            {"capabilities": {"hypervisor_version": 7002000}},
            {"image": {"img_hv_requested_version": "new"}},
        ),
        (
            "image-aggregate",
            {"aggregates": (Aggregate("a", {"os_distro": "rhel, sles"}),)},
            {"image": {"os_distro": "debian"}},
        ),
        ("trait-aggregate", {"aggregates": (Aggregate("a", {"trait:HW_GPU": "required"}),)}, {}),
        (
            "trait-aggregate",
            {"aggregates": (Aggregate("a", {"trait:HW_GPU": "required"}),)},
            {"image": {"trait:HW_GPU": "forbidden"}},
        ),
        ("isolated", {"isolated": True}, {}),
        ("isolated", {}, {"isolated": True}),
        ("group", {}, {"group_policy": "anti-affinity", "group_hosts": {"2a": 1}}),
        ("group", {}, {"group_policy": "affinity", "group_hosts": {"1b": 1}}),
    ],
)
def test_a_host_is_dropped_by_the_filter_that_speaks_against_it(
    name: str, known: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    ranking = ranked(candidate("2a", **known), **wanted)
    assert [(each.host.name, each.filter) for each in ranking.dropped] == [("2a", name)]
    assert ranking.dropped[0].why
    assert ranking.best is None


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({}, {}),
        ({}, {"zone": "az2"}),
        ({"aggregates": (Aggregate("a", {"filter_tenant_id": "our-project"}),)}, {}),
        (
            {"aggregates": (Aggregate("a"), Aggregate("b", {"disk": "ssd"}))},
            {"flavor": flavor(**{AGGREGATE: "<or> ssd <or> nvme"})},
        ),
        ({}, {"flavor": flavor(disk="ssd", hw__cpu_policy="shared")}),
        (
            {"capabilities": {"hypervisor_version": 7002000}},
            {"flavor": flavor(capabilities__hypervisor_version=">= 6000000")},
        ),
        (
            {"capabilities": {"cpu_info": '{"arch": "x86_64"}'}},
            {"flavor": flavor(capabilities__cpu_info__arch="x86_64")},
        ),
        ({}, {"image": {"hw_architecture": "x86_64", "img_hv_type": "KVM"}}),
        (
            {"capabilities": {"hypervisor_version": 7002010}},
            {"image": {"img_hv_requested_version": ">=6.0, !=7.2, <8.0"}},
        ),
        # nova passes a host that tells no version.
        ({}, {"image": {"img_hv_requested_version": ">=6.0"}}),
        (
            {"aggregates": (Aggregate("a", {"os_distro": "rhel"}), Aggregate("b"))},
            {"image": {"os_distro": "RHEL"}},
        ),
        (
            {
                "aggregates": tuple(
                    Aggregate(each, {"os_distro": each}) for each in ("rhel", "sles")
                )
            },
            {"image": {"os_distro": "sles"}},
        ),
        ({"aggregates": (Aggregate("a", {"os_distro": "rhel"}),)}, {}),
        # No property of an image in nova's eyes: the word is somebody's own.
        ({"aggregates": (Aggregate("a", {"min_disk": "9"}),)}, {"image": {"min_disk": "1"}}),
        (
            {"aggregates": (Aggregate("a", {"trait:HW_GPU": "required"}),)},
            {"flavor": flavor(trait__HW_GPU="required")},
        ),
        (
            {"aggregates": (Aggregate("a", {"trait:HW_GPU": "required"}),)},
            {"flavor": flavor(trait1__HW_GPU="required")},
        ),
        ({"aggregates": (Aggregate("a", {"trait:HW_GPU": "forbidden"}),)}, {}),
        ({"isolated": True}, {"isolated": True}),
        (
            {},
            {"group_policy": "anti-affinity", "group_hosts": {"2a": 1}, "group_limit": 2},
        ),
        ({}, {"group_policy": "affinity", "group_hosts": {"2a": 1}}),
        ({}, {"group_policy": "affinity"}),
        ({}, {"group_policy": "soft-anti-affinity", "group_hosts": {"2a": 9}}),
    ],
)
def test_a_host_that_fits_passes_all_filters(
    known: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    assert names(ranked(candidate("2a", **known), **wanted)) == ["2a"]


def test_the_servers_own_host_is_no_target() -> None:
    assert ranked(candidate("1a")).dropped[0].filter == "elsewhere"


def test_the_servers_own_cell_is_preferred_whatever_the_room() -> None:
    hosts = candidate("1b", free_ram_mb=1), candidate("2a", free_ram_mb=10**6)
    assert names(ranked(*hosts)) == ["1b", "2a"]
    best = ranked(*hosts).fit[0]
    assert best.weights["cross-cell"] == 1_000_000


def test_a_negative_multiplier_drains_the_cell() -> None:
    by = Multipliers(cross_cell_move_weight_multiplier=-1000.0)
    assert names(ranked(candidate("1b"), candidate("2a"), by=by)) == ["2a", "1b"]


def test_an_aggregate_overrides_the_multiplier_for_its_own_hosts_only() -> None:
    key = "cross_cell_move_weight_multiplier"
    old = Aggregate("old cell", {key: "-1"}), Aggregate("also", {key: "5"})
    assert names(ranked(candidate("1b", aggregates=old), candidate("2a"))) == ["2a", "1b"]
    # The other cell's hosts weigh 0 before the multiplier: theirs has no effect.
    new = (Aggregate("new cell", {key: "99999999"}),)
    assert names(ranked(candidate("1b"), candidate("2a", aggregates=new))) == ["1b", "2a"]


def test_an_override_that_is_no_number_counts_for_nothing() -> None:
    bad = (Aggregate("bad", {"ram_weight_multiplier": "much"}),)
    assert ranked(candidate("2a", aggregates=bad), candidate("2b", free_ram_mb=1)).fit[0].weights[
        "ram"
    ] == pytest.approx(1.0)


def test_a_named_cell_is_not_preferred() -> None:
    ranking = ranked(candidate("2a"), candidate("2b"), cells=(CELL2,))
    assert {each.weights["cross-cell"] for each in ranking.fit} == {0.0}


def test_room_is_weighed_against_the_roomiest() -> None:
    ranking = ranked(
        candidate("2a", free_ram_mb=1000, free_vcpus=8.0, free_disk_mb=0),
        candidate("2b", free_ram_mb=500, free_vcpus=16.0, free_disk_mb=4096),
        candidate("2c", free_ram_mb=-10, free_vcpus=-1.0, free_disk_mb=1024),
    )
    weights = {each.host.name: dict(each.weights) for each in ranking.fit}
    assert names(ranking) == ["2b", "2a", "2c"]
    assert [weights[name]["ram"] for name in ("2a", "2b", "2c")] == [1.0, 0.5, 0.0]
    assert [weights[name]["cpu"] for name in ("2a", "2b", "2c")] == [0.5, 1.0, 0.0]
    assert [weights[name]["disk"] for name in ("2a", "2b", "2c")] == [0.0, 1.0, 0.25]


def test_a_soft_group_weighs_and_does_not_drop() -> None:
    hosts = candidate("2a"), candidate("2b")
    group: dict[str, Any] = {"group_hosts": {"2a": 2, "2b": 1}}
    assert names(ranked(*hosts, group_policy="soft-affinity", **group)) == ["2a", "2b"]
    assert names(ranked(*hosts, group_policy="soft-anti-affinity", **group)) == ["2b", "2a"]


def test_equals_are_ordered_by_name() -> None:
    assert names(ranked(candidate("2b"), candidate("2c"), candidate("2a"))) == ["2a", "2b", "2c"]


def test_alternates_are_of_the_best_ones_cell() -> None:
    ranking = ranked(
        candidate("2a", free_ram_mb=3), candidate("1b"), candidate("1c", free_ram_mb=2000)
    )
    assert [each.name for each in ranking.alternates(3)] == ["1c", "1b"]
    assert [each.name for each in ranking.alternates(1)] == ["1c"]
    assert ranked().alternates(3) == ()
