"""A port on Open vSwitch: the commands that plug it as nova's os-vif does, and what they say."""

from __future__ import annotations

import json
import re
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts.disks import Argv, checked_uuid
from cellmove.model import UUID, Port

_VSCTL: Final = ("/usr/bin/ovs-vsctl", "--timeout=30")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def plug(bridge: str, server: str, port: Port) -> Argv:
    """Make the port's record, from which the layer-2 agent knows whose tap device it is.

    nova 26 leaves the libvirt interface without a port and has os-vif make the record
    (vif_plug_ovs/ovsdb/ovsdb_lib.py: create_ovs_vif_port), with these external ids.
    """
    device = _device(port)
    ids = {
        "iface-id": port.id,
        "iface-status": "active",
        "attached-mac": _mac(port.mac),
        "vm-uuid": checked_uuid(server),
    }
    settings = (f"external-ids:{key}={value}" for key, value in ids.items())
    add = ("--may-exist", "add-port", bridge, device)
    return (*_VSCTL, *add, "--", "set", "Interface", device, *settings)


def unplug(bridge: str, port: Port) -> Argv:
    """Delete the port's record; nothing happens when there is none."""
    return (*_VSCTL, "--if-exists", "del-port", bridge, _device(port))


def ports(bridge: str) -> Argv:
    """Names of the bridge's ports, one a line."""
    return (*_VSCTL, "list-ports", bridge)


def attachment(port: Port) -> Argv:
    """Number of the port's tap device on the bridge, and its number on the host, one a line."""
    return (*_VSCTL, "--if-exists", "get", "Interface", _device(port), "ofport", "ifindex")


def records() -> Argv:
    """Name and external ids of all that is plugged, as a JSON document."""
    return (*_VSCTL, "--format=json", "--columns=name,external_ids", "list", "Interface")


def plugs(printed: str) -> dict[str, tuple[str, ...]]:
    """Server -> Neutron's ids of the ports that are plugged for it, of what `records` gave."""
    made: dict[str, tuple[str, ...]] = {}
    for name, (_map, pairs) in json.loads(printed)["data"] if printed else ():
        ids = dict(pairs)
        server, port = ids.get("vm-uuid", ""), ids.get("iface-id", "")
        if UUID.fullmatch(server) and UUID.fullmatch(port) and name == f"tap{port[:11]}":
            made[server] = (*made.get(server, ()), port)
    return made


def is_wired(printed: str) -> bool:
    """Whether `attachment` told of a device that is there.

    Without one the bridge's number is -1 or `[]`; when the device is gone again, Open vSwitch
    3.1 keeps the number (userspace datapath), but the host's is 0.
    """
    numbers = printed.split()
    return len(numbers) == 2 and all(n.isdecimal() and int(n) >= 1 for n in numbers)


def _device(port: Port) -> str:
    checked_uuid(port.id)
    return port.device


def _mac(address: str) -> str:
    mac = address.lower()
    if not _MAC.fullmatch(mac):
        raise StepFailed(
            f"{address!r} is not a MAC address.", "Neutron says so.", "Look at the port."
        )
    return mac
