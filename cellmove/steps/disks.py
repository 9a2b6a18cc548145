"""The local disks: copied while the guest is off, deleted only when proved to be elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.errors import StepFailed
from cellmove.model import Disk
from cellmove.steps.base import Finding, Saved, Status, Step

if TYPE_CHECKING:
    from cellmove.cloud import Cloud, Hypervisor
    from cellmove.model import Host, Move

GIB = 1024**3


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
        # The note is written last: with it the directory is as this step leaves it.
        noted = _target(cloud, self.move).disk_info(self.move.server)
        wanted = {disk.name: disk.format for disk in self.move.disks}
        return Finding(Status.DONE if noted == wanted else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        target = _target(cloud, self.move)
        target.make_directory(self.move.server)
        target.write_disk_info(self.move.server, self.move.disks)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        _remove_directory(cloud, self.move, self.move.target)


class CopyDisks(Step):
    """Copy each disk of the stopped guest, verified by the hash of what the guest sees."""

    name = "copy-disks"

    def describe(self) -> str:
        names = ", ".join(disk.name for disk in self.move.disks)
        return f"copy {names} to {self.move.target.name} and compare the hashes"

    def inspect(self, cloud: Cloud) -> Finding:
        there = {disk.name: disk for disk in _target(cloud, self.move).disks(self.move.server)}
        # A copy gets its final name only when it is proved whole.
        whole = all(
            disk.name in there and there[disk.name].size_bytes == target_size_bytes(self.move, disk)
            for disk in self.move.disks
        )
        return Finding(Status.DONE if whole else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        there = {disk.name for disk in _target(cloud, self.move).disks(self.move.server)}
        for disk in self.move.disks:
            if disk.name not in there:
                size_bytes = target_size_bytes(self.move, disk)
                cloud.hosts.copy_disk(self.move, disk, size_bytes, cloud.progress)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        target = _target(cloud, self.move)
        _require_stopped(target, self.move)
        for disk in self.move.disks:
            target.remove_disk(self.move.server, disk.name)


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
