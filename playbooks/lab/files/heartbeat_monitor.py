#!/usr/bin/python3
"""heartbeat_monitor.py LOG: note each guest heartbeat heard on the tenant wire, and at whose port.

A line is: EPOCH HYPERVISOR address=.. mac=.. boot=.. count=.. uptime=.. vlan=..
Runs in the tenant wire's network namespace, where a hypervisor's port has the hypervisor's name.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path

HEARTBEAT_PORT = 7777
SHORTEST_BYTES = 60
ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA = 263, 8
OUTGOING = 4
TP_STATUS_VLAN_VALID = 1 << 4


def listen(device: str) -> socket.socket:
    """A raw socket on one device; the kernel tells the VLAN tag apart from the frame."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    sock.bind((device, ETH_P_ALL))
    return sock


def vlan_tag(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """The VLAN tag that the kernel took off the frame, or 0."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tag = struct.unpack_from("I", data)[0], struct.unpack_from("H", data, 16)[0]
            return tag & 0xFFF if status & TP_STATUS_VLAN_VALID else 0
    return 0


def heartbeat(frame: bytes) -> str | None:
    """Source address and words of a heartbeat frame; None for any other."""
    ip = 18 if frame[12:14] == b"\x81\x00" else 14
    if len(frame) < SHORTEST_BYTES or frame[ip - 2 : ip] != b"\x08\x00":
        return None
    if frame[ip + 9] != socket.IPPROTO_UDP:
        return None
    if struct.unpack_from("!H", frame, ip + 22)[0] != HEARTBEAT_PORT:
        return None
    address = socket.inet_ntoa(frame[ip + 12 : ip + 16])
    return f"address={address} {frame[ip + 28 :].decode('ascii', 'replace').strip()}"


def main(path: Path) -> None:
    """Listen on every hypervisor's port for good."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("cmp")]
    devices = {listen(name): name for name in names}
    with path.open("a", buffering=1) as log:
        while True:
            for sock in select.select(devices, [], [])[0]:
                frame, ancillary, _, sender = sock.recvmsg(2048, 256)
                if sender[2] != OUTGOING and (words := heartbeat(frame)):
                    tag = vlan_tag(ancillary)
                    log.write(f"{time.time():.3f} {devices[sock]} {words} vlan={tag}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
