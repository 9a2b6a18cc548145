"""The network info cache: nova's copy of what Neutron says, rebuilt after a binding has moved."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellmove.dbcopy.database import Rows, now
from cellmove.model import Network, Subnet, Vif

BRIDGE = "br-int"
"""nova's `[neutron]ovs_bridge`, for a binding that names none."""
NAME_LENGTH = 14
"""As long as nova lets a device's name be."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NetworkCached:
    """The server's info cache shows its ports as they are bound.

    nova-compute rewrites this row whenever Neutron tells of a change, so only the binding is
    compared, and the way back overwrites whatever is there.
    """

    server: str
    vifs: Sequence[Vif]

    @property
    def key(self) -> str:
        return "network-info"

    def holds(self, rows: Rows) -> bool:
        bound = {vif.port.id: vif.port.vif_type for vif in self.vifs}
        return bound == {entry["id"]: entry["type"] for entry in json.loads(self._text(rows))}

    def remember(self, rows: Rows) -> Sequence[str]:
        return [self._text(rows)]

    def apply(self, rows: Rows) -> None:
        known = rows.all("virtual_interfaces", instance_uuid=self.server, deleted=0)
        order = [row["uuid"] for row in sorted(known, key=lambda row: int(row["id"]))]
        self._write(rows, rebuilt(self._text(rows), self.vifs, order))

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        if kept and self._text(rows) != kept[0]:
            self._write(rows, kept[0])

    def _text(self, rows: Rows) -> str:
        row = rows.one("instance_info_caches", instance_uuid=self.server, deleted=0)
        return "[]" if row is None else str(row["network_info"] or "[]")

    def _write(self, rows: Rows, text: str) -> None:
        values = {"network_info": text, "updated_at": now()}
        rows.change("instance_info_caches", values, instance_uuid=self.server, deleted=0)


def rebuilt(text: str, vifs: Sequence[Vif], order: Sequence[str] = ()) -> str:
    """`instance_info_caches.network_info` made anew from Neutron, as nova 26 makes it.

    An interface keeps its place, and what only nova knows of it; one without a port is dropped;
    one that the cache lacked comes last, in this order of port ids. A cache that says so already
    comes back byte for byte. nova 26: network/neutron.py:API._build_network_info_model.
    """
    before: list[Entry] = json.loads(text)
    entries = {entry["id"]: entry for entry in before}
    known = [*entries, *order]
    ranked = sorted(vifs, key=lambda vif: known.index(vif.port.id) if vif.port.id in known else 999)
    after = [_entry(vif, entries.get(vif.port.id)) for vif in ranked]
    return text if after == before else json.dumps(after)


def _entry(vif: Vif, before: Entry | None) -> Entry:
    port = vif.port
    of_nova = {
        # Whose the port is, only the cache knows: in doubt it is not nova's to delete.
        "preserve_on_delete": before is None,
        "delegate_create": True,
        "meta": {},
    }
    if before is not None:
        # Releases before Wallaby know no `delegate_create`.
        of_nova = {key: before[key] for key in of_nova if key in before}
    made = {
        "id": port.id,
        "address": port.mac,
        "network": _network(vif, before["network"].get("meta", {}) if before else {}),
        "type": port.vif_type,
        "details": dict(port.details),
        "devname": port.device,
        "ovs_interfaceid": port.id if port.vif_type == "ovs" else None,
        "qbh_params": None,
        "qbg_params": None,
        "active": vif.active,
        "vnic_type": port.vnic_type,
        "profile": dict(port.profile),
    }
    return (before or {}) | made | of_nova


def _network(vif: Vif, meta: Mapping[str, Any]) -> Entry:
    network: Network = vif.network
    bridge = str(vif.port.details.get("bridge_name", BRIDGE))[:NAME_LENGTH]
    return {
        "id": network.id,
        "bridge": bridge,
        "label": network.name,
        "subnets": [_subnet(subnet, vif.addresses) for subnet in vif.subnets],
        "meta": {
            "injected": bool(meta.get("injected")),  # nova's `flat_injected`
            "tenant_id": network.project_id,
            "mtu": network.mtu,
            "physical_network": network.physical_network,
            "tunneled": network.tunneled,
        },
    }


def _subnet(subnet: Subnet, addresses: Mapping[str, Sequence[str]]) -> Entry:
    cidr = ipaddress.ip_network(subnet.cidr, strict=False)
    fixed = [
        _address(at, "fixed") | {"floating_ips": [_address(f, "floating") for f in floating]}
        for at, floating in addresses.items()
        if ipaddress.ip_address(at) in cidr
    ]
    known = {
        "ipv6_address_mode": subnet.ipv6_address_mode,
        "dhcp_server": subnet.dhcp_server,
    }
    return {
        "cidr": subnet.cidr,
        "dns": [_address(server, "dns") for server in subnet.nameservers],
        "gateway": _address(subnet.gateway, "gateway"),
        "ips": fixed,
        "routes": [
            {
                "cidr": destination,
                "gateway": _address(hop, "gateway"),
                "interface": None,
                "meta": {},
            }
            for destination, hop in subnet.routes
        ],
        "version": cidr.version,
        "meta": {key: value for key, value in known.items() if value},
    }


def _address(address: str | None, kind: str) -> Entry:
    version = ipaddress.ip_address(address).version if address else None
    return {"address": address, "type": kind, "version": version, "meta": {}}
