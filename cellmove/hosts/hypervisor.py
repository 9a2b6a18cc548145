"""One hypervisor as the steps see it: its guests, its disks, its switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cellmove.errors import StepFailed
from cellmove.hosts import disks, switch
from cellmove.hosts.disks import Argv, Layout
from cellmove.hosts.guests import Guests
from cellmove.hosts.shell import Completed, Shell
from cellmove.hosts.transfer import End
from cellmove.hosts.xml import GuestXml
from cellmove.model import Disk, Domain, Port

_SHORT_SECONDS = 60
_DELETE_SECONDS = 600
"""A large file is not deleted at once by every file system. As in sudoers.j2."""


class RemoteHypervisor:
    """A hypervisor reached over SSH: `cellmove.cloud.Hypervisor` for real hosts."""

    def __init__(self, name: str, shell: Shell, layout: Layout, bridge: str = "br-int") -> None:
        self._name = name
        self._shell = shell
        self._layout = layout
        self._bridge = bridge
        self._guests = Guests(shell)

    @property
    def name(self) -> str:
        """`services.host` of its compute service."""
        return self._name

    def domain(self, server: str) -> Domain | None:
        """The server's guest, or None."""
        return self._guests.find(server)

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
        if not self.has_directory(server):
            return ()
        names = disks.disk_names(self._listed(server))
        known = self._known_formats(server) if names else {}
        return tuple(self._disk(server, name, known.get(name)) for name in names)

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
        """Delete the server's instance directory and all in it; twice is once."""
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
        return self._noted(server) if self.has_directory(server) else {}

    def free_bytes(self) -> int:
        """Room in the file system of the instances directory."""
        return disks.free_bytes(self._shell.run(disks.free(self._layout.instances_path)).stdout)

    def disk_path(self, server: str, disk: str) -> str:
        """Absolute path of a server's disk on this host."""
        return self._layout.disk(server, disk)

    def begin_disk(self, server: str, disk: Disk, size_bytes: int) -> None:
        """Make the empty image that a copy is written into, in place of an earlier try's."""
        half = self._layout.half(server, disk.name)
        self._as_nova(disks.remove_half(half), timeout_seconds=_DELETE_SECONDS)
        self._as_nova(disks.image_create(half, disk.format, size_bytes))

    def finish_disk(self, server: str, disk: Disk) -> None:
        """Give a whole copy its name."""
        layout = self._layout
        self._as_nova(
            disks.keep_whole(layout.half(server, disk.name), layout.disk(server, disk.name))
        )

    def reading_end(self, server: str, disk: Disk) -> End:
        """How the disk's content is read here."""
        return self._end(self._layout.disk(server, disk.name), server, disk, read_only=True)

    def writing_end(self, server: str, disk: Disk) -> End:
        """How the image of `begin_disk` is written here."""
        return self._end(self._layout.half(server, disk.name), server, disk, read_only=False)

    def close(self) -> None:
        """Hang up."""
        self._guests.close()

    def _end(self, path: str, server: str, disk: Disk, *, read_only: bool) -> End:
        socket = self._layout.socket(server, disk.name)
        command = disks.image_server(path, disk.format, socket, read_only=read_only)
        return End(self._shell.host, socket, disks.as_user("nova", command))

    def _disk(self, server: str, name: str, image_format: str | None) -> Disk:
        command = disks.image_info(self._layout.disk(server, name), image_format)
        return disks.disk_of(name, self._as_nova(command).stdout)

    def _known_formats(self, server: str) -> dict[str, str]:
        """File name -> format as the host knows it: a guest can forge its disk's head."""
        known = self._noted(server)
        if domain := self.domain(server):
            here = self._layout.directory(server) + "/"
            named = GuestXml(domain.xml).disk_formats.items()
            known |= {p.removeprefix(here): kind for p, kind in named if p.startswith(here)}
        return known

    def _noted(self, server: str) -> dict[str, str]:
        if disks.INFO not in self._listed(server).splitlines():
            return {}
        return disks.formats(self._as_nova(disks.content(self._layout.info(server))).stdout)

    def _listed(self, server: str) -> str:
        return self._as_nova(disks.listing(self._layout.directory(server))).stdout

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

    def _as_root(self, command: Argv) -> Completed:
        return self._shell.run(command, timeout_seconds=_SHORT_SECONDS, sudo="root")
