"""A server with three ports of different kinds: what Neutron says of them at every stop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cellmove.dbcopy.netcache import rebuilt
from cellmove.services.neutron import Neutron
from cellmove.services.session import Session
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import host_run
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import CELLS, nothing_left, rows, traces
from tests.lab.kit.trouble import sudo_denied
from tests.lab.kit.wires import Wires

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
WISH = ("--flavor", "c2", "--to-host", TARGET)
MTU = 1400


@dataclass(frozen=True, slots=True)
class Wired:
    """A server with its ports: on a flat network with two fixed addresses and a floating one, on
    a VLAN without port security, and on a network of the test's own with a smaller MTU."""

    nova: Nova
    wires: Wires
    session: Session
    server: str
    ports: list[str]
    """`flat`, `vlan` and `narrow`."""
    floating: str
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each port had whatever host it was bound on, before anything was tried."""

    @property
    def flat(self) -> str:
        return self.ports[0]

    @property
    def vlan(self) -> str:
        return self.ports[1]

    def bound(self, *active_then_inactive: str) -> None:
        """All ports are ACTIVE at the first host, have a binding to spare at the others, and have
        all that they had."""
        active, *spare = active_then_inactive
        self.nova.wait_port(self.server, active)
        for port in self.ports:
            found = self.wires.bindings(port)
            assert found.pop(active)[:2] == ("ACTIVE", "ovs")
            assert sorted(found) == spare
            assert all(status == "INACTIVE" for status, *_ in found.values())
            assert self.wires.own(port) == self.own[port]
        assert self.wires.leads_to(self.flat) == [self.floating]

    def plugged(self, host: str) -> dict[str, int]:
        """Tap device -> MTU of each of the server's ports on a host's bridge."""
        argv = ["ovs-vsctl", "--format=json", "--columns=name,mtu", "find", "Interface",
                f"external_ids:vm-uuid={self.server}"]  # fmt: skip
        return dict(json.loads(host_run(host, argv))["data"])

    def cached(self, cell: str) -> str:
        """nova's network cache of the server in this cell."""
        where = f"instance_uuid = '{self.server}' AND deleted = 0"
        (row,) = rows(f"{cell}.{CELLS[cell]}", "instance_info_caches", where)
        return str(row["network_info"])

    def refresh(self) -> None:
        """Have nova-compute fetch what Neutron says of each port anew."""
        compute = self.session.service("compute", "2.90")
        names = [
            {"name": "network-changed", "server_uuid": self.server, "tag": port}
            for port in self.ports
        ]
        answer = compute.send("POST", "/os-server-external-events", {"events": names})
        assert answer.ok, answer.message

    def cache_is_true(self, cell: str, timeout_seconds: float = 60) -> None:
        """nova's cache becomes what cellmove would write now: nova-compute trails Neutron."""
        network = Neutron(self.session.service("network"))
        deadline = time.monotonic() + timeout_seconds
        while True:
            text = self.cached(cell)
            wanted = rebuilt(text, network.vifs(self.server))
            if wanted == text or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert json.loads(text) == json.loads(wanted)
        assert [vif["id"] for vif in json.loads(text)] == self.ports


@pytest.fixture(scope="module")
def wired(admin_nova: Nova, blank: str) -> Iterator[Wired]:
    session = lab_session(project="demo")
    with Wires.lent(session) as wires:
        ports = _ports(wires)
        more = {"imageRef": blank, "networks": [{"port": port} for port in ports]}
        with admin_nova.lent("ports", SOURCE, more=more) as server:
            admin_nova.wait_port(server, SOURCE)
            floating = wires.floating(ports[0])
            made = Wired(admin_nova, wires, session, server, ports, floating)
            made.own.update({port: wires.own(port) for port in made.ports})
            yield made


def test_what_cellmove_would_cache_is_what_nova_caches(wired: Wired) -> None:
    wired.refresh()
    wired.cache_is_true("cell1")
    cached = wired.cached("cell1")
    assert wired.floating in cached
    (flat, _, narrow) = json.loads(cached)
    assert len(flat["network"]["subnets"][0]["ips"]) == 2
    assert narrow["network"]["meta"]["mtu"] == MTU
    assert narrow["network"]["subnets"][0]["routes"]


def test_a_failed_move_leaves_every_port_as_it_was_and_a_foreign_binding_too(
    wired: Wired, cellmove: Cellmove
) -> None:
    service = wired.session.service("network")
    leftover = {"host": TARGET, "profile": {"pci_slot": "0000:00:01.0"}}
    made = service.send("POST", f"/ports/{wired.vlan}/bindings", {"binding": leftover})
    assert made.ok, made.message
    before, plugged = traces(wired.server), wired.plugged(SOURCE)
    assert len(plugged) == len(wired.ports)
    with sudo_denied(TARGET, "/usr/bin/qemu-nbd", wired.server):
        failed = cellmove("resize", wired.server, *WISH, check=False)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    wired.nova.wait_port(wired.server, SOURCE)
    assert traces(wired.server) == before
    assert wired.plugged(SOURCE) == plugged
    assert wired.wires.bindings(wired.vlan)[TARGET] == ("INACTIVE", "ovs", leftover["profile"])


def test_resized_every_port_works_at_the_target_and_can_go_back(
    wired: Wired, cellmove: Cellmove
) -> None:
    there = wired.plugged(SOURCE)
    cellmove("resize", wired.server, *WISH)
    assert wired.nova.status(wired.server) == "VERIFY_RESIZE"
    wired.bound(TARGET, SOURCE)
    assert wired.wires.bindings(wired.vlan)[TARGET][2] == {}  # not what the earlier failure left
    assert wired.plugged(TARGET) == there
    assert wired.plugged(SOURCE) == {}
    wired.cache_is_true("cell2")
    before = json.loads(wired.cached("cell2"))
    wired.refresh()
    wired.cache_is_true("cell2")
    assert json.loads(wired.cached("cell2")) == before


def test_reverted_every_port_is_as_it_was(wired: Wired, cellmove: Cellmove) -> None:
    there = wired.plugged(TARGET)
    cellmove("revert", wired.server, "--yes")
    wired.bound(SOURCE)
    assert wired.plugged(SOURCE) == there
    assert wired.plugged(TARGET) == {}
    wired.cache_is_true("cell1")


def test_a_port_deleted_while_resized_hinders_neither_confirm_nor_the_others(
    wired: Wired, cellmove: Cellmove
) -> None:
    cellmove("resize", wired.server, *WISH)
    gone = wired.ports.pop()
    wired.wires.delete_port(gone)
    cellmove("confirm", wired.server, "--yes")
    assert wired.nova.status(wired.server) == "ACTIVE"
    wired.bound(TARGET)
    assert {port["id"] for port in wired.nova.ports(wired.server)} == set(wired.ports)
    assert wired.plugged(SOURCE) == {}
    assert not [trace for trace in traces(wired.server) if "cell1" in trace or SOURCE in trace]


def test_deleted_by_nova_the_server_leaves_nothing_and_its_owners_ports_stay(
    wired: Wired,
) -> None:
    wired.nova.delete(wired.server)
    nothing_left(wired.server)
    assert wired.plugged(TARGET) == {}
    for port in wired.ports:
        assert wired.wires.port(port)["device_id"] == ""


def _ports(wires: Wires) -> list[str]:
    flat = wires.network("flat1")
    first = wires.make("/ports", "port", network_id=flat)
    fixed = first["fixed_ips"][0]
    both = [{"ip_address": fixed["ip_address"]}, {"subnet_id": fixed["subnet_id"]}]
    wires.put(f"/ports/{first['id']}", {"port": {"fixed_ips": both}})
    wires.put(f"/ports/{first['id']}/tags/blue")
    open_wish = {
        "network_id": wires.network("vlan100"),
        "port_security_enabled": False,
        "security_groups": [],
    }
    second = wires.make("/ports", "port", **open_wish)
    own = wires.make("/networks", "network", name="cellmove-narrow", mtu=MTU)["id"]
    subnet = {
        "network_id": own,
        "ip_version": 4,
        "cidr": "192.0.2.0/24",
        "dns_nameservers": ["192.0.2.53"],
        "host_routes": [{"destination": "198.51.100.0/24", "nexthop": "192.0.2.9"}],
        "enable_dhcp": False,
    }
    wires.make("/subnets", "subnet", **subnet)
    pairs = [{"ip_address": "192.0.2.200"}]
    third = wires.make("/ports", "port", network_id=own, allowed_address_pairs=pairs)
    return [str(port["id"]) for port in (first, second, third)]
