"""Neutron: a server's ports, and the bindings that say on which host each of them works."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from cellmove.errors import Refused, StepFailed
from cellmove.model import Binding, Network, Port, ResourceGroup, ServerPort, Subnet, Vif
from cellmove.services.service import Answer, Service

TUNNELS = ("vxlan", "gre", "geneve")
"""Network types that nova 26 calls tunneled (network/constants.py: L3_NETWORK_TYPES)."""

PAGE = "1000"
"""Ports of one answer, at most; a cloud may give fewer."""


def by_hand(method: str, port: str, host: str, *, activate: bool = False) -> str:
    """A change of a port's binding as a command to paste, for a person who mends by hand.

    `openstack` has none for it before python-openstackclient 6.1. The token goes through a pipe,
    so that nobody sees it in `ps`.
    """
    signed_in = "openstack token issue -f value -c id | sed 's/^/X-Auth-Token: /'"
    url = "$(openstack endpoint list --service network --interface public -f value -c URL)"
    path = f"{url}/v2.0/ports/{port}/bindings"
    if method != "POST":
        return f'{signed_in} | curl -fsS -H @- -X {method} "{path}/{host}{"/activate" * activate}"'
    body = shlex.quote(json.dumps({"binding": {"host": host}}))
    kind = "-H 'Content-Type: application/json'"
    return f'{signed_in} | curl -fsS -H @- {kind} -d {body} "{path}"'


class Neutron:
    """`cloud.Network` over HTTP; wants an administrator's token.

    Neutron 21: plugins/ml2/plugin.py, extension `binding-extended`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._networks: dict[str, tuple[Network, tuple[Subnet, ...]]] = {}
        """Read once: no move changes a network."""

    def has_extension(self, alias: str) -> bool:
        """Whether Neutron has loaded this API extension."""
        answer = self._service.get(f"/extensions/{alias}")
        if answer.status != 404:
            _done(answer, f"Neutron did not say whether it has the extension {alias}.")
        return answer.ok

    def ports(self, server: str) -> tuple[Port, ...]:
        """All ports whose device is this server, ordered by id.

        Raises:
            Refused: Neutron hides the bindings, so we are no administrator.
        """
        return tuple(map(_port, self._found(server)))

    def vifs(self, server: str) -> tuple[Vif, ...]:
        """The same ports with networks, subnets and floating addresses, ordered by port id.

        What nova 26 asks for its network cache: network/neutron.py:API._build_vif_model.
        """
        return tuple(map(self._vif, self._found(server)))

    def resource_groups(self, server: str) -> tuple[ResourceGroup, ...]:
        """What the server's ports want of Placement: the guarantees of their QoS policies.

        Raises:
            Refused: Neutron does not tell it in groups (before Xena).
        """
        return tuple(group for port in self._found(server) for group in _groups(port))

    def bindings(self, port: str) -> tuple[Binding, ...]:
        """All bindings of a port, ordered by host; empty when the port is gone."""
        answer = self._service.get(f"/ports/{port}/bindings")
        if answer.status == 404:
            return ()
        found = _done(answer, f"The bindings of port {port} could not be read.")["bindings"]
        return tuple(sorted(map(_binding, found), key=lambda binding: binding.host))

    def server_ports(self) -> tuple[ServerPort, ...]:
        """The ports of all servers, by id.

        Raises:
            Refused: Neutron hides the bindings, so we are no administrator.
        """
        found = (port for port in self._pages() if port["device_owner"].startswith("compute:"))
        ports = ((port["device_id"], _port(port)) for port in found)
        return tuple(ServerPort(port.id, of, port.host, port.vif_type) for of, port in ports)

    def bound_to(self, host: str) -> frozenset[str]:
        """Ids of the ports with a binding at this host, be it the active one or not.

        Neutron 21: plugins/ml2/plugin.py:_ml2_port_result_filter_hook.
        """
        query = {"binding:host_id": host, "fields": "id"}
        return frozenset(str(port["id"]) for port in self._pages(**query))

    def bind(self, port: str, host: str, vnic_type: str, profile: Mapping[str, object]) -> Binding:
        """Create an inactive binding; the binding of that host when there is one already.

        Raises:
            StepFailed: Neutron cannot bind the port there (it answers 500 for a host without
                a live agent), or the port is gone.
        """
        wanted = {"host": host, "vnic_type": vnic_type, "profile": dict(profile)}
        answer = self._service.send("POST", f"/ports/{port}/bindings", {"binding": wanted})
        if answer.status == 409:
            there = self._binding(port, host)
            if there is not None:
                return there
        what = f"Neutron did not bind port {port} on {host}."
        return _binding(
            _done(answer, what, f"See that the network agent of {host} is up.")["binding"]
        )

    def activate(self, port: str, host: str) -> None:
        """Make this host's binding the active one; nothing happens when it is.

        The other one becomes inactive and `unbound`, and the port is DOWN until the host's
        agent finds its device.
        """
        answer = self._service.send("PUT", f"/ports/{port}/bindings/{host}/activate")
        if answer.status == 409 and answer.code == "PortBindingAlreadyActive":
            return
        _done(answer, f"Neutron did not activate the binding of port {port} on {host}.")

    def rebind(self, port: str, host: str) -> None:
        """Bind the active binding anew on its host: a re-activated one stays `unbound` (Zed).

        Raises:
            StepFailed: the host's binding is not the active one, and this would make a second.
        """
        what = f"Neutron did not bind port {port} anew on {host}."
        there = self._binding(port, host)
        if there is None or not there.active:
            raise StepFailed(what, "Its active binding is elsewhere.", "Activate it first.")
        body = {"port": {"binding:host_id": host}}
        _done(self._service.send("PUT", f"/ports/{port}", body), what)

    def unbind(self, port: str, host: str) -> None:
        """Delete this host's binding; nothing happens when there is none.

        Raises:
            StepFailed: it is the active one (Neutron would allow that and leave the port unbound).
        """
        there = self._binding(port, host)
        if there is None:
            return
        what = f"The binding of port {port} on {host} was not deleted."
        if there.active:
            raise StepFailed(what, "It is the active one.", "Activate another host's first.")
        answer = self._service.send("DELETE", f"/ports/{port}/bindings/{host}")
        if answer.status != 404:
            _done(answer, what)

    def _found(self, server: str) -> list[Mapping[str, Any]]:
        found = self._service.get("/ports", device_id=server).body["ports"]
        return sorted(found, key=lambda port: str(port["id"]))

    def _pages(self, **query: str) -> Iterator[Mapping[str, Any]]:
        """All that a list of ports has, page by page."""
        after = ""
        while True:
            more = {"marker": after} if after else {}
            page = self._service.get("/ports", limit=PAGE, **query, **more)
            found = _done(page, "The ports could not be read.")["ports"]
            if not found or found[-1]["id"] == after:
                return
            yield from found
            after = str(found[-1]["id"])

    def _vif(self, found: Mapping[str, Any]) -> Vif:
        network, subnets = self._network(found["network_id"])
        floating = self._service.get("/floatingips", port_id=found["id"])
        leading: dict[str, tuple[str, ...]] = {
            fixed["ip_address"]: () for fixed in found["fixed_ips"]
        }
        if floating.status != 404:  # as without the extension `router`
            _done(floating, f"The floating addresses of port {found['id']} could not be read.")
        for each in floating.body["floatingips"] if floating.ok else ():
            leading[each["fixed_ip_address"]] += (each["floating_ip_address"],)
        used = {fixed["subnet_id"] for fixed in found["fixed_ips"]}
        return Vif(
            port=_port(found),
            active=found["status"] == "ACTIVE" or not found["admin_state_up"],
            network=network,
            subnets=tuple(subnet for subnet in subnets if subnet.id in used),
            addresses=leading,
        )

    def _network(self, network: str) -> tuple[Network, tuple[Subnet, ...]]:
        if network not in self._networks:
            answer = self._service.get(f"/networks/{network}")
            found = _done(answer, f"Network {network} could not be read.")["network"]
            dhcp = self._service.get(
                "/ports", network_id=network, device_owner="network:dhcp"
            ).body["ports"]
            servers = {
                fixed["subnet_id"]: fixed["ip_address"]
                for port in dhcp
                for fixed in port["fixed_ips"]
            }
            subnets = self._service.get("/subnets", network_id=network).body["subnets"]
            made = (_subnet(each, servers.get(each["id"])) for each in subnets)
            self._networks[network] = (
                _network(found),
                tuple(sorted(made, key=lambda subnet: subnet.id)),
            )
        return self._networks[network]

    def _binding(self, port: str, host: str) -> Binding | None:
        return next((b for b in self.bindings(port) if b.host == host), None)


def _done(answer: Answer, what: str, do: str = "See Neutron's log.") -> Mapping[str, Any]:
    if not answer.ok:
        raise StepFailed(what, f"It answered {answer.message}.", do)
    return answer.body


def _port(found: Mapping[str, Any]) -> Port:
    if "binding:host_id" not in found:
        raise Refused(
            f"Neutron hides where port {found['id']} is bound.",
            "Its answer has no binding:host_id.",
            "Sign in as an administrator.",
        )
    return Port(
        id=found["id"],
        mac=found["mac_address"],
        host=found["binding:host_id"],
        status=found["status"],
        vif_type=found["binding:vif_type"],
        vnic_type=found["binding:vnic_type"],
        profile=found["binding:profile"] or {},
        details=found["binding:vif_details"] or {},
        has_resource_request=bool(found.get("resource_request")),
        is_trunk_parent=bool(found.get("trunk_details")),
    )


def _binding(found: Mapping[str, Any]) -> Binding:
    return Binding(
        host=found["host"],
        active=found["status"] == "ACTIVE",
        vif_type=found["vif_type"],
        vnic_type=found["vnic_type"],
        profile=found["profile"] or {},
        details=found["vif_details"] or {},
    )


def _network(found: Mapping[str, Any]) -> Network:
    """Of several segments the first that has a physical network counts, as for nova."""
    segments = found.get("segments") or [found]
    named = [segment["provider:physical_network"] for segment in segments]
    physical = next(filter(None, named), None)
    return Network(
        id=found["id"],
        name=found["name"],
        project_id=found["project_id"],
        mtu=found.get("mtu"),
        physical_network=physical,
        tunneled=physical is None and found.get("provider:network_type") in TUNNELS,
    )


def _subnet(found: Mapping[str, Any], dhcp_server: str | None) -> Subnet:
    # Where no port of the DHCP agent is, nova names the gateway.
    fallback = found["gateway_ip"] if found["enable_dhcp"] else None
    return Subnet(
        id=found["id"],
        cidr=found["cidr"],
        gateway=found["gateway_ip"],
        nameservers=tuple(found["dns_nameservers"]),
        routes=tuple((route["destination"], route["nexthop"]) for route in found["host_routes"]),
        dhcp_server=dhcp_server or fallback,
        ipv6_address_mode=found["ipv6_address_mode"],
    )


def _groups(port: Mapping[str, Any]) -> tuple[ResourceGroup, ...]:
    request = port.get("resource_request")
    if not request:
        return ()
    if "request_groups" not in request:
        raise Refused(
            "Ports with a guaranteed rate are not moved in a cloud as old as this.",
            f"Neutron tells what port {port['id']} wants without groups (before Xena).",
            "Take the QoS policy off the port, or leave the server where it is.",
        )
    return tuple(
        ResourceGroup(port["id"], group["id"], group["resources"], tuple(group["required"]))
        for group in request["request_groups"]
    )
