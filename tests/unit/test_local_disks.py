"""Which of a server's disks cross while it runs, and what is left when that is taken back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cellmove.errors import Refused, StepFailed
from cellmove.model import Disk, Move
from cellmove.plan import plan
from cellmove.steps.base import Status, Step
from cellmove.steps.disks import CopyDisks, ForgetWrites, PrecopyDisks
from tests.fakes.hypervisor import FakeFile, FakeHypervisor
from tests.fakes.trap import Blown, When
from tests.fakes.world import GIB, SERVER, World, perform
from tests.unit.rehearsal import taken_in

WHENS: tuple[When, ...] = ("before", "after")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A running server with three disks."""
    made = World(tmp_path)
    source(made).directories[SERVER] |= {
        "disk.swap": FakeFile("qcow2", GIB, b"swap"),
        "disk.config": FakeFile("raw", 1 << 19, b"drive"),
    }
    return made


def source(world: World) -> FakeHypervisor:
    return world.hosts.by_name["cmp1a"]


def target(world: World) -> FakeHypervisor:
    return world.hosts.by_name["cmp2a"]


def ways(move: Move) -> dict[str, str]:
    return {disk.name: "warm" if disk.warm else disk.why_cold for disk in move.disks}


def test_a_running_servers_disks_are_warm(world: World) -> None:
    assert ways(taken_in(world)) == dict.fromkeys(["disk", "disk.config", "disk.swap"], "warm")


def test_cold_is_done_when_asked_for(world: World) -> None:
    assert set(ways(taken_in(world, cold=True)).values()) == {"--cold was asked for"}


def test_a_stopped_servers_disks_are_cold(tmp_path: Path) -> None:
    assert set(ways(taken_in(World(tmp_path, "stopped"))).values()) == {"the guest is off"}


def test_a_disk_that_cannot_be_warm_does_not_keep_the_others_back(world: World) -> None:
    source(world).cold["disk.swap"] = "no bitmaps"
    move = taken_in(world)
    assert ways(move) == {"disk": "warm", "disk.config": "warm", "disk.swap": "no bitmaps"}
    described = " ".join(step.describe() for step in plan("resize", move))
    assert "copy disk, disk.config to cmp2a while the guest runs" in described
    assert "copy what the guest wrote since then, and disk.swap, to cmp2a" in described


def test_a_config_drive_is_not_warm_alone_for_no_checkpoint_would_prove_it(world: World) -> None:
    source(world).cold.update({"disk": "too old", "disk.swap": "too old"})
    move = taken_in(world)
    assert not [disk.name for disk in move.disks if disk.warm]
    assert "too old" in PrecopyDisks(move).describe()


def test_a_bastion_that_cannot_pass_copies_on_is_refused(world: World) -> None:
    world.hosts.no_way_ = "Permission denied"
    with pytest.raises(Refused, match=r"cannot copy from cmp1a to cmp2a.*Permission denied"):
        taken_in(world)


@pytest.fixture
def moving(tmp_path: Path) -> tuple[World, Callable[[type[Step]], Step]]:
    """A move that has come to the step before the pre-copy."""
    world = World(tmp_path)
    steps = plan("resize", world.move("resize"))
    for step in steps:
        if isinstance(step, PrecopyDisks):
            break
        perform(step, world)
    return world, lambda kind: next(step for step in steps if isinstance(step, kind))


@pytest.mark.parametrize("when", WHENS)
def test_undo_leaves_no_note_and_no_half_disk_wherever_it_was_cut_off(
    moving: tuple[World, Callable[[type[Step]], Step]], when: When
) -> None:
    world, step_of = moving
    step = step_of(PrecopyDisks)
    perform(step, world)
    assert source(world).checkpoints(SERVER)
    assert target(world).halves(SERVER)
    done = world.save()
    for at in range(1, 6):
        world.load(done)
        world.trap.arm(at, when)
        with suppress(Blown):
            step.undo(world.cloud, {})
        world.trap.arm(0, when)
        step.undo(world.cloud, {})
        assert source(world).checkpoints(SERVER) == ()
        assert target(world).halves(SERVER) == ()


def test_a_first_checkpoint_alone_proves_no_copy(
    moving: tuple[World, Callable[[type[Step]], Step]],
) -> None:
    world, step_of = moving
    step = step_of(PrecopyDisks)
    perform(step, world)
    (name,) = source(world).checkpoints(SERVER)
    source(world).checkpoints_[SERVER] = [name[:-1] + "0"]
    assert step.inspect(world.cloud).status is Status.TODO
    source(world).checkpoints_[SERVER] = [name, name[:-1] + "2"]
    assert step.inspect(world.cloud).status is Status.TODO


def test_a_guest_with_notes_cannot_be_forgotten_so_they_go_first(
    moving: tuple[World, Callable[[type[Step]], Step]],
) -> None:
    world, step_of = moving
    perform(step_of(PrecopyDisks), world)
    source(world).shutdown(SERVER, 0)
    perform(step_of(CopyDisks), world)
    with pytest.raises(StepFailed, match="has checkpoints"):
        source(world).undefine(SERVER)
    perform(step_of(ForgetWrites), world)
    source(world).undefine(SERVER)


def test_a_move_of_an_older_journal_is_cold() -> None:
    assert Disk("disk", "qcow2", GIB).warm is False
