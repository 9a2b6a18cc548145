"""One hypervisor as the steps see it: its guests, its disks, its switch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cellmove.errors import StepFailed
from cellmove.hosts import disks, firmware, inventory, switch
from cellmove.hosts.bases import Hashes, ImageCache
from cellmove.hosts.blocks import ConnectionInfo
from cellmove.hosts.connect import STORAGE, Storage, Volumes
from cellmove.hosts.disks import Argv, Layout
from cellmove.hosts.guests import Guests
from cellmove.hosts.inventory import Inventory
from cellmove.hosts.machine import Offer, console_ports, listened, listening
from cellmove.hosts.shell import Completed, Shell
from cellmove.hosts.transfer import End, program
from cellmove.hosts.warm import WarmDisks
from cellmove.hosts.xml import GuestXml
from cellmove.model import Disk, Domain, Port

_SHORT_SECONDS = 60
_DELETE_SECONDS = 600
"""A large file is not deleted at once by every file system. As in sudoers.j2."""
_READ_SECONDS = 24 * 3600
"""For the largest disk: where nothing moves, `stream.py` gives up much sooner by itself."""
_WINDOW = re.compile(r"^cellmove-window (\d{1,19}) ([0-9a-f]{64})$", re.MULTILINE)


class RemoteHypervisor(ImageCache):
    """A hypervisor reached over SSH: `cellmove.cloud.Hypervisor` for real hosts."""

    def __init__(
        self,
        name: str,
        shell: Shell,
        layout: Layout,
        bridge: str = "br-int",
        storage: Storage = STORAGE,
        *,
        hashes: Hashes | None = None,
    ) -> None:
        super().__init__(shell, layout, hashes)
        self._name = name
        self._bridge = bridge
        self._guests = Guests(shell)
        self._volumes = Volumes(name, shell, storage, self._guests.has_secret)
        self.warm = WarmDisks(shell, layout, self._guests)

    @property
    def name(self) -> str:
        """`services.host` of its compute service."""
        return self._name

    def domain(self, server: str) -> Domain | None:
        """The server's guest, or None."""
        return self._guests.find(server)

    def inventory(self) -> Inventory:
        """All that this host has of servers: guests, directories, and what moves leave here."""
        return inventory.read(self._shell, self._layout, self._guests)

    def define(self, xml: str) -> None:
        """Define a guest, or define it anew."""
        self._guests.define(xml)

    def undefine(self, server: str) -> None:
        """Forget a guest that is off; its disks and NVRAM stay."""
        self._guests.undefine(server)

    def start(self, server: str, *, paused: bool = False) -> None:
        """Start the guest; nothing happens when it runs or is paused."""
        self._guests.start(server, paused=paused)

    def resume(self, server: str) -> None:
        """Let a paused guest run; nothing happens when it runs."""
        self._guests.resume(server)

    def pause(self, server: str) -> None:
        """Stop a running guest's processors, no more; nothing happens when it does not run."""
        self._guests.pause(server)

    def shutdown(self, server: str, timeout_seconds: int) -> None:
        """Ask the guest to power off, again and again; pull the plug when the time is over."""
        self._guests.shutdown(server, timeout_seconds)

    def plug(self, server: str, port: Port) -> None:
        """Make the port's Open vSwitch port, as nova's os-vif does; twice is once."""
        self._as_root(switch.plug(self._bridge, server, port))

    def unplug(self, port: Port) -> None:
        """Delete the port's Open vSwitch port; twice is once."""
        self._as_root(switch.unplug(self._bridge, port))

    def wired(self, port: Port) -> bool:
        """Whether the port's tap device is attached to the bridge."""
        return switch.is_wired(self._as_root(switch.attachment(port)).stdout)

    def plugged(self, port: Port) -> bool:
        """Whether the bridge has the port's record."""
        return port.device in self._as_root(switch.ports(self._bridge)).stdout.split()

    def disks(self, server: str) -> tuple[Disk, ...]:
        """The disk files in the server's instance directory, by name."""
        listed = self._listed(server)
        names = disks.disk_names(listed)
        known = self._known_formats(server, listed) if names else {}
        return tuple(self._disk(server, name, known.get(name)) for name in names)

    def disk_names(self, server: str) -> tuple[str, ...]:
        """Names of the disk files in the server's instance directory."""
        return disks.disk_names(self._listed(server))

    def has_directory(self, server: str) -> bool:
        """Whether the server has an instance directory here."""
        test = disks.exists(self._layout.directory(server))
        done = self._as_nova(test, check=False)
        if done.status > 1 or done.stderr:
            raise StepFailed(
                f"Whether {server} has a directory on {self._name} cannot be seen.",
                f"Status {done.status}: {done.stderr.strip()}",
                "Run `cellmove check`.",
            )
        return done.status == 0

    def make_directory(self, server: str) -> None:
        """Make the server's instance directory as nova would; twice is once."""
        self._as_nova(disks.make_directory(self._layout.directory(server)))

    def remove_directory(self, server: str) -> None:
        """Delete the server's instance directory and all in it; twice is once.

        What has its name and is no directory stood in our way, and is somebody else's.
        """
        if self.has_directory(server):
            command = disks.remove_directory(self._layout.directory(server))
            self._as_nova(command, timeout_seconds=_DELETE_SECONDS)

    def remove_disk(self, server: str, disk: str) -> None:
        """Delete one disk of the server and the half copy of it; twice is once."""
        layout = self._layout
        command = disks.remove_disk(layout.half(server, disk), layout.disk(server, disk))
        self._as_nova(command, timeout_seconds=_DELETE_SECONDS)

    def write_disk_info(self, server: str, disks_: Sequence[Disk]) -> None:
        """Write nova's `disk.info`: path -> format."""
        note = disks.note_of(self._layout, server, disks_)
        self._as_nova(disks.write(self._layout.info(server)), stdin=note.encode())

    def disk_info(self, server: str) -> Mapping[str, str]:
        """What nova's `disk.info` says: disk name -> format; empty without one."""
        return self._noted(server, self._listed(server))

    def free_bytes(self) -> int:
        """Room in the file system of the instances directory."""
        return disks.free_bytes(self._shell.run(disks.free(self._layout.instances_path)).stdout)

    def shared_place(self) -> str:
        """What other hosts may have mounted for the instances directory, too; empty: nothing."""
        asked = inventory.mounted(self._layout.instances_path)
        return inventory.shared_place(self._shell.run(asked).stdout)

    def disk_path(self, server: str, disk: str) -> str:
        """Absolute path of a server's disk on this host."""
        return self._layout.disk(server, disk)

    def connector(self) -> Mapping[str, object]:
        """What nova-compute here would tell Cinder of itself."""
        return self._volumes.connector()

    def volume_obstacle(self, info: ConnectionInfo) -> str:
        """Why this host could not connect such a volume; empty when it could."""
        return self._volumes.obstacle(info)

    def connect_volume(self, info: ConnectionInfo) -> ConnectionInfo:
        """Connect a volume; answers `info` as nova must find it; twice is once."""
        return self._volumes.connect(info)

    def disconnect_volume(self, info: ConnectionInfo) -> None:
        """Disconnect a volume, if it is connected; a mount stays."""
        self._volumes.disconnect(info)

    def volume_connected(self, info: ConnectionInfo) -> bool:
        """Whether the host has what `connect_volume` makes."""
        return self._volumes.connected(info)

    def offer(self, xml: str) -> Offer:
        """What this host decides about a guest of this definition, and whether it can run it."""
        guest = GuestXml(xml)
        offer = self._guests.offer(guest)
        if not console_ports((guest,)):
            return offer
        taken = listened(self._shell.run(listening()).stdout)
        return replace(offer, ports=offer.ports | taken)

    def nvram(self, path: str) -> bytes | None:
        """What a guest's firmware keeps in this file; None when there is none."""
        looked = self._as_root(firmware.exists(path), check=False)
        if looked.status == 1 and not looked.stderr:
            return None
        return firmware.decoded(self._as_root(firmware.content(path)).stdout, path)

    def write_nvram(self, path: str, content: bytes) -> None:
        """Make this file of a guest's firmware, or make it anew."""
        self._as_root(firmware.write(path), stdin=content)

    def remove_nvram(self, path: str) -> None:
        """Delete this file of a guest's firmware; twice is once."""
        self._as_root(firmware.remove(path))

    def begin_disk(self, server: str, disk: Disk, size_bytes: int) -> None:
        """Make the empty image that a copy is written into, in place of an earlier try's."""
        half = self._layout.half(server, disk.name)
        self._as_nova(disks.remove_half(half), timeout_seconds=_DELETE_SECONDS)
        base = self._layout.base(disk.base) if disk.chained else ""
        self._as_nova(disks.image_create(half, disk.format, size_bytes, base))

    def known(self, server: str, disk: Disk, size_bytes: int) -> Mapping[int, str]:
        """What an earlier copy has left of a disk: offset -> hash of what follows; empty: nothing.

        It is no proof, but what is the same at the source need not be sent again.
        """
        half = self._layout.half(server, disk.name)
        info = self._as_nova(disks.image_info(half, disk.format, chain=False), check=False)
        if info.status or disks.disk_of(disk.name, info.stdout).size_bytes != size_bytes:
            return {}
        reads = program(self.writing_end(server, disk), "windows")
        told = self._shell.run(reads, timeout_seconds=_READ_SECONDS, check=False)
        if told.status:  # It cannot be read: another is begun in its place.
            return {}
        return {int(start): digest for start, digest in _WINDOW.findall(told.stderr)}

    def why_cold(self, server: str, disks_: Sequence[Disk]) -> Mapping[str, str]:
        """Disk name -> why it cannot be copied while the guest runs; empty when it can."""
        domain = self.domain(server)
        xml = domain.xml if domain else "<domain/>"
        return {disk.name: self.warm.why_not(server, xml, disk) for disk in disks_}

    def halves(self, server: str) -> tuple[str, ...]:
        """Names of the disks that are here under way: their files do not have their names yet."""
        return disks.half_names(self._listed(server))

    def checkpoints(self, server: str) -> tuple[str, ...]:
        """Names of all checkpoints of the guest, whoever made them."""
        return self.warm.checkpoints(server)

    def forget_writes(self, server: str, disks_: Sequence[Disk]) -> None:
        """Leave no note of what the guest writes: no backup, checkpoint or bitmap of ours."""
        self.warm.forget(server, disks_)

    def finish_disk(self, server: str, disk: Disk) -> None:
        """Give a whole copy its name."""
        layout = self._layout
        self._as_nova(
            disks.keep_whole(layout.half(server, disk.name), layout.disk(server, disk.name))
        )

    def reading_end(
        self, server: str, disk: Disk, bitmap: str = "", known: Mapping[int, str] | None = None
    ) -> End:
        """How the disk is read here: all of it, what a bitmap names, or what is not `known`."""
        path, socket = self._layout.disk(server, disk.name), self._layout.socket(server, disk.name)
        command = disks.image_server(path, disk.format, socket, read_only=True, bitmap=bitmap)
        base = self.base_end(server, disk.base) if disk.chained and not bitmap else None
        serves = disks.as_user("nova", command)
        return End(self._shell.host, socket, serves, "", bitmap, base, known or {})

    def writing_end(self, server: str, disk: Disk) -> End:
        """How the image of `begin_disk` is written here."""
        path, socket = self._layout.half(server, disk.name), self._layout.socket(server, disk.name)
        command = disks.image_server(path, disk.format, socket, read_only=False)
        return End(self._shell.host, socket, disks.as_user("nova", command))

    def get_ready(self) -> None:
        """Open what the first question of each kind would have to open.

        Raises:
            Unreachable: it does not answer.
        """
        self._shell.get_ready()
        self._guests.get_ready()

    def close(self) -> None:
        """Hang up."""
        self._guests.close()

    def _disk(self, server: str, name: str, image_format: str | None) -> Disk:
        path, cache = self._layout.disk(server, name), self._layout.cache
        whole = disks.image_info(path, image_format)
        done = self._as_nova(whole, check=False)
        if done.status:  # Its base may be gone from the cache, and kept by `keep_base`.
            alone = disks.image_info(path, image_format, chain=False)
            done = self._as_nova(alone, check=False)
            base = "" if done.status else disks.base_of(done.stdout, cache)
            if not base or not self.keeps_base(server, base):
                done = self._as_nova(whole)  # To say what is wrong with it.
        return disks.disk_of(name, done.stdout, cache)

    def _known_formats(self, server: str, listed: str) -> dict[str, str]:
        """File name -> format as the host knows it: a guest can forge its disk's head."""
        known = self._noted(server, listed)
        if domain := self.domain(server):
            here = self._layout.directory(server) + "/"
            named = GuestXml(domain.xml).disk_formats.items()
            known |= {p.removeprefix(here): kind for p, kind in named if p.startswith(here)}
        return known

    def _noted(self, server: str, listed: str) -> dict[str, str]:
        if disks.INFO not in listed.splitlines():
            return {}
        return disks.formats(self._as_nova(disks.content(self._layout.info(server))).stdout)

    def _listed(self, server: str) -> str:
        """Names in the instance directory, one a line; nothing when there is none."""
        command = disks.listing(self._layout.directory(server))
        done = self._as_nova(command, check=False)
        if done.status and self.has_directory(server):
            done = self._as_nova(command)  # To say what is wrong with it.
        return "" if done.status else done.stdout

    def _as_nova(
        self,
        command: Argv,
        *,
        stdin: bytes = b"",
        timeout_seconds: int = _SHORT_SECONDS,
        check: bool = True,
    ) -> Completed:
        return self._shell.run(
            command, stdin=stdin, timeout_seconds=timeout_seconds, sudo="nova", check=check
        )

    def _as_root(self, command: Argv, *, stdin: bytes = b"", check: bool = True) -> Completed:
        return self._shell.run(
            command, stdin=stdin, timeout_seconds=_SHORT_SECONDS, sudo="root", check=check
        )
