"""What the disks lie on: brought to the target once, and kept at the source while resized.

nova deletes from its image cache what no server of the host has used for a day, and a hidden server
counts for nothing there (nova 26: virt/imagecache.py, hidden ones are not listed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.hosts.disks import BASE
from cellmove.steps.base import Finding, Saved, Status, Step

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Disk, Move

BROUGHT = "brought"


class _BaseStep(Step):
    """A step for servers with a disk that lies on an image of the cache."""

    @classmethod
    def applies(cls, move: Move) -> bool:
        return any(disk.base for disk in move.disks)

    @property
    def own(self) -> tuple[str, ...]:
        """What the server's disks lie on at the source."""
        return tuple(dict.fromkeys(disk.base for disk in self.move.disks if disk.base))

    @property
    def told(self) -> str:
        """The same, short enough for a line."""
        return ", ".join(base[:12] for base in self.own)


class BringBases(_BaseStep):
    """Have the images in the target's cache that the disks will lie on there."""

    name = "bring-bases"

    @classmethod
    def applies(cls, move: Move) -> bool:
        return any(disk.base or disk.why_flat for disk in move.disks)

    def describe(self) -> str:
        flat = "; ".join(f"{disk.name}: {disk.why_flat}" for disk in self._flat)
        why = f" ({flat})" if flat else ""
        if not self._wanted:
            return f"send all that the disks lie on with them{why}"
        wanted = ", ".join(base[:12] for base in self._wanted)
        return f"have image {wanted} in the cache of {self.move.target.name}{why}"

    def inspect(self, cloud: Cloud) -> Finding:
        target = cloud.hosts.reach(self.move.target.name)
        missing = [base for base in self._wanted if not target.has_base(base)]
        if not missing:
            return Finding(Status.DONE)
        return Finding(Status.TODO, saved={BROUGHT: missing})

    def execute(self, cloud: Cloud) -> None:
        for base in self._wanted:
            cloud.hosts.bring_base(self.move, base, cloud.progress)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        target = cloud.hosts.reach(self.move.target.name)
        if saved.get(BROUGHT):
            target.remove_disk(self.move.server, BASE)
        for base in saved.get(BROUGHT, ()):
            target.drop_base(base)

    @property
    def _wanted(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(disk.base for disk in self.move.disks if disk.chained))

    @property
    def _flat(self) -> list[Disk]:
        return [disk for disk in self.move.disks if disk.why_flat]


class KeepSourceBases(_BaseStep):
    """Keep what the old disks lie on, so that they can be gone back to after any time."""

    name = "keep-source-bases"

    def describe(self) -> str:
        return f"keep image {self.told} on {self.move.source.name} while the server is resized"

    def inspect(self, cloud: Cloud) -> Finding:
        source = cloud.hosts.reach(self.move.source.name)
        kept = all(source.keeps_base(self.move.server, base) for base in self.own)
        return Finding(Status.DONE if kept else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        source = cloud.hosts.reach(self.move.source.name)
        for base in self.own:
            source.keep_base(self.move.server, base)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        source = cloud.hosts.reach(self.move.source.name)
        for base in self.own:
            source.release_base(self.move.server, base)


class RestoreSourceBases(_BaseStep):
    """Put back into the source's cache what nova has deleted there since the resize."""

    name = "restore-source-bases"

    def describe(self) -> str:
        return f"have image {self.told} in the cache of {self.move.source.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        source = cloud.hosts.reach(self.move.source.name)
        there = all(source.has_base(base) for base in self.own)
        return Finding(Status.DONE if there else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        source = cloud.hosts.reach(self.move.source.name)
        for base in self.own:
            source.restore_base(self.move.server, base)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        """Nothing: the old disks lie on it, and it is the same file that is kept for them."""


class ReleaseSourceBases(_BaseStep):
    """The server is home, and counts for nova's cache again."""

    name = "release-source-bases"
    reversible = False

    def describe(self) -> str:
        return f"leave image {self.told} on {self.move.source.name} to nova's cache again"

    def inspect(self, cloud: Cloud) -> Finding:
        source = cloud.hosts.reach(self.move.source.name)
        kept = any(source.keeps_base(self.move.server, base) for base in self.own)
        return Finding(Status.TODO if kept else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        source = cloud.hosts.reach(self.move.source.name)
        for base in self.own:
            source.release_base(self.move.server, base)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")
