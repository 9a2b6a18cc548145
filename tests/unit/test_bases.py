"""What disks lie on: brought once, told why not, kept at home, and taken out only when unused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cellmove.errors import Refused
from cellmove.intake.estimate import estimate
from cellmove.model import Disk, Move
from cellmove.plan import plan
from cellmove.steps.bases import BringBases, KeepSourceBases, ReleaseSourceBases
from tests.fakes.hypervisor import BASE_CONTENT, FakeHypervisor
from tests.fakes.world import SERVER, World, perform
from tests.unit.rehearsal import taken_in

NEIGHBOUR = "eeeeeeee-2a2a-4aaa-8aaa-000000000002"
"""A server on the target."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def source(world: World) -> FakeHypervisor:
    return world.hosts.by_name["cmp1a"]


def target(world: World) -> FakeHypervisor:
    return world.hosts.by_name["cmp2a"]


def root(move: Move) -> Disk:
    return next(disk for disk in move.disks if disk.name == "disk")


def bring(world: World, move: Move) -> tuple[BringBases, dict[str, list[str]]]:
    """Done up to the base, and what the first look at that has kept."""
    for step in plan("resize", move):
        _, saved = perform(step, world)
        if isinstance(step, BringBases):
            return step, {key: list(kept) for key, kept in saved.items()}
    raise AssertionError("a resize brings bases")


def test_a_disk_on_its_servers_image_lies_on_it_at_the_target_too(world: World) -> None:
    move = taken_in(world)
    assert root(move).chained
    for step in plan("resize", move):
        perform(step, world)
    made = target(world).directories[SERVER]["disk"]
    assert made.base == root(move).base
    assert target(world).bases == {made.base: BASE_CONTENT}
    assert made.content == source(world).directories[SERVER]["disk"].content


def test_the_base_crosses_before_the_guest_stops(world: World) -> None:
    names = [step.name for step in plan("resize", taken_in(world))]
    assert names.index("bring-bases") < names.index("precopy-disks")
    assert names.index("bring-bases") < names.index("stop-source-guest")


def test_a_base_that_is_there_is_not_sent_again_and_not_counted(world: World) -> None:
    first = taken_in(world)
    target(world).bases[root(first).base] = BASE_CONTENT
    second = taken_in(world)
    told = [estimate(each, ()).copy_bytes for each in (first, second)]
    assert told[0] - told[1] == len(BASE_CONTENT)
    step, saved = bring(world, second)
    assert saved == {}
    assert [each.disk for each in world.progress if each.disk == "disk.base"] == []
    assert "have image" in step.describe()


def test_a_base_of_other_content_is_left_alone_and_the_disk_crosses_flat(world: World) -> None:
    base = root(taken_in(world)).base
    target(world).bases[base] = b"damaged"
    move = taken_in(world)
    assert root(move).why_flat == "cmp2a has another base of this name"
    for step in plan("resize", move):
        perform(step, world)
    assert target(world).bases == {base: b"damaged"}
    assert target(world).directories[SERVER]["disk"].base == ""


def test_flatten_is_done_when_asked_for_and_the_plan_says_so(world: World) -> None:
    move = taken_in(world, flatten=True)
    step = BringBases(move)
    assert "disk: --flatten was asked for" in step.describe()
    for each in plan("resize", move):
        perform(each, world)
    assert target(world).bases == {}
    assert source(world).keeps_base(SERVER, root(move).base)


def test_a_base_of_another_image_would_be_unknown_to_novas_cache(world: World) -> None:
    disk = source(world).directories[SERVER]["disk"]
    source(world).bases["a" * 40] = BASE_CONTENT
    source(world).directories[SERVER]["disk"] = replace(disk, base="a" * 40)
    assert root(taken_in(world)).why_flat == "it lies on another image than its server's"


def test_undo_takes_out_what_was_brought(world: World) -> None:
    step, saved = bring(world, taken_in(world))
    assert target(world).bases
    step.undo(world.cloud, saved)
    assert target(world).bases == {}


@pytest.mark.parametrize("half", [False, True])
def test_undo_leaves_a_base_that_another_servers_disk_lies_on(world: World, half: bool) -> None:
    move = taken_in(world)
    step, saved = bring(world, move)
    disk = replace(target(world).directories[NEIGHBOUR]["disk"], base=root(move).base)
    where = target(world).halves_ if half else target(world).directories
    where.setdefault(NEIGHBOUR, {})["disk"] = disk
    step.undo(world.cloud, saved)
    assert target(world).bases == {root(move).base: BASE_CONTENT}


def test_a_base_that_another_move_took_out_again_is_brought_again(world: World) -> None:
    move = taken_in(world)
    step, _ = bring(world, move)
    target(world).bases.clear()
    assert perform(step, world)[0]
    assert target(world).has_base(root(move).base)


def test_a_base_that_nova_deleted_while_the_server_was_resized_is_put_back(world: World) -> None:
    for step in plan("resize", world.move("resize")):
        perform(step, world)
    base = root(taken_in_home := world.move("revert")).base
    source(world).bases.clear()
    for step in plan("revert", taken_in_home):
        perform(step, world)
    assert source(world).has_base(base)
    assert source(world).domains[SERVER].state == "running"
    assert not source(world).keeps_base(SERVER, base)


def test_a_server_without_a_base_has_no_such_step(world: World) -> None:
    disk = source(world).directories[SERVER]["disk"]
    source(world).directories[SERVER]["disk"] = replace(disk, base="")
    steps = {type(step) for step in plan("resize", taken_in(world))}
    assert steps & {BringBases, KeepSourceBases, ReleaseSourceBases} == set()


def test_hosts_that_share_their_directory_are_refused_before_anything_is_touched(
    world: World,
) -> None:
    before = world.snapshot()
    source(world).is_shared = True
    taken_in(world)
    target(world).is_shared = True
    with pytest.raises(Refused) as refused:
        taken_in(world)
    assert "cmp1a and cmp2a share their instances directory." in str(refused.value)
    assert "nas:/instances nfs4" in str(refused.value)
    assert world.snapshot() == before


def test_a_disk_of_an_older_journal_is_flat() -> None:
    assert not Disk("disk", "qcow2", 1).chained
