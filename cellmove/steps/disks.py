"""The local disks: copied for the most part while the guest runs, proved, and deleted last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.errors import StepFailed
from cellmove.hosts.backup import Checkpoint
from cellmove.model import Disk
from cellmove.steps.base import Finding, Saved, Status, Step

if TYPE_CHECKING:
    from cellmove.cloud import Cloud, Hypervisor
    from cellmove.model import Host, Move

GIB = 1024**3
SWAP = "disk.swap"


def is_ephemeral(disk: Disk) -> bool:
    """Whether it is one of nova's ephemeral disks: `disk.eph0`..., formerly `disk.local`."""
    return disk.name.startswith("disk.eph") or disk.name == "disk.local"


def target_size_bytes(move: Move, disk: Disk) -> int:
    """The root disk grows to the new flavor's size; nothing ever shrinks."""
    if disk.name != "disk":
        return disk.size_bytes
    return max(disk.size_bytes, move.new_flavor.root_gb * GIB)


class MakeTargetDirectory(Step):
    """Make the server's instance directory on the target."""

    name = "make-target-directory"

    def describe(self) -> str:
        return f"make the server's directory on {self.move.target.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        # The note is written last: with it the directory is as this step leaves it. A server
        # that boots from a volume may have no disk to note, but a console to log.
        target = _target(cloud, self.move)
        noted = target.disk_info(self.move.server)
        wanted = {disk.name: disk.format for disk in self.move.disks}
        made = bool(wanted) or target.has_directory(self.move.server)
        return Finding(Status.DONE if noted == wanted and made else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        target = _target(cloud, self.move)
        target.make_directory(self.move.server)
        target.write_disk_info(self.move.server, self.move.disks)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        _remove_directory(cloud, self.move, self.move.target)


class PrecopyDisks(Step):
    """Copy the disks of the running guest, and have QEMU note what the guest writes from then on.

    The copies do not have their names yet. They and the notes (libvirt checkpoints, with a dirty
    bitmap in each disk) are tools of the move, nothing of the server's: undo leaves none.
    """

    name = "precopy-disks"

    def describe(self) -> str:
        if not self._warm:
            reasons = {disk.why_cold: disk.name for disk in self.move.disks if disk.why_cold}
            told = "; ".join(f"{name}: {why}" for why, name in reasons.items())
            return "copy nothing while the guest runs" + (f" ({told})" if told else "")
        names = ", ".join(disk.name for disk in self._warm)
        return f"copy {names} to {self.move.target.name} while the guest runs"

    def inspect(self, cloud: Cloud) -> Finding:
        if not self._warm:
            return Finding(Status.DONE)
        source = cloud.hosts.reach(self.move.source.name)
        found = [Checkpoint.named(name) for name in source.checkpoints(self.move.server)]
        # The first one is made before the full copy, the next one after that was proved.
        mine = [each for each in found if each and each.move == self.move.id[:8]]
        is_noted = len(mine) == 1 and mine[0].number > 0
        if is_noted and self._names <= set(_target(cloud, self.move).halves(self.move.server)):
            return Finding(Status.DONE)
        return Finding(Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        if self._warm:
            sizes = {disk.name: target_size_bytes(self.move, disk) for disk in self._warm}
            cloud.hosts.precopy(self.move, sizes, cloud.progress)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        if not self._warm:
            return
        _forget_writes(cloud, self.move)
        target = _target(cloud, self.move)
        _require_stopped(target, self.move)
        for disk in self._warm:
            target.remove_disk(self.move.server, disk.name)

    @property
    def _warm(self) -> tuple[Disk, ...]:
        return tuple(disk for disk in self.move.disks if disk.warm)

    @property
    def _names(self) -> set[str]:
        return {disk.name for disk in self._warm}


class CopyDisks(Step):
    """Copy of each disk what the guest last wrote, or all, verified by the hash of the content."""

    name = "copy-disks"

    def describe(self) -> str:
        where = f"to {self.move.target.name} and compare the hashes"
        cold = ", ".join(disk.name for disk in self.move.disks if not disk.warm)
        if any(disk.warm for disk in self.move.disks):
            also = f", and {cold}," if cold else ""
            return f"copy what the guest wrote since then{also} {where}"
        return f"copy {cold or 'no disk'} {where}"

    def inspect(self, cloud: Cloud) -> Finding:
        if not self.move.disks:
            return Finding(Status.DONE)
        target = _target(cloud, self.move)
        # The server is down meanwhile: names are had sooner than what is behind them.
        if not {disk.name for disk in self.move.disks} <= set(target.disk_names(self.move.server)):
            return Finding(Status.TODO)
        there = {disk.name: disk for disk in target.disks(self.move.server)}
        # A copy gets its final name only when it is proved whole.
        whole = all(
            disk.name in there and there[disk.name].size_bytes == target_size_bytes(self.move, disk)
            for disk in self.move.disks
        )
        return Finding(Status.DONE if whole else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        there = _target(cloud, self.move).disk_names(self.move.server)
        for disk in self.move.disks:
            if disk.name not in there:
                size_bytes = target_size_bytes(self.move, disk)
                cloud.hosts.copy_disk(self.move, disk, size_bytes, cloud.progress)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        target = _target(cloud, self.move)
        _require_stopped(target, self.move)
        for disk in self.move.disks:
            target.remove_disk(self.move.server, disk.name)


class ForgetWrites(Step):
    """Delete the notes of what the guest wrote: with them nova could not undefine the guest."""

    name = "forget-writes"

    def describe(self) -> str:
        return f"leave no checkpoint of the guest on {self.move.source.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        source = cloud.hosts.reach(self.move.source.name)
        warm = any(disk.warm for disk in self.move.disks)
        left = warm and source.checkpoints(self.move.server)
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        _forget_writes(cloud, self.move)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        # Half of the notes is worth nothing, and harder to delete when the guest runs again.
        _forget_writes(cloud, self.move)


class RemoveSourceDisks(Step):
    """Delete the server's directory on the source, once the target is seen to have it all."""

    name = "remove-source-disks"
    reversible = False

    def describe(self) -> str:
        return f"delete the server's old disks on {self.move.source.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        source = cloud.hosts.reach(self.move.source.name)
        left = source.has_directory(self.move.server)
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        target = _target(cloud, self.move)
        there = {disk.name for disk in target.disks(self.move.server)}
        missing = [disk.name for disk in self.move.disks if disk.name not in there]
        if missing or target.domain(self.move.server) is None:
            raise StepFailed(
                f"The old disks on {self.move.source.name} are not deleted.",
                f"{target.name} lacks {', '.join(missing) or 'the guest'}.",
                "Revert the server, or find its disks on the target first.",
            )
        _remove_directory(cloud, self.move, self.move.source)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


class RemoveTargetDisks(Step):
    """Delete the resized server's directory on the target; the old disks are home again."""

    name = "remove-target-disks"
    reversible = False

    def describe(self) -> str:
        return f"delete the resized server's disks on {self.move.target.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        left = _target(cloud, self.move).has_directory(self.move.server)
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        _remove_directory(cloud, self.move, self.move.target)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


def _forget_writes(cloud: Cloud, move: Move) -> None:
    warm = [disk for disk in move.disks if disk.warm]
    if warm:
        cloud.hosts.reach(move.source.name).forget_writes(move.server, warm)


def _target(cloud: Cloud, move: Move) -> Hypervisor:
    return cloud.hosts.reach(move.target.name)


def _remove_directory(cloud: Cloud, move: Move, host: Host) -> None:
    here = cloud.hosts.reach(host.name)
    if here.domain(move.server) is not None:
        raise StepFailed(
            f"The server's directory on {host.name} is not deleted.",
            "The guest is still defined there.",
            "Look at that guest before deleting anything.",
        )
    here.remove_directory(move.server)


def _require_stopped(here: Hypervisor, move: Move) -> None:
    found = here.domain(move.server)
    if found is not None and found.state != "off":
        raise StepFailed(
            f"The disks on {here.name} are not deleted.",
            f"The guest there is {found.state}.",
            "See which of the two guests has the server's data before stopping one.",
        )
