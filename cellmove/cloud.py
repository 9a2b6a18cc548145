"""The cloud as the steps see it: a frozen bundle of databases, services and hypervisors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cellmove.dbcopy.database import Database
from cellmove.model import Allocations, Binding, Disk, Domain, Move, Port, Transfer


class Network(Protocol):
    """Neutron: ports and their bindings."""

    def has_extension(self, alias: str) -> bool:
        """Whether Neutron has loaded this API extension (we need `binding-extended`)."""
        ...

    def ports(self, server: str) -> tuple[Port, ...]:
        """All ports whose device is this server, ordered by id."""
        ...

    def bindings(self, port: str) -> tuple[Binding, ...]:
        """All bindings of a port; empty when the port is gone."""
        ...

    def bind(self, port: str, host: str, vnic_type: str, profile: Mapping[str, object]) -> Binding:
        """Create an inactive binding; the binding of that host when there is one already."""
        ...

    def activate(self, port: str, host: str) -> None:
        """Make this host's binding the active one; nothing happens when it is."""
        ...

    def rebind(self, port: str, host: str) -> None:
        """Bind the active binding anew on its host: a re-activated one stays `unbound` (Zed)."""
        ...

    def unbind(self, port: str, host: str) -> None:
        """Delete this host's binding; nothing happens when there is none.

        Raises:
            StepFailed: it is the active one (Neutron would allow that and leave the port unbound).
        """
        ...


class Placement(Protocol):
    """Placement: who holds which resources."""

    def allocations(self, consumer: str) -> Allocations: ...

    def replace(self, changes: Sequence[Allocations]) -> None:
        """All of these consumers at once (POST /allocations); `generation` is the one expected.

        Raises:
            Conflict: a consumer's generation is another one, or there is no room.
        """
        ...

    def free(self, provider: str) -> Mapping[str, int]:
        """Resource class -> what can still be allocated on this provider."""
        ...


class Hypervisor(Protocol):
    """One hypervisor, reached over SSH through the bastion."""

    @property
    def name(self) -> str: ...

    def domain(self, server: str) -> Domain | None: ...

    def define(self, xml: str) -> None:
        """Define a guest, or define it anew."""
        ...

    def undefine(self, server: str) -> None:
        """Forget a guest that is off, if there is one; its disks and NVRAM stay."""
        ...

    def start(self, server: str, *, paused: bool = False) -> None:
        """Start the guest; nothing happens when it runs or is paused."""
        ...

    def resume(self, server: str) -> None:
        """Let a paused guest run; nothing happens when it runs."""
        ...

    def shutdown(self, server: str, timeout_seconds: int) -> None:
        """Press the power button until the guest is off; pull the plug when the time is over."""
        ...

    def plug(self, server: str, port: Port) -> None:
        """Make the port's Open vSwitch port on `br-int`, as nova's os-vif does; twice is once."""
        ...

    def unplug(self, port: Port) -> None: ...

    def wired(self, port: Port) -> bool:
        """Whether the port's tap device is there and attached to the bridge."""
        ...

    def plugged(self, port: Port) -> bool:
        """Whether the bridge has the port's record."""
        ...

    def disks(self, server: str) -> tuple[Disk, ...]:
        """The disk files in the server's instance directory, by name; empty without a directory."""
        ...

    def has_directory(self, server: str) -> bool: ...

    def make_directory(self, server: str) -> None:
        """Make the server's instance directory as nova would; twice is once."""
        ...

    def remove_directory(self, server: str) -> None:
        """Delete the server's instance directory and all in it; twice is once."""
        ...

    def remove_disk(self, server: str, disk: str) -> None:
        """Delete one disk of the server and the half copy of it; twice is once."""
        ...

    def write_disk_info(self, server: str, disks: Sequence[Disk]) -> None:
        """Write nova's `disk.info` (path -> format) for disks of these names."""
        ...

    def disk_info(self, server: str) -> Mapping[str, str]:
        """What nova's `disk.info` says: disk name -> format; empty without one."""
        ...

    def free_bytes(self) -> int:
        """Room in the file system of the instances directory."""
        ...

    def disk_path(self, server: str, disk: str) -> str:
        """Absolute path of a server's disk on this host."""
        ...


class Hosts(Protocol):
    """All hypervisors, and the way of bytes between two of them."""

    def reach(self, name: str) -> Hypervisor:
        """The hypervisor of this name (`services.host`).

        Raises:
            Unreachable: no SSH, no libvirt, or an unknown host key.
        """
        ...

    def copy_disk(
        self,
        move: Move,
        disk: Disk,
        size_bytes: int,
        progress: Callable[[Transfer], None],
    ) -> None:
        """Copy a stopped guest's disk from the move's source to its target, verified.

        Written under another name and renamed once the content's hash is the same on both ends:
        a disk of the final name on the target is a whole one. `size_bytes` is the target's size.

        Raises:
            StepFailed: the copy broke or differs; the half file is gone or overwritten next time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Cloud:
    """Everything a step may touch."""

    api: Database
    cells: Mapping[str, Database]
    """By cell uuid."""
    network: Network
    placement: Placement
    hosts: Hosts
    progress: Callable[[Transfer], None]

    def source(self, move: Move) -> Database:
        """Database of the source cell."""
        return self.cells[move.source.cell.uuid]

    def target(self, move: Move) -> Database:
        """Database of the target cell."""
        return self.cells[move.target.cell.uuid]
