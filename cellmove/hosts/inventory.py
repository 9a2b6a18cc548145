"""All that a hypervisor has of servers: guests, files, ports, and what moves leave there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import libvirt

from cellmove.hosts import backup, disks, switch
from cellmove.hosts.disks import HALF, Argv, Layout
from cellmove.hosts.guests import Guests
from cellmove.hosts.shell import Shell
from cellmove.model import UUID

LOCAL: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs"})
"""File systems that are one host's alone."""
SECONDS: Final = 60
_DIRECTORY: Final = re.compile(rf"({UUID.pattern})(?:_resize|_del)?")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one hypervisor has."""

    guests: Mapping[str, bool] = field(default_factory=dict)
    """Uuid of each domain that its libvirt knows -> whether it is active."""
    directories: Mapping[str, str] = field(default_factory=dict)
    """Name of an instance directory (`UUID`, `UUID_resize`, `UUID_del`) -> the server."""
    is_shared: bool = False
    """Whether the instances directory may be other hosts', too: all of them list the same."""
    halves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Server -> names of its disks that a copy has left half."""
    checkpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Server -> names of our checkpoints of its guest."""
    exports: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Server -> ids of the processes of ours that serve its disks."""
    plugs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Server -> ids of its ports that are plugged into Open vSwitch."""


def read(shell: Shell, layout: Layout, guests: Guests) -> Inventory:
    """Look once: two questions to libvirt, five commands.

    Raises:
        Unreachable: the host or its libvirt does not answer.
        StepFailed: a command is refused.
    """
    known, noted = guests.ask(_guests)
    path = layout.instances_path
    listed = shell.run(disks.listing(path), timeout_seconds=SECONDS, sudo="nova").stdout
    found = shell.run(find_halves(path), timeout_seconds=SECONDS, sudo="nova").stdout
    # ps ends with 1 when there is no such process.
    served = shell.run(processes(), timeout_seconds=SECONDS, check=False).stdout
    # A host may have another switch.
    plugged = shell.run(switch.records(), timeout_seconds=SECONDS, sudo="root", check=False).stdout
    kind = shell.run(file_system(path), timeout_seconds=SECONDS).stdout
    return Inventory(
        known,
        directories(listed),
        is_shared(kind),
        halves(found),
        noted,
        exports(served, layout.socket_path),
        switch.plugs(plugged),
    )


def find_halves(path: str) -> Argv:
    """The disks under the instances directory that are half copied, one a line."""
    return ("/usr/bin/find", path, "-mindepth", "2", "-maxdepth", "2", "-name", f"*{HALF}")


def processes() -> Argv:
    """All disk servers of QEMU: id and arguments, one a line; anybody may ask."""
    return ("ps", "-C", "qemu-nbd", "-o", "pid=,args=")


def file_system(path: str) -> Argv:
    """Kind of file system that a path is on."""
    return ("df", "--output=fstype", path)


def mounted(path: str) -> Argv:
    """What is mounted where a path is, and of what kind; anybody may ask."""
    return ("df", "--output=source,fstype", path)


def shared_place(printed: str) -> str:
    """What `mounted` named, if other hosts may have the same; empty: it is this host's alone.

    The name of a device says nothing: each host has its own `/dev/vda1`.
    """
    kind = printed.split()[-1:]
    source = "".join(printed.split()[-2:-1])
    alone = source.startswith("/dev/") or not is_shared(printed)
    return "" if alone else " ".join([source, *kind])


def directories(listed: str) -> dict[str, str]:
    """Instance directories among the names that `disks.listing` gave."""
    found = (_DIRECTORY.fullmatch(name) for name in listed.splitlines())
    return {each[0]: each[1] for each in found if each}


def halves(found: str) -> dict[str, tuple[str, ...]]:
    """Server -> disks of the paths that `find_halves` gave."""
    made: dict[str, tuple[str, ...]] = {}
    for line in sorted(found.splitlines()):
        *_, server, name = line.split("/")
        if _DIRECTORY.fullmatch(server):
            made[server] = (*made.get(server, ()), name.removesuffix(HALF))
    return made


def exports(printed: str, socket_path: str) -> dict[str, tuple[int, ...]]:
    """Server -> processes of what `processes` gave that listen in this directory of ours."""
    socket = rf"{re.escape(socket_path)}/({UUID.pattern})-disk\S*[.]sock"
    ours = re.compile(rf"\s*(\d+) .*--socket={socket}")
    made: dict[str, tuple[int, ...]] = {}
    for found in filter(None, map(ours.match, printed.splitlines())):
        made[found[2]] = (*made.get(found[2], ()), int(found[1]))
    return made


def is_shared(printed: str) -> bool:
    """Whether `file_system` named one that other hosts may have, too; an unknown one may."""
    kind = "".join(printed.split()[-1:])
    return kind not in LOCAL


def _guests(connection: Any) -> tuple[dict[str, bool], dict[str, tuple[str, ...]]]:
    """Every domain, and the checkpoints of ours of those that have some."""
    known = {domain.UUIDString(): False for domain in connection.listAllDomains()}
    active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    known |= {domain.UUIDString(): True for domain in active}
    marked = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT)
    noted = {}
    for domain in marked:
        if ours := tuple(each.name for each in backup.ours(_checkpoints(domain))):
            noted[domain.UUIDString()] = ours
    return known, noted


def _checkpoints(domain: Any) -> tuple[str, ...]:
    try:
        return backup.checkpoints(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return ()  # It went while we were looking.
