"""The rounds in which a running guest's disks cross: what is copied, and what is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts.backup import Checkpoint
from cellmove.hosts.precopy import ROUNDS, SMALL_BYTES, Precopy
from cellmove.hosts.transfer import End
from cellmove.model import Disk, Transfer

MOVE = "0123abcd-0000-4000-8000-000000000001"
SERVER = "11111111-2222-3333-4444-555555555555"
DISKS = (Disk("disk", "qcow2", 1 << 30), Disk("disk.eph0", "qcow2", 1 << 30))
MIB = 1 << 20


@dataclass
class Guest:
    """A running guest that writes so many bytes to each disk while a round lasts."""

    writes: list[int]
    """What each round finds to copy of each disk, the full one first."""
    names: list[str] = field(default_factory=list)
    """Its checkpoints, oldest first."""
    log: list[str] = field(default_factory=list)
    job: bool = False
    breaks_at: int | None = None
    """The copy that breaks, counted from 0."""
    copies: int = 0

    def begin(
        self,
        server: str,
        warm: Sequence[Disk],
        checkpoint: Checkpoint,
        since: Checkpoint | None,
    ) -> None:
        assert not self.job
        assert checkpoint.name not in self.names
        assert since is None or since.name in self.names
        self.job = True
        self.names.append(checkpoint.name)
        self.log.append(f"{checkpoint.number} since {since.number if since else 'ever'}")

    def end(self, server: str) -> None:
        self.job = False

    def reading_end(self, server: str, disk: Disk, since: Checkpoint | None) -> End:
        return End("one", "/socket", (), disk.name, "vda" if since else "")

    def checkpoints(self, server: str) -> tuple[str, ...]:
        return tuple(self.names)

    def drop(self, server: str, checkpoint: Checkpoint) -> None:
        assert not self.job
        self.names.remove(checkpoint.name)

    def copy(self, disk: Disk, end: End, told: Callable[[int, int], None]) -> None:
        assert self.job
        self.copies += 1
        if self.copies - 1 == self.breaks_at:
            raise StepFailed("The copy broke.")
        size = self.writes[0] if len(self.writes) == 1 or disk is DISKS[0] else self.writes.pop(0)
        told(size, size)

    def begin_anew(self) -> None:
        self.log.append("empty images")


def run(guest: Guest, told: list[Transfer] | None = None) -> None:
    heard = told if told is not None else []
    Precopy(guest, guest.copy, guest.begin_anew, heard.append).run(SERVER, DISKS, MOVE)


def test_all_is_copied_once_then_what_was_written_until_it_is_little() -> None:
    guest = Guest([900 * MIB, 300 * MIB, 50 * MIB, MIB])
    run(guest)
    assert guest.log == ["empty images", "0 since ever", "1 since 0", "2 since 1", "3 since 2"]
    assert guest.names == [Checkpoint.of(MOVE, 3).name]
    assert not guest.job


def test_there_is_a_round_after_the_full_one_however_little_was_written() -> None:
    guest = Guest([0])
    run(guest)
    assert guest.names == [Checkpoint.of(MOVE, 1).name]


def test_a_guest_that_writes_faster_than_the_link_is_not_followed_for_ever() -> None:
    guest = Guest([SMALL_BYTES])
    run(guest)
    assert len(guest.log) == 4  # the images, all, and two rounds of which the second did not shrink
    shrinking = Guest([int(MIB * 1024 * 0.69**n) for n in range(60)])
    run(shrinking)
    assert len(shrinking.log) <= 2 + ROUNDS


def test_each_round_is_told_by_its_number_with_both_disks() -> None:
    told: list[Transfer] = []
    run(Guest([900 * MIB, MIB]), told)
    seen = [(each.disk, each.round) for each in told]
    assert seen == [("disk", 0), ("disk.eph0", 0), ("disk", 1), ("disk.eph0", 1)]


@pytest.mark.parametrize("breaks_at", [0, 1])
def test_a_full_copy_that_broke_begins_anew(breaks_at: int) -> None:
    guest = Guest([MIB], breaks_at=breaks_at)
    with pytest.raises(StepFailed):
        run(guest)
    assert not guest.job
    guest.log.clear()
    run(guest)
    assert guest.log[:2] == ["empty images", "0 since ever"]
    assert guest.names == [Checkpoint.of(MOVE, 1).name]


@pytest.mark.parametrize("breaks_at", [2, 3])
def test_a_round_that_broke_is_made_again_from_the_last_proved_one(breaks_at: int) -> None:
    guest = Guest([MIB], breaks_at=breaks_at)
    with pytest.raises(StepFailed):
        run(guest)
    assert guest.names == [Checkpoint.of(MOVE, 0).name, Checkpoint.of(MOVE, 1).name]
    guest.log.clear()
    run(guest)
    assert guest.log == ["1 since 0"]
    assert guest.names == [Checkpoint.of(MOVE, 1).name]


def test_another_moves_checkpoint_is_neither_used_nor_deleted() -> None:
    foreign = Checkpoint.of("ffffffff-0000-4000-8000-000000000001", 7).name
    guest = Guest([MIB], names=[foreign, "nightly"])
    run(guest)
    assert guest.names == [foreign, "nightly", Checkpoint.of(MOVE, 1).name]


def test_a_backup_that_was_left_running_is_ended_first() -> None:
    guest = Guest([MIB], job=True)
    run(guest)
    assert not guest.job
