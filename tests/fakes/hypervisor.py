"""Hypervisors in memory: domains, instance directories, Open vSwitch ports and room."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cellmove.errors import StepFailed, Unreachable
from cellmove.hosts.backup import Checkpoint
from cellmove.hosts.blocks import ConnectionInfo, data_of, unsupported_volume
from cellmove.hosts.connect import completed, connector_of, mount_path
from cellmove.hosts.disks import BASE
from cellmove.hosts.inventory import Inventory
from cellmove.hosts.machine import Offer
from cellmove.hosts.xml import GuestXml
from cellmove.model import Disk, Domain, Move, Port, Transfer

BASE_CONTENT = b"what the image has" * 10
"""Of every base."""


@dataclass(frozen=True, slots=True)
class FakeFile:
    """A disk's file: what the guest sees of it, and how large it believes the disk to be."""

    format: str
    size_bytes: int
    content: bytes
    base: str = ""
    """The image of the cache that it lies on; `content` is what the guest sees in any case."""


@dataclass(slots=True)
class FakeHypervisor:
    """One hypervisor; holds `cellmove.cloud.Hypervisor`'s promises without any host."""

    name: str
    instances_path: str = "/var/lib/nova/instances"
    free: int = 100 * 1024**3
    stubborn: bool = False
    """Its guests ignore the power button: shutdown pulls the plug (`pulled` remembers whose)."""
    domains: dict[str, Domain] = field(default_factory=dict)
    directories: dict[str, dict[str, FakeFile]] = field(default_factory=dict)
    disk_infos: dict[str, dict[str, str]] = field(default_factory=dict)
    ports: dict[str, dict[str, str]] = field(default_factory=dict)
    """Open vSwitch ports on the integration bridge: device -> external ids."""
    pulled: set[str] = field(default_factory=set)
    machines: frozenset[str] = frozenset({"pc-i440fx-7.2", "pc-q35-7.2"})
    """Machine types that it can run."""
    nvrams: dict[str, bytes] = field(default_factory=dict)
    """Files of its UEFI guests' firmware: path -> content."""
    secrets: set[str] = field(default_factory=set)
    """Ceph secrets that its libvirt knows."""
    mounted: set[str] = field(default_factory=set)
    """Mount points: they stay when their last user goes, so a snapshot says nothing of them."""
    checkpoints_: dict[str, list[str]] = field(default_factory=dict)
    """Server -> its guest's checkpoints. They, `halves_` and `jobs_` are tools of a move, nothing
    of the server's: no snapshot has them, but none may outlive its move."""
    halves_: dict[str, dict[str, FakeFile]] = field(default_factory=dict)
    """Server -> disks that were copied while the guest ran."""
    jobs_: dict[str, str] = field(default_factory=dict)
    """Server -> what goes on for it: a backup of its guest, a disk on its way."""
    cold: dict[str, str] = field(default_factory=dict)
    """Disk name -> why no guest's disk of this name can be copied while it runs."""
    devices: dict[str, str] = field(default_factory=dict)
    """iSCSI: target and number -> device."""
    is_shared: bool = False
    """Whether the instances directory is other hosts', too."""
    bases: dict[str, bytes] = field(default_factory=dict)
    """nova's image cache: name -> content."""
    kept: dict[str, set[str]] = field(default_factory=dict)
    """Server -> bases that its directory keeps, whatever is deleted from the cache."""
    exports: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Server -> processes that serve its disks for a move."""

    def add_guest(self, xml: str, disks: dict[str, FakeFile], *, running: bool) -> None:
        """A guest as nova would have made it: directory, disks, definition."""
        uuid = GuestXml(xml).uuid
        self.directories[uuid] = dict(disks)
        self.disk_infos[uuid] = {
            self.disk_path(uuid, name): file.format for name, file in disks.items()
        }
        self.define(xml)
        if running:
            self.start(uuid)

    def domain(self, server: str) -> Domain | None:
        return self.domains.get(server)

    def inventory(self) -> Inventory:
        return Inventory(
            {uuid: domain.state != "off" for uuid, domain in self.domains.items()},
            {name: name.partition("_")[0] for name in self.directories},
            self.is_shared,
            {server: tuple(found) for server, found in self.halves_.items() if found},
            {server: tuple(found) for server, found in self.checkpoints_.items() if found},
            dict(self.exports),
            self._plugs(),
        )

    def define(self, xml: str) -> None:
        guest = GuestXml(xml)
        namesakes = [d for d in self.domains.values() if d.name == guest.name]
        if any(other.uuid != guest.uuid for other in namesakes):
            raise StepFailed(f"Domain name {guest.name} is taken on {self.name}.")
        there = self.domains.get(guest.uuid)
        if there is not None and there.name != guest.name:
            raise StepFailed(f"Domain {guest.uuid} has another name on {self.name}.")
        state = there.state if there else "off"
        self.domains[guest.uuid] = Domain(guest.uuid, guest.name, state, xml)

    def undefine(self, server: str) -> None:
        domain = self.domains.get(server)
        if domain is None:
            return
        if domain.state != "off":
            raise StepFailed(f"Guest {server} still runs on {self.name}.")
        if self.checkpoints_.get(server):
            raise StepFailed(f"Guest {server} on {self.name} has checkpoints.")
        del self.domains[server]

    def start(self, server: str, *, paused: bool = False) -> None:
        domain = self.domains.get(server)
        if domain is None:
            raise StepFailed(f"There is no guest {server} on {self.name}.")
        if domain.state != "off":
            return
        there = {
            self.disk_path(owner, name)
            for owner, files in self.directories.items()
            for name in files
        }
        missing = [
            path
            for path in GuestXml(domain.xml).disk_paths
            if path not in there and path.rpartition("/")[0] not in self.mounted
        ]
        files = self.directories.get(server, {}).values()
        missing += [file.base for file in files if file.base and file.base not in self.bases]
        if missing:
            raise StepFailed(f"Guest {server} cannot start.", f"{missing[0]} is missing.")
        self.domains[server] = replace(domain, state="paused" if paused else "running")

    def resume(self, server: str) -> None:
        domain = self.domains.get(server)
        if domain is None or domain.state == "off":
            raise StepFailed(f"There is no running guest {server} on {self.name}.")
        self.domains[server] = replace(domain, state="running")

    def pause(self, server: str) -> None:
        domain = self.domains.get(server)
        if domain is not None and domain.state == "running":
            self.domains[server] = replace(domain, state="paused")

    def shutdown(self, server: str, timeout_seconds: int) -> None:
        domain = self.domains.get(server)
        if domain is None or domain.state == "off":
            return
        if self.stubborn:
            self.pulled.add(server)
        self.domains[server] = replace(domain, state="off")

    def plug(self, server: str, port: Port) -> None:
        self.ports[port.device] = {
            "iface-id": port.id,
            "iface-status": "active",
            "attached-mac": port.mac,
            "vm-uuid": server,
        }

    def unplug(self, port: Port) -> None:
        self.ports.pop(port.device, None)

    def _plugs(self) -> dict[str, tuple[str, ...]]:
        made: dict[str, tuple[str, ...]] = {}
        for ids in self.ports.values():
            made[ids["vm-uuid"]] = (*made.get(ids["vm-uuid"], ()), ids["iface-id"])
        return made

    def wired(self, port: Port) -> bool:
        return self.plugged(port) and any(
            interface.device == port.device
            for domain in self.domains.values()
            if domain.state != "off"
            for interface in GuestXml(domain.xml).interfaces
        )

    def plugged(self, port: Port) -> bool:
        return port.device in self.ports

    def disks(self, server: str) -> tuple[Disk, ...]:
        files = self.directories.get(server, {})
        return tuple(
            Disk(
                name,
                file.format,
                file.size_bytes,
                len(file.content),
                base=file.base,
                base_bytes=len(self.bases.get(file.base, b"")),
            )
            for name, file in sorted(files.items())
        )

    def disk_names(self, server: str) -> tuple[str, ...]:
        return tuple(sorted(self.directories.get(server, {})))

    def why_cold(self, server: str, disks: Sequence[Disk]) -> dict[str, str]:
        return {disk.name: self.cold.get(disk.name, "") for disk in disks}

    def halves(self, server: str) -> tuple[str, ...]:
        return tuple(self.halves_.get(server, {}))

    def checkpoints(self, server: str) -> tuple[str, ...]:
        return tuple(self.checkpoints_.get(server, ()))

    def forget_writes(self, server: str, disks: Sequence[Disk]) -> None:
        kept = [name for name in self.checkpoints(server) if not Checkpoint.named(name)]
        self.jobs_.pop(server, None)
        self.checkpoints_[server] = kept

    def has_base(self, base: str) -> bool:
        return base in self.bases

    def base_hash(self, server: str, base: str) -> str:
        return hashlib.sha256(self.bases[base]).hexdigest()

    def drop_base(self, base: str) -> None:
        files = [file for files in self.directories.values() for file in files.values()]
        files += [file for files in self.halves_.values() for file in files.values()]
        if not any(file.base == base for file in files):
            self.bases.pop(base, None)

    def keeps_base(self, server: str, base: str) -> bool:
        return base in self.kept.get(server, set())

    def keep_base(self, server: str, base: str) -> None:
        if not self.keeps_base(server, base) and base not in self.bases:
            raise StepFailed(f"{self.name} has no base {base}.")
        self.kept.setdefault(server, set()).add(base)

    def release_base(self, server: str, base: str) -> None:
        self.kept.get(server, set()).discard(base)

    def restore_base(self, server: str, base: str) -> None:
        if base not in self.bases and not self.keeps_base(server, base):
            raise StepFailed(f"{self.name} keeps no base {base}.")
        self.bases.setdefault(base, BASE_CONTENT)

    def has_directory(self, server: str) -> bool:
        return server in self.directories

    def make_directory(self, server: str) -> None:
        self.directories.setdefault(server, {})

    def remove_directory(self, server: str) -> None:
        self.directories.pop(server, None)
        self.disk_infos.pop(server, None)
        self.halves_.pop(server, None)
        self.kept.pop(server, None)

    def remove_disk(self, server: str, disk: str) -> None:
        self.directories.get(server, {}).pop(disk, None)
        self.halves_.get(server, {}).pop(disk, None)

    def write_disk_info(self, server: str, disks: Sequence[Disk]) -> None:
        if server not in self.directories:
            raise StepFailed(f"There is no directory of {server} on {self.name}.")
        self.disk_infos[server] = {self.disk_path(server, disk.name): disk.format for disk in disks}

    def disk_info(self, server: str) -> dict[str, str]:
        note = self.disk_infos.get(server, {})
        return {path.rpartition("/")[2]: kind for path, kind in note.items()}

    def free_bytes(self) -> int:
        return self.free

    def shared_place(self) -> str:
        return "nas:/instances nfs4" if self.is_shared else ""

    def disk_path(self, server: str, disk: str) -> str:
        return f"{self.instances_path}/{server}/{disk}"

    def offer(self, xml: str) -> Offer:
        guest = GuestXml(xml)
        known = guest.machine in self.machines
        return Offer(() if known else (f"no machine like its {guest.machine}",))

    def nvram(self, path: str) -> bytes | None:
        return self.nvrams.get(path)

    def write_nvram(self, path: str, content: bytes) -> None:
        self.nvrams[path] = content

    def remove_nvram(self, path: str) -> None:
        self.nvrams.pop(path, None)

    def connector(self) -> Mapping[str, object]:
        named = f"InitiatorName=iqn.2004-10.example:{self.name}\n"
        return connector_of(self.name, "192.0.2.1", "x86_64", named)

    def volume_obstacle(self, info: ConnectionInfo) -> str:
        secret = str(data_of(info).get("secret_uuid") or "")
        absent = secret and info.get("driver_volume_type") == "rbd" and secret not in self.secrets
        return unsupported_volume(info) or (
            f"libvirt on {self.name} has no secret {secret}" if absent else ""
        )

    def connect_volume(self, info: ConnectionInfo) -> ConnectionInfo:
        self._must_connect(info)
        data = data_of(info)
        if info["driver_volume_type"] == "nfs":
            path = mount_path("/var/lib/nova/mnt", info)
            self.mounted.add(path)
            return completed(info, f"{path}/{data['name']}")
        if info["driver_volume_type"] == "iscsi":
            lun = f"{data['target_iqn']}-lun-{data['target_lun']}"
            device = f"/dev/disk/by-path/ip-{data['target_portal']}-iscsi-{lun}"
            self.devices[lun] = device
            return completed(info, device)
        return completed(info, "")

    def disconnect_volume(self, info: ConnectionInfo) -> None:
        data = data_of(info)
        if not unsupported_volume(info) and info["driver_volume_type"] == "iscsi":
            self.devices.pop(f"{data['target_iqn']}-lun-{data['target_lun']}", None)

    def volume_connected(self, info: ConnectionInfo) -> bool:
        data = data_of(info)
        if info["driver_volume_type"] == "nfs":
            return mount_path("/var/lib/nova/mnt", info) in self.mounted
        if info["driver_volume_type"] == "iscsi":
            return f"{data['target_iqn']}-lun-{data['target_lun']}" in self.devices
        return not self.volume_obstacle(info)

    def _must_connect(self, info: ConnectionInfo) -> None:
        if obstacle := self.volume_obstacle(info):
            raise StepFailed("A volume cannot be connected.", obstacle)

    def snapshot(self) -> dict[str, Any]:
        """Everything there is, as plain data: two equal snapshots are two equal hosts."""
        return {
            "domains": {uuid: (d.name, d.state, d.xml) for uuid, d in self.domains.items()},
            "directories": {
                uuid: {name: (f.format, f.size_bytes, f.content) for name, f in files.items()}
                for uuid, files in self.directories.items()
            },
            "disk_infos": {uuid: dict(info) for uuid, info in self.disk_infos.items()},
            "ports": {device: dict(ids) for device, ids in self.ports.items()},
            "nvrams": dict(self.nvrams),
            "bases": dict(self.bases),
            "kept": {server: sorted(names) for server, names in self.kept.items() if names},
            "devices": dict(self.devices),
        }

    def tools(self) -> dict[str, Any]:
        """What moves have here for themselves: a step may take away another one's."""
        return {
            "checkpoints": {uuid: names for uuid, names in self.checkpoints_.items() if names},
            "halves": {uuid: sorted(names) for uuid, names in self.halves_.items() if names},
            "jobs": dict(self.jobs_),
        }


class FakeHosts:
    """Some hypervisors; holds `cellmove.cloud.Hosts`'s promises."""

    def __init__(self, names: Iterable[str]) -> None:
        self.by_name = {name: FakeHypervisor(name) for name in names}
        self.unreachable: set[str] = set()
        self.no_way_ = ""
        """What the bastion says when it is told to sign in to two hosts."""
        self.midway: Callable[[], None] = lambda: None
        """Called in the middle of a copy: what it raises cuts it off there."""

    def expect(self, *names: str) -> None:
        pass

    def reach(self, name: str) -> FakeHypervisor:
        if name in self.unreachable or name not in self.by_name:
            raise Unreachable(f"Host {name} cannot be reached.", "", "Run `cellmove check`.")
        return self.by_name[name]

    def no_way(self, source: str, target: str) -> str:
        return self.no_way_

    def bring_base(self, move: Move, base: str, progress: Callable[[Transfer], None]) -> None:
        source, target = self.reach(move.source.name), self.reach(move.target.name)
        if target.has_base(base):
            return
        if not target.has_directory(move.server):
            raise StepFailed(f"There is no directory of {move.server} on {target.name}.")
        content = source.bases[base]
        target.halves_.setdefault(move.server, {})[BASE] = FakeFile("raw", 0, b"")
        self.midway()
        target.halves_[move.server].pop(BASE)
        target.bases.setdefault(base, content)
        progress(Transfer(BASE, len(content), len(content)))

    def precopy(
        self,
        move: Move,
        sizes_bytes: Mapping[str, int],
        progress: Callable[[Transfer], None],
    ) -> None:
        source, target = self.reach(move.source.name), self.reach(move.target.name)
        domain = source.domain(move.server)
        if domain is None or domain.state == "off":
            raise StepFailed(f"Guest {move.server} does not run on {source.name}.")
        if not target.has_directory(move.server):
            raise StepFailed(f"There is no directory of {move.server} on {target.name}.")
        source.forget_writes(move.server, move.disks)
        source.checkpoints_[move.server] = [Checkpoint.of(move.id, 0).name]
        source.jobs_[move.server] = "backup"
        for disk in move.disks:
            if disk.warm:
                target.halves_.setdefault(move.server, {})[disk.name] = _begun(
                    target, disk, "qcow2"
                )
        self.midway()
        source.jobs_.pop(move.server)
        source.checkpoints_[move.server] = [Checkpoint.of(move.id, 1).name]
        for disk in move.disks:
            if disk.warm:
                file = source.directories[move.server][disk.name]
                base = disk.base if disk.chained else ""
                made = replace(file, size_bytes=sizes_bytes[disk.name], base=base)
                target.halves_.setdefault(move.server, {})[disk.name] = made
                progress(Transfer(disk.name, len(file.content), len(file.content), 0))

    def copy_disk(
        self,
        move: Move,
        disk: Disk,
        size_bytes: int,
        progress: Callable[[Transfer], None],
    ) -> None:
        source, target = self.reach(move.source.name), self.reach(move.target.name)
        domain = source.domain(move.server)
        if domain is not None and domain.state != "off":
            raise StepFailed(f"Guest {move.server} still runs on {source.name}.")
        file = source.directories.get(move.server, {}).get(disk.name)
        if file is None:
            raise StepFailed(f"{source.name} has no {disk.name} of {move.server}.")
        if not target.has_directory(move.server):
            raise StepFailed(f"There is no directory of {move.server} on {target.name}.")
        if size_bytes < file.size_bytes:
            raise StepFailed(f"{disk.name} would shrink.")
        progress(Transfer(disk.name, 0, len(file.content)))
        begun = _begun(target, disk, file.format)
        target.halves_.setdefault(move.server, {})[disk.name] = begun
        self.midway()
        target.halves_[move.server].pop(disk.name)
        made = replace(file, size_bytes=size_bytes, base=begun.base)
        target.directories[move.server][disk.name] = made
        progress(Transfer(disk.name, len(file.content), len(file.content)))

    def snapshot(self) -> dict[str, Any]:
        """All hypervisors' snapshots, by name."""
        return {name: host.snapshot() for name, host in self.by_name.items()}


def _begun(target: FakeHypervisor, disk: Disk, image_format: str) -> FakeFile:
    """An empty copy, on its base if it has one."""
    base = disk.base if disk.chained else ""
    if base and base not in target.bases:
        raise StepFailed(f"{target.name} has no base {base}.")
    return FakeFile(image_format, 0, b"", base)
