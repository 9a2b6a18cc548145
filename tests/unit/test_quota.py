"""A larger flavor must fit into the quota, counted and looked up as nova does."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import Refused
from cellmove.intake.quota import Quota
from cellmove.model import Allocations, Flavor
from tests.fakes.databases import CELL1, CELL2, PROJECT, USER, add_server
from tests.fakes.placement import Inventory
from tests.fakes.world import World
from tests.unit import samples

SMALL = replace(samples.flavor("small"), vcpus=1, memory_mb=128)
LARGE = replace(samples.flavor("large"), vcpus=3, memory_mb=512)
ROW = {"project_id": PROJECT, "user_id": USER}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Whose project uses what `used` says."""
    return World(tmp_path)


def limited(world: World, table: str, resource: str, limit: int, **whose: str) -> None:
    """Write a limit down as `openstack quota set` does."""
    with world.api.write() as rows:
        rows.insert(table, [{"resource": resource, "hard_limit": limit, **whose}])


def refusals(world: World, quota: Quota, old: Flavor = SMALL, new: Flavor = LARGE) -> list[Refused]:
    return list(quota.refusals(world.cloud, ROW, old, new))


def used(world: World) -> dict[str, int]:
    """VCPUs and MiB of the project's servers, by SQL of the test's own."""
    total = {"cores": 0, "ram": 0}
    for database in world.cells.values():
        with database.read() as rows:
            for row in rows.all("instances", project_id=PROJECT, deleted=0, hidden=(0, None)):
                total["cores"] += row["vcpus"]
                total["ram"] += row["memory_mb"]
    return total


def exactly(world: World) -> Quota:
    """A quota into which the growth from small to large just fits."""
    now = used(world)
    return Quota(cores=now["cores"] + 2, ram_mb=now["ram"] + 384)


def test_what_just_fits_is_taken_and_one_more_is_refused(world: World) -> None:
    quota = exactly(world)
    assert refusals(world, quota) == []
    (cores,) = refusals(world, replace(quota, cores=quota.cores - 1))
    now = used(world)["cores"]
    assert cores.seen == f"{now} VCPUs are in use, 2 more are needed, {now + 1} are allowed."
    (ram,) = refusals(world, replace(quota, ram_mb=quota.ram_mb - 1))
    assert "384 more are needed" in ram.seen
    assert len(refusals(world, Quota(cores=0, ram_mb=0))) == 2


def test_minus_one_is_no_limit(world: World) -> None:
    assert refusals(world, Quota(cores=-1, ram_mb=-1)) == []


@pytest.mark.parametrize("new", [SMALL, replace(SMALL, vcpus=0), replace(SMALL, memory_mb=64)])
def test_a_flavor_that_is_not_larger_needs_no_quota(world: World, new: Flavor) -> None:
    assert refusals(world, Quota(cores=0, ram_mb=0), SMALL, new) == []


def test_when_one_grows_both_are_looked_at_as_nova_does(world: World) -> None:
    grown = replace(SMALL, vcpus=2)
    (ram,) = refusals(world, Quota(cores=-1, ram_mb=0), SMALL, grown)
    assert "0 more are needed" in ram.seen
    shrunk = replace(grown, memory_mb=64)
    (ram,) = refusals(world, Quota(cores=-1, ram_mb=0), SMALL, shrunk)
    assert "0 more are needed" in ram.seen


def test_the_databases_limit_goes_over_the_configured_and_the_projects_over_the_classes(
    world: World,
) -> None:
    generous = Quota(cores=-1, ram_mb=-1)
    limited(world, "quota_classes", "cores", 0, class_name="default")
    assert len(refusals(world, generous)) == 1
    limited(world, "quotas", "cores", 100, project_id="another")
    limited(world, "quotas", "ram", 0, project_id=PROJECT)
    assert len(refusals(world, generous)) == 2
    limited(world, "quotas", "cores", -1, project_id=PROJECT)
    (ram,) = refusals(world, generous)
    assert "MiB" in ram.seen


def test_a_user_may_have_a_limit_of_their_own(world: World) -> None:
    limited(world, "project_user_quotas", "cores", 0, project_id=PROJECT, user_id="another")
    assert refusals(world, exactly(world)) == []
    limited(world, "project_user_quotas", "cores", 0, project_id=PROJECT, user_id=USER)
    (refused,) = refusals(world, exactly(world))
    assert refused.what.startswith(f"User {USER} of the project")


def test_hidden_deleted_and_foreign_servers_do_not_count(world: World) -> None:
    before = used(world)
    quota = exactly(world)
    changes: tuple[dict[str, Any], ...] = (
        *({"hidden": 1}, {"deleted": 5}),
        *({"vm_state": "soft-delete"}, {"project_id": "another"}),
    )
    for number, change in enumerate(changes):
        server = str(uuid.UUID(int=number + 1))
        cell = world.cells[CELL2.uuid]
        add_server(world.api, cell, uuid=server, host="cmp2a", name=f"more-{number}")
        assert len(refusals(world, quota)) == 2
        with cell.write() as rows:
            rows.change("instances", change, expect=None, uuid=server)
        assert refusals(world, quota) == []
    assert before["cores"] > 0


def test_every_cell_counts(world: World) -> None:
    quota = exactly(world)
    for cell, host in ((CELL1, "cmp1a"), (CELL2, "cmp2a")):
        server = str(uuid.uuid4())
        add_server(world.api, world.cells[cell.uuid], uuid=server, host=host, name=host)
        more = Quota(cores=quota.cores + 1, ram_mb=quota.ram_mb + 128)
        assert len(refusals(world, quota)) == 2
        assert refusals(world, more) == []
        quota = more


def test_placement_may_be_asked_instead_and_counts_what_a_migration_holds(world: World) -> None:
    quota = Quota("placement", cores=100, ram_mb=100_000)
    before = world.placement.used(PROJECT)
    room = {"VCPU": Inventory(1000), "MEMORY_MB": Inventory(1_000_000), "PCPU": Inventory(1000)}
    world.placement.add_provider("elsewhere", room)
    held = {"VCPU": 60 - before.get("VCPU", 0), "PCPU": 38, "MEMORY_MB": 1}
    world.placement.replace(
        [Allocations("a-migration", {"elsewhere": held}, None, PROJECT, USER)],
    )
    assert refusals(world, quota) == []
    (refused,) = refusals(world, replace(quota, cores=99))
    assert "98 VCPUs are in use" in refused.seen


def test_with_another_driver_no_quota_is_looked_at(world: World) -> None:
    assert refusals(world, Quota("none", cores=0, ram_mb=0)) == []
