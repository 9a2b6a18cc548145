"""What cellmove relies on in Neutron, quirks included (measured on Zed)."""

from __future__ import annotations

import ipaddress
import uuid

import pytest

from cellmove.errors import StepFailed
from cellmove.model import Binding, ServerPort
from tests.contract.conftest import GUARANTEES, PROFILE, NetworkWorld


def seen(world: NetworkWorld, port: str) -> dict[str, tuple[bool, str]]:
    return {b.host: (b.active, b.vif_type) for b in world.network.bindings(port)}


def test_a_servers_port_is_found_where_it_is_bound(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    (found,) = networks.network.ports(server)
    assert (found.id, found.host, found.vif_type) == (port, networks.source, "ovs")
    assert (found.status, found.vnic_type, found.profile) == ("DOWN", "normal", PROFILE)
    assert found.details["bridge_name"] == "br-int"
    assert not found.has_resource_request
    assert not found.is_trunk_parent


def test_a_server_without_ports_has_none(networks: NetworkWorld) -> None:
    assert networks.network.ports(str(uuid.uuid4())) == ()


def test_a_port_begins_with_one_active_binding(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    (binding,) = networks.network.bindings(port)
    assert (binding.host, binding.active, binding.vif_type) == (networks.source, True, "ovs")
    assert binding.profile == PROFILE


def test_a_port_that_is_gone_has_no_bindings(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    networks.delete_port(port)
    assert networks.network.bindings(port) == ()
    assert networks.network.ports(server) == ()


def test_a_second_binding_is_inactive_and_bound(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    made = networks.network.bind(port, networks.target, "normal", PROFILE)
    assert made == Binding(networks.target, False, "ovs", "normal", PROFILE, made.details)
    assert made.details["bridge_name"] == "br-int"
    assert made in networks.network.bindings(port)
    assert seen(networks, port)[networks.source] == (True, "ovs")


def test_lists_of_all_have_the_port_with_its_active_binding_and_both_hosts_have_it(
    networks: NetworkWorld,
) -> None:
    server, port = networks.new_port()
    assert port not in networks.network.bound_to(networks.target)
    networks.network.bind(port, networks.target, "normal", {})
    assert ServerPort(port, server, networks.source, "ovs") in networks.network.server_ports()
    for host in (networks.source, networks.target):
        assert port in networks.network.bound_to(host)


def test_binding_twice_is_once(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    made = networks.network.bind(port, networks.target, "normal", {})
    assert networks.network.bind(port, networks.target, "normal", {}) == made
    assert len(networks.network.bindings(port)) == 2


def test_binding_where_the_port_works_gives_its_active_binding(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    assert networks.network.bind(port, networks.source, "normal", PROFILE).active


def test_binding_on_a_host_without_agent_fails_and_leaves_nothing(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    with pytest.raises(StepFailed):
        networks.network.bind(port, networks.agentless, "normal", {})
    assert list(seen(networks, port)) == [networks.source]


def test_binding_a_port_that_is_gone_fails(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    networks.delete_port(port)
    with pytest.raises(StepFailed):
        networks.network.bind(port, networks.target, "normal", {})


def test_activating_moves_the_port_and_unbinds_the_other(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    networks.network.bind(port, networks.target, "normal", PROFILE)
    networks.network.activate(port, networks.target)
    assert seen(networks, port) == {
        networks.source: (False, "unbound"),
        networks.target: (True, "ovs"),
    }
    (found,) = networks.network.ports(server)
    assert (found.host, found.vif_type, found.profile) == (networks.target, "ovs", PROFILE)


def test_activating_twice_is_once(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    networks.network.bind(port, networks.target, "normal", {})
    networks.network.activate(port, networks.target)
    before = seen(networks, port)
    networks.network.activate(port, networks.target)
    assert seen(networks, port) == before


def test_activating_where_no_binding_is_fails(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    with pytest.raises(StepFailed):
        networks.network.activate(port, networks.target)
    assert seen(networks, port) == {networks.source: (True, "ovs")}


def test_a_reactivated_binding_stays_unbound_until_it_is_bound_anew(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    before = networks.network.bindings(port)
    networks.network.bind(port, networks.target, "normal", PROFILE)
    networks.network.activate(port, networks.target)
    networks.network.activate(port, networks.source)
    assert seen(networks, port)[networks.source] == (True, "unbound")
    assert networks.network.ports(server)[0].vif_type == "unbound"
    networks.network.rebind(port, networks.source)
    networks.network.unbind(port, networks.target)
    assert networks.network.bindings(port) == before
    assert networks.network.ports(server)[0].vif_type == "ovs"


def test_binding_a_good_binding_anew_changes_nothing(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    before = networks.network.bindings(port)
    networks.network.rebind(port, networks.source)
    assert networks.network.bindings(port) == before


@pytest.mark.parametrize("bound", [True, False])
def test_binding_anew_does_not_move_a_port(networks: NetworkWorld, bound: bool) -> None:
    _, port = networks.new_port()
    if bound:
        networks.network.bind(port, networks.target, "normal", {})
    before = seen(networks, port)
    with pytest.raises(StepFailed):
        networks.network.rebind(port, networks.target)
    assert seen(networks, port) == before


def test_unbinding_twice_is_once(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    networks.network.bind(port, networks.target, "normal", {})
    networks.network.unbind(port, networks.target)
    networks.network.unbind(port, networks.target)
    assert list(seen(networks, port)) == [networks.source]


def test_unbinding_a_port_that_is_gone_is_nothing(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    networks.delete_port(port)
    networks.network.unbind(port, networks.source)


def test_the_active_binding_is_not_unbound(networks: NetworkWorld) -> None:
    _, port = networks.new_port()
    with pytest.raises(StepFailed):
        networks.network.unbind(port, networks.source)
    assert seen(networks, port) == {networks.source: (True, "ovs")}


def test_several_bindings_of_a_port_are_known_to_be_possible(networks: NetworkWorld) -> None:
    assert networks.network.has_extension("binding-extended")
    assert not networks.network.has_extension("no-such-extension")


def test_a_vif_is_its_port_with_network_subnets_and_addresses(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    (vif,) = networks.network.vifs(server)
    assert (vif.port,) == networks.network.ports(server)
    assert vif.port.id == port
    assert not vif.active
    assert vif.network.name
    assert (vif.network.mtu or 0) > 1000
    (subnet,) = vif.subnets
    ((address, floating),) = vif.addresses.items()
    assert ipaddress.ip_address(address) in ipaddress.ip_network(subnet.cidr)
    assert floating == ()


def test_a_vif_tells_the_floating_addresses_that_lead_to_it(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    floating = networks.new_floating(port)
    (vif,) = networks.network.vifs(server)
    assert [*vif.addresses.values()] == [(floating,)]


def test_a_server_without_ports_has_no_vifs(networks: NetworkWorld) -> None:
    assert networks.network.vifs(str(uuid.uuid4())) == ()


def test_a_plain_port_wants_nothing_of_placement(networks: NetworkWorld) -> None:
    server, _ = networks.new_port()
    assert networks.network.resource_groups(server) == ()


def test_a_port_with_a_guaranteed_rate_wants_it_of_one_provider(networks: NetworkWorld) -> None:
    server, port = networks.new_port()
    networks.guarantee(port)
    (found,) = networks.network.ports(server)
    assert found.has_resource_request
    (group,) = networks.network.resource_groups(server)
    assert (group.port, group.resources) == (port, GUARANTEES)
    assert "CUSTOM_VNIC_TYPE_NORMAL" in group.traits
