"""The hypervisors: can we reach them, and do there what a move does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from cellmove.check.findings import Finding, Result, fail, guarded, ok, warn
from cellmove.hosts import connect, disks, firmware, inventory, iscsi, switch
from cellmove.hosts.disks import Argv, Layout
from cellmove.model import Port

LITTLE_ROOM_BYTES: Final = 10 * 1024**3
_SERVER: Final = "00000000-0000-4000-8000-000000000000"
"""No server's uuid: the commands with it are only asked about, never run."""
_BASE: Final = "0" * 40
_BITMAP: Final = "cellmove-00000000-1"
_PORT: Final = Port(_SERVER, "fa:16:3e:00:00:00", "", "DOWN", "ovs")
_NFS: Final = {"data": {"export": "192.0.2.1:/srv/volumes"}}
_ISCSI: Final = {
    "target_portal": "192.0.2.1:3260",
    "target_iqn": "iqn.2010-10.org.openstack:volume",
    "target_lun": 1,
}
_PROGRAMS: Final = (
    ("python3", ("python3", "--version")),
    ("qemu-nbd", ("/usr/bin/qemu-nbd", "--version")),
    ("qemu-img", ("/usr/bin/qemu-img", "--version")),
    ("virt-ssh-helper", ("which", "virt-ssh-helper")),
)


class Answer(Protocol):
    """What a command left."""

    @property
    def stdout(self) -> str: ...
    @property
    def status(self) -> int: ...


class Far(Protocol):
    """A host, as far as the check goes."""

    def connect(self) -> None:
        """Make sure of the connection."""
        ...

    def run(self, argv: Sequence[str]) -> Answer:
        """Run a command, whatever its status."""
        ...

    def libvirt_version(self) -> int:
        """9000000 is 9.0.0."""
        ...


def privileged(layout: Layout, bridge: str = "br-int") -> list[tuple[str, Argv]]:
    """User and command of all that a move runs through sudo: sudoers.j2 allows just these."""
    directory, disk = layout.directory(_SERVER), layout.disk(_SERVER, "disk")
    nvram = f"{firmware.DIRECTORY}/instance-00000000_VARS.fd"
    mount_point = connect.mount_path(connect.STORAGE.mounts_path, _NFS)
    half, socket = layout.half(_SERVER, "disk"), layout.socket(_SERVER, "disk")
    base, kept = layout.base(_BASE), layout.kept(_SERVER, _BASE)
    nova = (
        disks.exists(directory),
        disks.listing(directory),
        disks.listing(layout.instances_path),
        inventory.find_halves(layout.instances_path),
        disks.content(layout.info(_SERVER)),
        disks.make_directory(directory),
        disks.remove_directory(directory),
        disks.remove_disk(half, disk),
        disks.remove_half(half),
        disks.keep_whole(half, disk),
        disks.write(layout.info(_SERVER)),
        disks.image_info(disk, "qcow2"),
        disks.image_info(half, "qcow2", chain=False),
        disks.image_create(half, "qcow2", 1024**3),
        disks.image_create(half, "qcow2", 1024**3, base),
        disks.image_server(disk, "qcow2", socket, read_only=True),
        disks.image_server(disk, "qcow2", socket, read_only=True, bitmap=_BITMAP),
        disks.image_server(half, "qcow2", socket, read_only=False),
        disks.is_file(base),
        disks.image_info(base, "raw"),
        disks.image_server(base, "raw", layout.socket(_SERVER, disks.BASE), read_only=True),
        disks.make_directory(layout.cache),
        disks.keep_base(half, base),
        disks.remove(base),
        disks.remove(kept),
        connect.make_mount_point(mount_point),
    )
    root = (
        disks.remove_bitmap(disk, _BITMAP),
        disks.link(base, kept),
        disks.link(kept, base),
        switch.plug(bridge, _SERVER, _PORT),
        switch.unplug(bridge, _PORT),
        switch.ports(bridge),
        switch.attachment(_PORT),
        switch.records(),
        firmware.exists(nvram),
        firmware.content(nvram),
        firmware.write(nvram),
        firmware.remove(nvram),
        connect.mount(_NFS, mount_point, "vers=4.2,hard"),
        connect.initiator(),
        *(command(_ISCSI) for command in iscsi.PRIVILEGED),
        iscsi.forget_device(iscsi.EXAMPLE_PLACE),
    )
    return [("nova", argv) for argv in nova] + [("root", argv) for argv in root]


def bastion(name: str, connect: Callable[[], None], ssh_config: str) -> Iterator[Finding]:
    """The way to all hypervisors."""

    def look() -> Iterator[Finding]:
        connect()
        yield ok(f"bastion {name}", "host key known, signed in")

    yield from guarded(f"bastion {name}", look, _ssh_advice(ssh_config, name))


def copies(name: str, obstacle: Callable[[], str]) -> Iterator[Finding]:
    """Whether the bastion can sign in to a host, where copies are to pass through it alone."""

    def look() -> Iterator[Finding]:
        if seen := obstacle():
            do = "Give its account a key and the host's key, or take `relay` out of [ssh]."
            yield fail(what, f"The bastion cannot sign in: {seen}.", do)
        else:
            yield ok(what, "the bastion can sign in")

    what = f"{name}: copies by the bastion"
    yield from guarded(what, look)


def hypervisor(name: str, address: str, far: Far, layout: Layout, ssh_config: str) -> list[Finding]:
    """All looks at one host; without a connection there is only one."""

    def connected() -> Iterator[Finding]:
        far.connect()
        yield ok(f"{name}: SSH", "host key known, signed in")

    advice = _ssh_advice(ssh_config, address)
    found = list(guarded(f"{name}: SSH", connected, advice))
    if all(finding.result is Result.OK for finding in found):
        for what, look in (
            ("sudo", _sudo),
            ("libvirt", _libvirt),
            ("programs", _programs),
            ("sockets", _sockets),
            ("instances", _instances),
        ):
            title = f"{name}: {what}"
            found += guarded(title, partial(look, title, far, layout))
    return found


def _sudo(what: str, far: Far, layout: Layout) -> Iterator[Finding]:
    needed = privileged(layout)
    if far.run(iscsi.present()).status:  # Not every cloud has iSCSI.
        needed = [(user, argv) for user, argv in needed if argv[0] != iscsi.PROGRAM]
    refused = [
        f"{argv[0]} as {user}"
        for user, argv in needed
        if far.run(("sudo", "-n", "-u", user, "-l", "--", *argv)).status
    ]
    if refused:
        seen = f"Not allowed: {', '.join(dict.fromkeys(refused))}."
        yield fail(what, seen, "Run playbooks/hosts.yml for this host (sudo 1.9.10 or later).")
    else:
        yield ok(what, f"all {len(needed)} commands")


def _libvirt(what: str, far: Far, _layout: Layout) -> Iterator[Finding]:
    number = far.libvirt_version()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    yield ok(what, f"version {version}")


def _programs(what: str, far: Far, _layout: Layout) -> Iterator[Finding]:
    absent = [name for name, argv in _PROGRAMS if far.run(argv).status]
    if absent:
        do = "Install qemu-utils, libvirt-daemon and python3 there, or their likes."
        yield fail(what, f"Not found: {', '.join(absent)}.", do)
    else:
        yield ok(what, ", ".join(name for name, _argv in _PROGRAMS))


def _sockets(what: str, far: Far, layout: Layout) -> Iterator[Finding]:
    path, guests = layout.socket_path, layout.guest_socket_path
    if far.run(("test", "-d", path, "-a", "-w", path)).status:
        seen = f"{path} is no directory that we may write to."
        yield fail(what, seen, "Run playbooks/hosts.yml for this host.")
    elif far.run(("test", "-g", guests, "-a", "-x", guests)).status:
        seen = f"{guests} is no directory whose sockets would be our group's."
        yield fail(what, seen, "Run playbooks/hosts.yml for this host.")
    else:
        yield ok(what, f"{path}, {guests}")


def _instances(what: str, far: Far, layout: Layout) -> Iterator[Finding]:
    path = layout.instances_path
    answer = far.run(disks.free(path))
    if answer.status:
        do = "Set `instances_path` in [nova] as nova-compute has it."
        yield fail(what, f"{path} is not there, or cannot be seen.", do)
        return
    free_bytes = disks.free_bytes(answer.stdout)
    seen = f"{path}, {free_bytes / 1024**3:.1f} GiB free"
    if free_bytes < LITTLE_ROOM_BYTES:
        yield warn(what, seen, "Large servers will be refused here: make room.")
    else:
        yield ok(what, seen)


def _ssh_advice(ssh_config: str, host: str) -> str:
    return f"Run `ssh -F {ssh_config} {host} true`, and mend what it says."
