"""The cloud as the steps see it: a frozen bundle of databases, services and hypervisors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cellmove.dbcopy.database import Database
from cellmove.hosts.blocks import ConnectionInfo
from cellmove.hosts.inventory import Inventory
from cellmove.hosts.machine import Offer
from cellmove.model import (
    Allocations,
    Attachment,
    Binding,
    Candidate,
    Disk,
    Domain,
    Move,
    Port,
    ResourceGroup,
    ServerPort,
    Transfer,
    Vif,
    VolumeState,
)


class Network(Protocol):
    """Neutron: ports and their bindings."""

    def has_extension(self, alias: str) -> bool:
        """Whether Neutron has loaded this API extension (we need `binding-extended`)."""
        ...

    def ports(self, server: str) -> tuple[Port, ...]:
        """All ports whose device is this server, ordered by id."""
        ...

    def vifs(self, server: str) -> tuple[Vif, ...]:
        """The same ports with networks, subnets and floating addresses, ordered by port id."""
        ...

    def resource_groups(self, server: str) -> tuple[ResourceGroup, ...]:
        """What the server's ports want of Placement: the guarantees of their QoS policies.

        Raises:
            Refused: Neutron does not tell it in groups (before Xena).
        """
        ...

    def bindings(self, port: str) -> tuple[Binding, ...]:
        """All bindings of a port; empty when the port is gone."""
        ...

    def server_ports(self) -> tuple[ServerPort, ...]:
        """The ports of all servers, in pages."""
        ...

    def bound_to(self, host: str) -> frozenset[str]:
        """Ids of the ports with a binding at this host, be it the active one or not."""
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

    def held(self) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
        """Consumer -> provider -> resource class -> amount, of all consumers."""
        ...

    def replace(self, changes: Sequence[Allocations]) -> None:
        """All of these consumers at once (POST /allocations); `generation` is the one expected.

        Raises:
            Conflict: a consumer's generation is another one, or there is no room.
        """
        ...

    def free(self, provider: str) -> Mapping[str, int]:
        """Resource class -> what can still be allocated on this provider."""
        ...

    def used(self, project: str, user: str | None = None) -> Mapping[str, int]:
        """Resource class -> what all consumers of a project, or of a user in it, hold."""
        ...

    def providers(self, root: str) -> frozenset[str]:
        """The provider itself, those nested under it, and those that share with one of them."""
        ...

    def candidates(
        self, root: str, needs: Mapping[str, int], groups: Sequence[ResourceGroup] = ()
    ) -> tuple[Candidate, ...]:
        """How this host could give `needs` and each group; empty when it cannot."""
        ...

    def roomy(
        self,
        needs: Mapping[str, int],
        groups: Sequence[ResourceGroup] = (),
        *,
        required: Collection[str] = (),
        forbidden: Collection[str] = (),
    ) -> frozenset[str]:
        """All hosts' providers that could give it, with and without these traits, in one call."""
        ...


class Volumes(Protocol):
    """Cinder: a server's volumes and their attachments."""

    def has_attachments(self) -> bool:
        """Whether Cinder knows attachments as we use them (microversion 3.44)."""
        ...

    def volume(self, volume: str) -> VolumeState | None:
        """A volume's state; None when there is no such volume."""
        ...

    def attachments(self, server: str) -> tuple[Attachment, ...]:
        """All attachments to this server, reserved ones too, ordered by id."""
        ...

    def all_attachments(self) -> Mapping[str, tuple[Attachment, ...]]:
        """Server -> its attachments, of all that Cinder knows, in pages."""
        ...

    def connection_info(self, attachment: str) -> ConnectionInfo:
        """How a host reaches the volume, as nova stores it; empty while it is only reserved.

        It may hold a secret.
        """
        ...

    def reserve(self, volume: str, server: str) -> None:
        """Make an attachment without a connector; each call makes another one.

        Raises:
            StepFailed: another server has the volume, or an attachment is not completed.
        """
        ...

    def export(self, volume: str, server: str, connector: Mapping[str, object]) -> None:
        """Make an attachment with a connector, also beside another host's.

        Raises:
            StepFailed: another server has the volume, an attachment is not completed, or the
                backend cannot.
        """
        ...

    def connect(self, attachment: str, connector: Mapping[str, object]) -> None:
        """Give a reserved attachment its connector: the volume is exported to that host.

        Raises:
            StepFailed: another attachment of the volume has a connector, or the backend cannot.
        """
        ...

    def complete(self, attachment: str) -> None:
        """Tell Cinder that the volume is in use through this attachment; twice is once."""
        ...

    def delete(self, attachment: str) -> None:
        """Delete an attachment, and the export with it; nothing happens when it is gone."""
        ...


class Hypervisor(Protocol):
    """One hypervisor, reached over SSH through the bastion."""

    @property
    def name(self) -> str: ...

    def domain(self, server: str) -> Domain | None: ...

    def inventory(self) -> Inventory:
        """All that it has of servers: guests, directories, and what moves leave there."""
        ...

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

    def pause(self, server: str) -> None:
        """Stop a running guest's processors, no more; nothing happens when it does not run."""
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

    def disk_names(self, server: str) -> tuple[str, ...]:
        """Names of `disks`, at once."""
        ...

    def why_cold(self, server: str, disks: Sequence[Disk]) -> Mapping[str, str]:
        """Disk name -> why it cannot be copied while the guest runs; empty when it can."""
        ...

    def halves(self, server: str) -> tuple[str, ...]:
        """Names of the disks that are here under way; they are not among `disks` yet."""
        ...

    def checkpoints(self, server: str) -> tuple[str, ...]:
        """Names of all libvirt checkpoints of the guest; none without a guest."""
        ...

    def forget_writes(self, server: str, disks: Sequence[Disk]) -> None:
        """Delete all notes of ours of what the guest writes: backup, checkpoints and bitmaps."""
        ...

    def has_base(self, base: str) -> bool:
        """Whether the image cache has this base (its name is the SHA-1 of the image's id)."""
        ...

    def base_hash(self, server: str, base: str) -> str:
        """Hash of what a base has that is there; it is read for this server's move."""
        ...

    def drop_base(self, base: str) -> None:
        """Take a base out of the cache unless a disk here lies on it; twice is once."""
        ...

    def keeps_base(self, server: str, base: str) -> bool:
        """Whether the server's directory keeps this base, whatever nova deletes from the cache."""
        ...

    def keep_base(self, server: str, base: str) -> None:
        """Make it so: by a further name of the same file; twice is once."""
        ...

    def release_base(self, server: str, base: str) -> None:
        """Delete that name; twice is once."""
        ...

    def restore_base(self, server: str, base: str) -> None:
        """Put a base that was kept back into the cache if it is gone from there."""
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

    def shared_place(self) -> str:
        """What other hosts may have mounted for the instances directory, too; empty: nothing."""
        ...

    def disk_path(self, server: str, disk: str) -> str:
        """Absolute path of a server's disk on this host."""
        ...

    def offer(self, xml: str) -> Offer:
        """What the host decides about a guest of this definition, and whether it can run it."""
        ...

    def nvram(self, path: str) -> bytes | None:
        """What a guest's firmware keeps in this file; None when there is none."""
        ...

    def write_nvram(self, path: str, content: bytes) -> None:
        """Make this file of a guest's firmware, or make it anew."""
        ...

    def remove_nvram(self, path: str) -> None:
        """Delete this file of a guest's firmware; twice is once."""
        ...

    def connector(self) -> Mapping[str, object]:
        """What nova-compute there would tell Cinder of itself: host, ip, initiator..."""
        ...

    def volume_obstacle(self, info: ConnectionInfo) -> str:
        """Why this host could not connect such a volume: one clause; empty when it could."""
        ...

    def connect_volume(self, info: ConnectionInfo) -> ConnectionInfo:
        """Connect a volume; twice is once. Answers `info` as nova must find it (`device_path`).

        Raises:
            StepFailed: it is of another kind, or the host cannot.
        """
        ...

    def disconnect_volume(self, info: ConnectionInfo) -> None:
        """Disconnect a volume, if it is connected. A mount stays: nova counts its users."""
        ...

    def volume_connected(self, info: ConnectionInfo) -> bool:
        """Whether the host has what `connect_volume` makes; a mount is still there afterwards."""
        ...


class Hosts(Protocol):
    """All hypervisors, and the way of bytes between two of them."""

    def expect(self, *names: str) -> None:
        """Begin to open the way to these: whoever needs one soon waits less. Raises nothing."""
        ...

    def reach(self, name: str) -> Hypervisor:
        """The hypervisor of this name (`services.host`).

        Raises:
            Unreachable: no SSH, no libvirt, or an unknown host key.
        """
        ...

    def no_way(self, source: str, target: str) -> str:
        """Why copies between these hosts cannot go the way that is configured; empty: they can.

        Raises:
            StepFailed: the SSH configuration does not say where one of them is.
        """
        ...

    def bring_base(self, move: Move, base: str, progress: Callable[[Transfer], None]) -> None:
        """Copy a base from the source's image cache into the target's, verified; twice is once.

        Raises:
            StepFailed: the copy broke or differs.
        """
        ...

    def precopy(
        self,
        move: Move,
        sizes_bytes: Mapping[str, int],
        progress: Callable[[Transfer], None],
    ) -> None:
        """Copy the move's warm disks while the guest runs, and note what it writes from then on.

        The copies stay under another name (`Hypervisor.halves`); `sizes_bytes` are the target's.
        Afterwards there is one checkpoint of this move, and it is not its first (number 0).

        Raises:
            StepFailed: the guest is off, its libvirt refuses, or a copy broke.
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
    volumes: Volumes
    hosts: Hosts
    progress: Callable[[Transfer], None]

    def source(self, move: Move) -> Database:
        """Database of the source cell."""
        return self.cells[move.source.cell.uuid]

    def target(self, move: Move) -> Database:
        """Database of the target cell."""
        return self.cells[move.target.cell.uuid]
