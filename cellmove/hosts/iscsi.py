"""Volumes over iSCSI: the commands that connect one as nova's os-brick does, and what they say.

One path, no password (os-brick 6: initiator/connectors/iscsi.py). Written after that source and
open-iscsi's manual, and held by recorded answers; no test has run it against a real target.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo, data_of
from cellmove.hosts.disks import Argv
from cellmove.hosts.shell import Shell

BY_PATH: Final = "/dev/disk/by-path"
DEVICE_SECONDS: Final = 60
"""How long a device may take to appear once its target has let us in."""
PROGRAM: Final = "/usr/sbin/iscsiadm"
_NO_RECORD: Final = (21, 255)
_IN_ALREADY: Final = 15
_OUT_ALREADY: Final = 21
_LARGE_NUMBER: Final = 256
"""From here on a device is named after its number's address, not the number."""


class Iscsi:
    """iSCSI on one host."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def obstacle(self, _info: ConnectionInfo) -> str:
        """Why this host could not connect the volume; empty when it could."""
        absent = self._shell.run(present(), check=False).status
        return f"{self._shell.host} has no {PROGRAM}" if absent else ""

    def connect(self, info: ConnectionInfo) -> str:
        """Sign in to the target and wait for the volume's device; answers its path."""
        data = data_of(info)
        if not self.connected(info):
            if self._root(record(data)) in _NO_RECORD:
                self._root(new_record(data), good=(0,))
            self._root(login(data), good=(0, _IN_ALREADY))
            self._root(at_boot(data), good=(0,))
            self._root(rescan(data), good=(0,))
            self._await(info)
        return device(data)

    def disconnect(self, info: ConnectionInfo) -> None:
        """Let the kernel forget the device; sign out of the target when it was the last one."""
        data = data_of(info)
        if self.connected(info):
            self._root(flush(data), good=(0,))
            place = self._shell.run(sysfs_place(data)).stdout.strip()
            self._root(forget_device(place), good=(0,), stdin=b"1")
        if not others(data, self._devices()) and self._root(record(data)) not in _NO_RECORD:
            self._root(logout(data), good=(0, _OUT_ALREADY))
            self._root(forget_record(data), good=(0, *_NO_RECORD))

    def connected(self, info: ConnectionInfo) -> bool:
        """Whether the volume's device is there."""
        return device(data_of(info)).rpartition("/")[2] in self._devices()

    def _devices(self) -> tuple[str, ...]:
        # Without any device the directory is not there.
        return tuple(self._shell.run(devices(), check=False).stdout.split())

    def _await(self, info: ConnectionInfo) -> None:
        deadline = time.monotonic() + DEVICE_SECONDS
        while not self.connected(info):
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"A volume's device does not appear on {self._shell.host}.",
                    f"{device(data_of(info))} is not there after {DEVICE_SECONDS} s.",
                    "Look at `iscsiadm -m session -P 3` there.",
                )
            time.sleep(0.5)
            self._root(rescan(data_of(info)), good=(0,))

    def _root(self, command: Argv, *, good: tuple[int, ...] = (), stdin: bytes = b"") -> int:
        done = self._shell.run(command, stdin=stdin, sudo="root", check=False)
        if good and done.status not in good:
            raise StepFailed(
                f"`{' '.join(command)}` on {self._shell.host} failed.",
                f"Status {done.status}: {done.stderr.strip() or 'it said nothing'}",
                "Mend the cause on the host, then try again.",
            )
        return done.status


def device(data: Mapping[str, object]) -> str:
    """Name that udev gives to the volume's device."""
    number = int(str(data["target_lun"]))
    shown = str(number) if number < _LARGE_NUMBER else _address(number)
    return f"{BY_PATH}/ip-{data['target_portal']}-iscsi-{data['target_iqn']}-lun-{shown}"


def _address(number: int) -> str:
    return f"0x{number & 0xFFFF:04x}{number >> 16 & 0xFFFF:04x}00000000"


def present() -> Argv:
    """Status 0: the host has open-iscsi."""
    return ("test", "-x", PROGRAM)


def devices() -> Argv:
    """Names of the devices by their path, one a line."""
    return ("ls", "-1", BY_PATH)


def others(data: Mapping[str, object], listed: tuple[str, ...]) -> tuple[str, ...]:
    """The devices of the same target behind the same portal, less the volume's own."""
    mine = device(data).rpartition("/")[2]
    start = f"{mine.rpartition('-lun-')[0]}-lun-"
    return tuple(name for name in listed if name.startswith(start) and name != mine)


def sysfs_place(data: Mapping[str, object]) -> Argv:
    """Where the kernel shows the volume's device."""
    script = (
        "import os, sys; "
        "name = os.path.basename(os.path.realpath(sys.argv[1])); "
        "print(os.path.realpath('/sys/class/block/' + name + '/device'))"
    )
    return ("python3", "-I", "-S", "-c", script, device(data))


def _node(data: Mapping[str, object]) -> Argv:
    target = ("-T", str(data["target_iqn"]), "-p", str(data["target_portal"]))
    return (PROGRAM, "-m", "node", *target)


def record(data: Mapping[str, object]) -> Argv:
    """Whether the host knows the target; status 21: it does not."""
    return _node(data)


def new_record(data: Mapping[str, object]) -> Argv:
    """Let the host know the target."""
    return (*_node(data), "--interface", "default", "--op", "new")


def login(data: Mapping[str, object]) -> Argv:
    """Sign in to the target; status 15: we are in."""
    return (*_node(data), "--login")


def at_boot(data: Mapping[str, object]) -> Argv:
    """Sign in again when the host starts."""
    return (*_node(data), "--op", "update", "-n", "node.startup", "-v", "automatic")


def rescan(data: Mapping[str, object]) -> Argv:
    """Look for new devices of the target."""
    return (*_node(data), "--rescan")


def logout(data: Mapping[str, object]) -> Argv:
    """Sign out of the target; status 21: we are not in."""
    return (*_node(data), "--logout")


def forget_record(data: Mapping[str, object]) -> Argv:
    """Let the host forget the target."""
    return (*_node(data), "--op", "delete")


def flush(data: Mapping[str, object]) -> Argv:
    """Write what the host still holds of the volume."""
    return ("/usr/sbin/blockdev", "--flushbufs", device(data))


PRIVILEGED: Final = (record, new_record, login, at_boot, rescan, logout, forget_record, flush)
"""What needs to be root, of a target."""
EXAMPLE_PLACE: Final = "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1"


def forget_device(place: str) -> Argv:
    """Let the kernel forget the device that it shows at `place`, when 1 is written."""
    return ("/usr/bin/tee", f"{place}/delete")
