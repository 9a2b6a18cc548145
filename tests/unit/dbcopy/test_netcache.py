"""nova's copy of what Neutron says follows a binding, and is given back byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cellmove.dbcopy.netcache import NetworkCached, rebuilt
from cellmove.model import Network, Port, Subnet, Vif
from tests.fakes.databases import NETWORK, PROJECT, port_of, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases

TENANT = Network(NETWORK, "tenant", PROJECT, 1450, None, tunneled=True)
SUBNET = Subnet("s", "10.0.0.0/24", "10.0.0.1", dhcp_server="10.0.0.2")
PORT = port_of(SERVER, "cmp1a")
HERE = Vif(PORT, True, TENANT, (SUBNET,), {"10.0.0.5": ()})
THERE = replace(HERE, port=replace(PORT, vif_type="bridge", details={"bridge_name": "brq"}))
CACHED = NetworkCached(SERVER, (THERE,))

OF_NOVA = json.dumps(
    [
        {
            "id": "109009df-21af-40d8-bb43-56654a622da0",
            "address": "fa:16:3e:a3:c7:d5",
            "network": {
                "id": "198ca7d0-6e63-47b5-b09e-4684d7feb799",
                "bridge": "br-int",
                "label": "flat1",
                "subnets": [
                    {
                        "cidr": "10.77.0.0/24",
                        "dns": [
                            {"address": "10.77.0.53", "type": "dns", "version": 4, "meta": {}},
                        ],
                        "gateway": {
                            "address": None,
                            "type": "gateway",
                            "version": None,
                            "meta": {},
                        },
                        "ips": [
                            {
                                "address": "10.77.0.112",
                                "type": "fixed",
                                "version": 4,
                                "meta": {},
                                "floating_ips": [
                                    {
                                        "address": "203.0.113.9",
                                        "type": "floating",
                                        "version": 4,
                                        "meta": {},
                                    }
                                ],
                            }
                        ],
                        "routes": [
                            {
                                "cidr": "198.51.100.0/24",
                                "gateway": {
                                    "address": "10.77.0.9",
                                    "type": "gateway",
                                    "version": 4,
                                    "meta": {},
                                },
                                "interface": None,
                                "meta": {},
                            }
                        ],
                        "version": 4,
                        "meta": {},
                    }
                ],
                "meta": {
                    "injected": False,
                    "tenant_id": "8482b5e72cbb494abcb08c12f5763c28",
                    "mtu": 1500,
                    "physical_network": "physnet1",
                    "tunneled": False,
                },
            },
            "type": "ovs",
            "details": {"connectivity": "l2", "bridge_name": "br-int"},
            "devname": "tap109009df-21",
            "ovs_interfaceid": "109009df-21af-40d8-bb43-56654a622da0",
            "qbh_params": None,
            "qbg_params": None,
            "active": False,
            "vnic_type": "normal",
            "profile": {},
            "preserve_on_delete": False,
            "delegate_create": True,
            "meta": {},
        }
    ]
)
"""As nova 26 writes it."""
IN_NEUTRON = Vif(
    Port(
        "109009df-21af-40d8-bb43-56654a622da0",
        "fa:16:3e:a3:c7:d5",
        "cmp1b",
        "DOWN",
        "ovs",
        details={"connectivity": "l2", "bridge_name": "br-int"},
    ),
    False,
    Network(
        "198ca7d0-6e63-47b5-b09e-4684d7feb799",
        "flat1",
        "8482b5e72cbb494abcb08c12f5763c28",
        1500,
        "physnet1",
        tunneled=False,
    ),
    (
        Subnet(
            "s",
            "10.77.0.0/24",
            None,
            nameservers=("10.77.0.53",),
            routes=(("198.51.100.0/24", "10.77.0.9"),),
        ),
    ),
    {"10.77.0.112": ("203.0.113.9",)},
)


def text(databases: Databases) -> str:
    with databases.source.read() as rows:
        (row,) = rows.all("instance_info_caches", instance_uuid=SERVER)
    return str(row["network_info"])


def apply(databases: Databases) -> list[str]:
    with databases.source.write() as rows:
        kept = list(CACHED.remember(rows))
        CACHED.apply(rows)
    return kept


def holds(databases: Databases, cached: NetworkCached = CACHED) -> bool:
    with databases.source.read() as rows:
        return cached.holds(rows)


def made_anew(text: str, *vifs: Vif, order: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(rebuilt(text, vifs, order))
    return found


def another(digit: str) -> Vif:
    return replace(HERE, port=port_of(SERVER.replace("1", digit), "cmp1a"))


def test_what_neutron_says_is_written_as_nova_writes_it() -> None:
    first, *_ = json.loads(OF_NOVA)
    (made,) = made_anew("[]", IN_NEUTRON)
    assert made | {"preserve_on_delete": False} == first
    assert list(made) == list(first)


def test_a_cache_that_is_right_stays_the_same_text() -> None:
    spaced = json.dumps(json.loads(OF_NOVA), indent=1)
    assert rebuilt(spaced, [IN_NEUTRON]) is spaced
    assert rebuilt("[]", []) == "[]"


@pytest.mark.parametrize(
    ("now", "path"),
    [
        (replace(IN_NEUTRON, active=True), ["active"]),
        (replace(IN_NEUTRON, network=replace(IN_NEUTRON.network, mtu=9000)), ["network"]),
        (replace(IN_NEUTRON, network=replace(IN_NEUTRON.network, name="new")), ["network"]),
        (replace(IN_NEUTRON, addresses={"10.77.0.112": ()}), ["network"]),
        (replace(IN_NEUTRON, port=replace(IN_NEUTRON.port, profile={"tag": "x"})), ["profile"]),
    ],
)
def test_what_has_changed_in_neutron_is_changed_and_nothing_else(now: Vif, path: list[str]) -> None:
    (before,), (after,) = json.loads(OF_NOVA), made_anew(OF_NOVA, now)
    assert [key for key in after if after[key] != before[key]] == path


def test_addresses_stand_below_their_own_subnet() -> None:
    six = Subnet("six", "2001:db8::/64", "2001:db8::1", ipv6_address_mode="slaac")
    both = replace(HERE, subnets=(SUBNET, six), addresses={"10.0.0.5": (), "2001:db8::5": ()})
    (made,) = made_anew("[]", both)
    four, last = made["network"]["subnets"]
    assert [ip["address"] for ip in four["ips"]] == ["10.0.0.5"]
    assert [(ip["address"], ip["version"]) for ip in last["ips"]] == [("2001:db8::5", 6)]
    assert (four["meta"], last["meta"]) == (
        {"dhcp_server": "10.0.0.2"},
        {"ipv6_address_mode": "slaac"},
    )


def test_what_only_nova_knows_is_kept() -> None:
    (before,) = json.loads(OF_NOVA)
    before |= {"preserve_on_delete": True, "meta": {"x": 1}, "unheard_of": "y"}
    before["network"]["meta"]["injected"] = True
    del before["delegate_create"]  # as releases before Wallaby have it
    (after,) = made_anew(json.dumps([before]), replace(IN_NEUTRON, active=True))
    assert after == before | {"active": True}


def test_a_port_that_the_cache_lacked_is_not_novas_to_delete() -> None:
    (made,) = made_anew("[]", HERE)
    assert made["preserve_on_delete"] is True


def test_the_order_of_interfaces_stays_new_ones_follow_and_one_without_a_port_goes() -> None:
    two, three, four, five = (another(digit) for digit in "2345")
    known = rebuilt("[]", [two, three, four], [vif.port.id for vif in (two, three, four)])
    order = (five.port.id, two.port.id)
    made = made_anew(known, five, four, two, order=order)
    assert [vif["id"] for vif in made] == [vif.port.id for vif in (two, four, five)]


def test_a_devices_name_is_cut_as_nova_cuts_it() -> None:
    long = replace(HERE, port=replace(PORT, details={"bridge_name": "br-tenant-0123456789"}))
    (made,) = made_anew("[]", long)
    assert made["network"]["bridge"] == "br-tenant-0123"


def test_it_holds_when_every_port_is_shown_as_it_is_bound(databases: Databases) -> None:
    assert holds(databases, NetworkCached(SERVER, (HERE,)))
    assert not holds(databases)
    assert not holds(databases, NetworkCached(SERVER, ()))
    apply(databases)
    assert holds(databases)


def test_the_binding_is_rewritten_and_the_network_kept(databases: Databases) -> None:
    (before,) = json.loads(text(databases))
    apply(databases)
    (after,) = json.loads(text(databases))
    assert (after["type"], after["details"]) == ("bridge", {"bridge_name": "brq"})
    assert after["network"] == before["network"] | {"bridge": "brq"}
    assert (after["id"], after["address"]) == (before["id"], before["address"])


def test_the_way_back_is_byte_for_byte_and_twice_is_once(databases: Databases) -> None:
    before = text(databases)
    kept = apply(databases)
    assert text(databases) != before
    for _ in range(2):
        with databases.source.write() as rows:
            CACHED.restore(rows, kept)
        assert text(databases) == before


def test_the_way_back_overwrites_what_nova_wrote_meanwhile(databases: Databases) -> None:
    before = text(databases)
    kept = apply(databases)
    with databases.source.write() as rows:
        rows.change("instance_info_caches", {"network_info": "[]"}, instance_uuid=SERVER)
        CACHED.restore(rows, kept)
    assert text(databases) == before


def test_no_other_row_is_touched(databases: Databases) -> None:
    before = snapshot(databases.source)
    apply(databases)
    after = snapshot(databases.source)
    assert {table for table in before if before[table] != after[table]} == {"instance_info_caches"}
    assert (
        len([row for row in before["instance_info_caches"] if row in after["instance_info_caches"]])
        == 1
    )
