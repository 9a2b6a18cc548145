"""Hypervisors in memory: domains, instance directories, Open vSwitch ports and room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cellmove.errors import StepFailed, Unreachable
from cellmove.hosts.xml import GuestXml
from cellmove.model import Disk, Domain, Move, Port, Transfer


@dataclass(frozen=True, slots=True)
class FakeFile:
    """A disk's file: what the guest sees of it, and how large it believes the disk to be."""

    format: str
    size_bytes: int
    content: bytes


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
        missing = [path for path in GuestXml(domain.xml).disk_paths if path not in there]
        if missing:
            raise StepFailed(f"Guest {server} cannot start.", f"{missing[0]} is missing.")
        self.domains[server] = replace(domain, state="paused" if paused else "running")

    def resume(self, server: str) -> None:
        domain = self.domains.get(server)
        if domain is None or domain.state == "off":
            raise StepFailed(f"There is no running guest {server} on {self.name}.")
        self.domains[server] = replace(domain, state="running")

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
            Disk(name, file.format, file.size_bytes, len(file.content))
            for name, file in sorted(files.items())
        )

    def has_directory(self, server: str) -> bool:
        return server in self.directories

    def make_directory(self, server: str) -> None:
        self.directories.setdefault(server, {})

    def remove_directory(self, server: str) -> None:
        self.directories.pop(server, None)
        self.disk_infos.pop(server, None)

    def remove_disk(self, server: str, disk: str) -> None:
        self.directories.get(server, {}).pop(disk, None)

    def write_disk_info(self, server: str, disks: Sequence[Disk]) -> None:
        if server not in self.directories:
            raise StepFailed(f"There is no directory of {server} on {self.name}.")
        self.disk_infos[server] = {self.disk_path(server, disk.name): disk.format for disk in disks}

    def disk_info(self, server: str) -> dict[str, str]:
        note = self.disk_infos.get(server, {})
        return {path.rpartition("/")[2]: kind for path, kind in note.items()}

    def free_bytes(self) -> int:
        return self.free

    def disk_path(self, server: str, disk: str) -> str:
        return f"{self.instances_path}/{server}/{disk}"

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
        }


class FakeHosts:
    """Some hypervisors; holds `cellmove.cloud.Hosts`'s promises."""

    def __init__(self, names: Iterable[str]) -> None:
        self.by_name = {name: FakeHypervisor(name) for name in names}
        self.unreachable: set[str] = set()

    def reach(self, name: str) -> FakeHypervisor:
        if name in self.unreachable or name not in self.by_name:
            raise Unreachable(f"Host {name} cannot be reached.", "", "Run `cellmove check`.")
        return self.by_name[name]

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
        target.directories[move.server][disk.name] = replace(file, size_bytes=size_bytes)
        progress(Transfer(disk.name, len(file.content), len(file.content)))

    def snapshot(self) -> dict[str, Any]:
        """All hypervisors' snapshots, by name."""
        return {name: host.snapshot() for name, host in self.by_name.items()}
