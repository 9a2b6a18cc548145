"""What fails at one host for one server alone, as long as a block runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.kit.places import OUTPUTS, host_run
from tests.lab.kit.program import Cellmove

DENIAL = "/etc/sudoers.d/zz_unplugged"
HOLD = """
import fcntl, struct, sys
tap = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", sys.argv[1].encode(), 0x1002))
print("held", flush=True)
sys.stdin.read()
"""
"""TUNSETIFF with IFF_TAP | IFF_NO_PI: a device has one owner."""


def tap(port: str) -> str:
    """Name of a port's device: nova 26, network/model.py, NIC_NAME_LEN."""
    return f"tap{port}"[:14]


@contextmanager
def guest_cannot_start(host: str, port: str) -> Iterator[None]:
    """Another process has the guest's network device: the hypervisor cannot start it."""
    argv = [str(OUTPUTS / "enter"), host, "python3", "-c", HOLD, tap(port)]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:  # ends with its input
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield


@contextmanager
def port_stays_plugged(host: str, port: str) -> Iterator[None]:
    """Cellmove's account may not unplug this port there."""
    rule = f"cellmove ALL=(root) !/usr/bin/ovs-vsctl *del-port*{tap(port)}*"
    path = f"{DENIAL}-{port}"
    host_run(host, ["sh", "-c", 'umask 0337 && echo "$1" > "$2"', "sh", rule, path])
    try:
        yield
    finally:
        host_run(host, ["rm", "-f", path])


@contextmanager
def taken_back(cellmove: Cellmove) -> Iterator[None]:
    """A move that a test has left half-way is undone before its server may be deleted."""
    try:
        yield
    finally:
        for move in cellmove("moves", "--json").json()["moves"]:
            if move["state"] in ("open", "undoing"):
                cellmove("undo", str(move["number"]))
