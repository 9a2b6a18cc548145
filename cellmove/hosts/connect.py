"""Volumes on a hypervisor: the connector that Cinder is told, and connecting by driver_volume_type.

Everything is done as the host's own nova-compute would (nova 26: virt/libvirt/volume/*.py, os-brick
6), so that nova's later disconnect finds what it expects. Every command that needs another user is
one that `playbooks/templates/sudoers.j2` allows: a change here is a change there.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo, data_of, unsupported_volume
from cellmove.hosts.disks import Argv
from cellmove.hosts.iscsi import Iscsi
from cellmove.hosts.shell import Shell

INITIATOR: Final = "/etc/iscsi/initiatorname.iscsi"
_SAFE: Final = "nosuid,nodev"
"""Last among the mount options, so that it holds: a volume's file needs neither."""
_MOUNT_SECONDS: Final = 120


def _no_address(_host: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Storage:
    """What nova-compute's own configuration says of volumes."""

    mounts_path: str = "/var/lib/nova/mnt"
    """nova's `nfs_mount_point_base`: an export is mounted at <base>/<MD5 of its name>."""
    nfs_options: str = ""
    """nova's `nfs_mount_options`: comma between them."""
    address: Callable[[str], str] = _no_address
    """Name of a host -> its `my_block_storage_ip`."""


STORAGE: Final = Storage()
"""nova's defaults."""


class Way(Protocol):
    """One driver_volume_type on one host."""

    def obstacle(self, info: ConnectionInfo) -> str: ...
    def connect(self, info: ConnectionInfo) -> str: ...
    def disconnect(self, info: ConnectionInfo) -> None: ...
    def connected(self, info: ConnectionInfo) -> bool: ...


class Volumes:
    """One hypervisor's volumes."""

    def __init__(
        self, host: str, shell: Shell, storage: Storage, has_secret: Callable[[str], bool]
    ) -> None:
        """`host`: `services.host`, which nova sends as the connector's `host`.

        `has_secret`: whether the host's libvirt knows the secret of this uuid.
        """
        self._host = host
        self._shell = shell
        self._storage = storage
        self._connector: Mapping[str, object] = {}
        self._asking = threading.Lock()
        self._ways: Mapping[str, Way] = {
            "nfs": Nfs(host, shell, storage),
            "rbd": Rbd(host, has_secret),
            "iscsi": Iscsi(shell),
        }

    def connector(self) -> Mapping[str, object]:
        """What nova-compute would send to Cinder for this host (os-brick: connector.py)."""
        with self._asking:  # of two who ask, the second one waits for the first one's answer
            if not self._connector:
                told = self._shell.run(machine()).stdout
                named = self._shell.run(initiator(), sudo="root", check=False).stdout
                address = self._storage.address(self._host)
                self._connector = connector_of(self._host, address, told, named)
            return self._connector

    def obstacle(self, info: ConnectionInfo) -> str:
        """Why this host could not connect the volume: one clause; empty when it could."""
        return unsupported_volume(info) or self._way(info).obstacle(info)

    def connect(self, info: ConnectionInfo) -> ConnectionInfo:
        """Connect a volume; twice is once. Answers the information as nova must find it.

        Raises:
            StepFailed: it is of another kind, or the host cannot.
        """
        if reason := self.obstacle(info):
            raise StepFailed(
                f"Volume {info.get('serial', '')} cannot be connected on {self._host}.",
                f"Seen: {reason}.",
                "Mend the cause on the host or detach the volume, then try again.",
            )
        return completed(info, self._way(info).connect(info))

    def disconnect(self, info: ConnectionInfo) -> None:
        """Disconnect a volume; twice is once. A mount stays: nova counts its users in memory."""
        if not unsupported_volume(info):
            self._way(info).disconnect(info)

    def connected(self, info: ConnectionInfo) -> bool:
        """Whether the host has what `connect` makes; for a mount, also when nobody needs it."""
        return not unsupported_volume(info) and self._way(info).connected(info)

    def _way(self, info: ConnectionInfo) -> Way:
        return self._ways[str(info["driver_volume_type"])]


class Nfs:
    """A file on an NFS export, which is mounted where nova would mount it."""

    def __init__(self, host: str, shell: Shell, storage: Storage) -> None:
        self._host = host
        self._shell = shell
        self._storage = storage

    def obstacle(self, _info: ConnectionInfo) -> str:
        """None that could be seen before the export is mounted."""
        return ""

    def connect(self, info: ConnectionInfo) -> str:
        """Mount the export unless it is; answers the file's path."""
        path = mount_path(self._storage.mounts_path, info)
        if not self.connected(info):
            self._shell.run(make_mount_point(path), sudo="nova")
            command = mount(info, path, self._storage.nfs_options)
            done = self._shell.run(
                command, sudo="root", timeout_seconds=_MOUNT_SECONDS, check=False
            )
            if done.status and not self.connected(info):  # nova may have been faster.
                raise StepFailed(
                    f"An NFS export cannot be mounted on {self._host}.",
                    f"`{' '.join(command)}` says: {done.stderr.strip()}",
                    "Mend the cause on the host, then try again.",
                )
        return f"{path}/{data_of(info)['name']}"

    def disconnect(self, info: ConnectionInfo) -> None:
        """Nothing: the mount stays for the others that use it."""

    def connected(self, info: ConnectionInfo) -> bool:
        """Whether the export is mounted."""
        path = mount_path(self._storage.mounts_path, info)
        return path in mounted(self._shell.run(mounts()).stdout)


class Rbd:
    """An image in Ceph: QEMU opens it itself, with a secret that the host's libvirt keeps."""

    def __init__(self, host: str, has_secret: Callable[[str], bool]) -> None:
        self._host = host
        self._has_secret = has_secret

    def obstacle(self, info: ConnectionInfo) -> str:
        """Why this host could not open the image; empty when it could."""
        secret = str(data_of(info).get("secret_uuid") or "")
        if not data_of(info).get("auth_enabled") or self._has_secret(secret):
            return ""
        return f"libvirt on {self._host} has no secret {secret}"

    def connect(self, info: ConnectionInfo) -> str:
        """Nothing to do, and no path."""
        return ""

    def disconnect(self, info: ConnectionInfo) -> None:
        """Nothing to undo."""

    def connected(self, info: ConnectionInfo) -> bool:
        """Whether QEMU could open it."""
        return not self.obstacle(info)


def machine() -> Argv:
    """Name of the host's architecture, and whether its kernel joins the paths of NVMe (Y or N)."""
    program = (
        "import os, sys; print(os.uname().machine); "
        "path = '/sys/module/nvme_core/parameters/multipath'; "
        "print(open(path).read() if os.path.exists(path) else 'N')"
    )
    return ("python3", "-I", "-S", "-c", program)


def initiator() -> Argv:
    """The host's name as an iSCSI initiator; not every host is one."""
    return ("/usr/bin/cat", INITIATOR)


def connector_of(host: str, address: str, told: str, named: str) -> dict[str, object]:
    """The connector, as far as the kinds of volume that we connect look at it.

    `told`: by `machine`; `named`: by `initiator`. Left out: what is for NVMe over fabrics alone.
    """
    architecture, joins_paths = (*told.split(), "", "")[:2]
    found: dict[str, object] = {
        "platform": architecture,
        "os_type": "linux",
        "ip": address,
        "host": host,
        "multipath": False,
        "do_local_attach": False,
        "nvme_native_multipath": joins_paths == "Y",
    }
    for line in named.splitlines():
        if line.startswith("InitiatorName="):
            found["initiator"] = line.partition("=")[2].strip()
    return found


def mounts() -> Argv:
    """What is mounted, without touching any of it: a server of files may be gone."""
    return ("cat", "/proc/self/mountinfo")


def mounted(listed: str) -> frozenset[str]:
    """The mount points that `mounts` listed."""
    return frozenset(parts[4] for line in listed.splitlines() if len(parts := line.split()) > 4)


def mount_path(base: str, info: ConnectionInfo) -> str:
    """Where nova mounts the volume's export (nova 26: virt/libvirt/volume/fs.py)."""
    export = str(data_of(info)["export"]).encode()
    return f"{base}/{hashlib.md5(export, usedforsecurity=False).hexdigest()}"


def make_mount_point(path: str) -> Argv:
    """Make the directory to mount at; twice is once."""
    return ("/usr/bin/mkdir", "-p", path)


def mount(info: ConnectionInfo, path: str, options: str) -> Argv:
    """Mount the volume's export; `options` are the host's own."""
    given = str(data_of(info).get("options") or "").removeprefix("-o ")
    every = ",".join(each for each in (options, given, _SAFE) if each)
    return ("/usr/bin/mount", "-t", "nfs", "-o", every, str(data_of(info)["export"]), path)


def completed(info: ConnectionInfo, device_path: str) -> ConnectionInfo:
    """The information with what nova notes once a volume is connected."""
    data = {**data_of(info), "device_path": device_path} if device_path else dict(data_of(info))
    return {**info, "data": data}
