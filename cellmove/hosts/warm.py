"""The disks of one hypervisor's running guests: read while they are written, and what is dirty."""

from __future__ import annotations

from collections.abc import Sequence

from cellmove.hosts import backup, disks
from cellmove.hosts.backup import Checkpoint
from cellmove.hosts.disks import Layout
from cellmove.hosts.guests import Guests
from cellmove.hosts.shell import Shell
from cellmove.hosts.transfer import End
from cellmove.model import Disk

_SECONDS = 120
"""For a change of a disk's bitmaps, which are small beside the disk. As in sudoers.j2."""


class WarmDisks:
    """Backups and checkpoints of the guests of one hypervisor."""

    def __init__(self, shell: Shell, layout: Layout, guests: Guests) -> None:
        self._shell = shell
        self._layout = layout
        self._guests = guests
        self._supported: bool | None = None

    def why_not(self, server: str, xml: str, disk: Disk) -> str:
        """Why a disk of a running guest can only be copied when it is off; empty: it need not."""
        known = backup.devices(xml, self._layout.directory(server))
        if disk.name not in known:
            return "the guest does not use this file"
        _device, is_read_only = known[disk.name]
        if is_read_only:
            return ""
        if disk.format != "qcow2":
            return f"QEMU keeps no note of what is written to a {disk.format} file"
        if disk.version < disks.BITMAP_VERSION:
            return f"QEMU keeps no note of what is written in qcow2 of version {disk.version}"
        if self._supported is None:
            self._supported = self._guests.ask(backup.supported)
        return "" if self._supported else "its libvirt or QEMU is too old for backups"

    def fixed(self, server: str, warm: Sequence[Disk]) -> tuple[Disk, ...]:
        """Those that the guest cannot write to: the file itself is read, while the guest runs."""
        known = self._known(server)
        return tuple(disk for disk in warm if known.get(disk.name, ("", False))[1])

    def begin(
        self,
        server: str,
        warm: Sequence[Disk],
        checkpoint: Checkpoint,
        since: Checkpoint | None,
    ) -> None:
        """Begin a backup of these disks; see `backup.begin`.

        Raises:
            StepFailed: the guest is off or lacks one of them, or libvirt refuses.
        """
        known = self._known(server)
        wanted = {
            backup.must_know(known, disk.name): (disk.name, self._layout.half(server, disk.name))
            for disk in warm
        }
        socket = self._layout.guest_socket(server)
        self._guests.on(server, lambda it: backup.begin(it, wanted, socket, checkpoint, since))

    def end(self, server: str) -> None:
        """End our backup, if there is one."""
        socket = self._layout.guest_socket(server)
        self._guests.on(server, lambda it: backup.end(it, socket))

    def reading_end(self, server: str, disk: Disk, since: Checkpoint | None) -> End:
        """How a disk of the backup under way is read."""
        device = backup.must_know(self._known(server), disk.name)
        socket = self._layout.guest_socket(server)
        return End(self._shell.host, socket, (), disk.name, device if since else "")

    def checkpoints(self, server: str) -> tuple[str, ...]:
        """Names of all checkpoints of the guest; none when there is no guest."""
        return self._guests.on(server, backup.checkpoints) or ()

    def drop(self, server: str, checkpoint: Checkpoint) -> None:
        """Delete one checkpoint of a running guest, with its bitmaps; twice is once."""
        self._guests.on(server, lambda it: backup.drop(it, checkpoint))

    def forget(self, server: str, warm: Sequence[Disk]) -> None:
        """Leave no job, no checkpoint and no bitmap of ours, whether the guest runs or is off."""
        found = self._guests.find(server)
        if found is None:
            return
        if found.state != "off":
            self.end(server)
        mine = backup.ours(self.checkpoints(server))
        listed = self._listed(server).splitlines()
        if found.state == "off" and mine:
            self._remove_bitmaps(server, [disk for disk in warm if disk.name in listed])
        for checkpoint in mine:
            self.drop(server, checkpoint)
        # A scratch file is libvirt's to delete, unless it died.
        for name in disks.half_names("\n".join(listed)):
            self._as(disks.remove_half(self._layout.half(server, name)), "nova")

    def bitmap(self, server: str, disk: Disk, move: str) -> str:
        """The whole and current bitmap of a stopped guest's disk; empty when there is none.

        Only one since which a full copy was proved counts: `move` made it, and it is not the
        first. One that QEMU could not write down as it ended is `in-use` and worth nothing.
        """
        proved = self._proved(server, move)
        if disk.format != "qcow2" or proved is None:
            return ""
        return proved.name if proved.name in self._bitmaps(server, disk, usable=True) else ""

    def is_fixed(self, server: str, disk: Disk, move: str) -> bool:
        """Whether the guest cannot have written to a disk that was proved to be copied."""
        return bool(self._proved(server, move)) and disk in self.fixed(server, (disk,))

    def _proved(self, server: str, move: str) -> Checkpoint | None:
        mine = [each for each in backup.ours(self.checkpoints(server)) if each.move == move[:8]]
        return mine[0] if mine and mine[0].number else None

    def _listed(self, server: str) -> str:
        """Names in the directory; none when nova has deleted it under a guest that is left."""
        there = disks.exists(self._layout.directory(server))
        if self._shell.run(there, timeout_seconds=_SECONDS, sudo="nova", check=False).status:
            return ""
        listing = disks.listing(self._layout.directory(server))
        return self._shell.run(listing, timeout_seconds=_SECONDS, sudo="nova").stdout

    def _remove_bitmaps(self, server: str, warm: Sequence[Disk]) -> None:
        for disk in warm:
            if disk.format != "qcow2":
                continue
            path = self._layout.disk(server, disk.name)
            for checkpoint in backup.ours(self._bitmaps(server, disk, usable=False)):
                self._as(disks.remove_bitmap(path, checkpoint.name), "root")

    def _bitmaps(self, server: str, disk: Disk, *, usable: bool) -> tuple[str, ...]:
        command = disks.image_info(self._layout.disk(server, disk.name), disk.format)
        done = self._shell.run(command, timeout_seconds=_SECONDS, sudo="nova")
        return disks.bitmaps(done.stdout, usable=usable)

    def _known(self, server: str) -> dict[str, tuple[str, bool]]:
        found = self._guests.on(server, lambda it: str(it.XMLDesc(0)))
        return backup.devices(found, self._layout.directory(server)) if found else {}

    def _as(self, command: disks.Argv, user: str) -> None:
        self._shell.run(command, timeout_seconds=_SECONDS, sudo=user)
