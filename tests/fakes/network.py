"""Neutron in memory, as it was measured: bindings with all their quirks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from cellmove.errors import StepFailed
from cellmove.model import Binding, Network, Port, ResourceGroup, ServerPort, Subnet, Vif
from tests.fakes.databases import NETWORK, PROJECT

DETAILS = {"connectivity": "l2", "port_filter": True, "bridge_name": "br-int"}
TENANT = Network(NETWORK, "tenant", PROJECT, 1450, None, tunneled=True)
SUBNET = Subnet("subnet", "10.0.0.0/24", "10.0.0.1", dhcp_server="10.0.0.2")


@dataclass(slots=True)
class _Port:
    server: str
    port: Port
    """Without what the active binding says."""
    bindings: dict[str, Binding] = field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"10.0.0.5": ()})
    groups: tuple[ResourceGroup, ...] = ()


class FakeNetwork:
    """A `cloud.Network`; the contract suite holds it to a real Neutron.

    Args:
        wire: whether a host has wired a port: its agent then reports the port as ACTIVE.
        agents: hosts with a live network agent; None: every host has one.

    """

    def __init__(
        self,
        wire: Callable[[str, str], bool] = lambda port, host: True,
        agents: Collection[str] | None = None,
        extensions: Collection[str] = ("binding-extended",),
    ) -> None:
        self._wire = wire
        self._agents = agents
        self._extensions = extensions
        self._ports: dict[str, _Port] = {}

    def add_port(
        self, server: str, host: str, profile: Mapping[str, object] | None = None, **facts: object
    ) -> Port:
        """Make a port bound to this host, as nova does at a boot; `facts` are fields of `Port`."""
        port = Port(
            id=str(uuid.uuid4()), mac="fa:16:3e:00:00:01", host=host, status="DOWN", vif_type="ovs"
        )
        port = replace(port, **facts)  # type: ignore[arg-type]
        binding = self._bound(Binding(host, True, "", port.vnic_type, profile or {}))
        self._ports[port.id] = _Port(server, port, {host: binding})
        return self._shown(self._ports[port.id])

    def add_group(self, port: str, resources: Mapping[str, int], *traits: str) -> ResourceGroup:
        """Have the port's QoS policy guarantee this."""
        found = self._ports[port]
        group = ResourceGroup(port, str(uuid.uuid4()), resources, traits)
        found.groups += (group,)
        found.port = replace(found.port, has_resource_request=True)
        return group

    def add_floating(self, port: str, address: str) -> None:
        """Have a floating address lead to the port."""
        (fixed,) = self._ports[port].addresses
        self._ports[port].addresses[fixed] += (address,)

    def delete_port(self, port: str) -> None:
        """Delete a port with all its bindings, as a user or nova may at any time."""
        self._ports.pop(port, None)

    def snapshot(self) -> dict[str, object]:
        """All that Neutron knows, to be compared with another snapshot."""
        return {
            port.port.id: (port.server, self._shown(port), self.bindings(port.port.id))
            for port in self._ports.values()
        }

    def has_extension(self, alias: str) -> bool:
        return alias in self._extensions

    def ports(self, server: str) -> tuple[Port, ...]:
        mine = (self._shown(port) for port in self._ports.values() if port.server == server)
        return tuple(sorted(mine, key=lambda port: port.id))

    def server_ports(self) -> tuple[ServerPort, ...]:
        shown = ((each.server, self._shown(each)) for each in self._ports.values())
        return tuple(ServerPort(port.id, of, port.host, port.vif_type) for of, port in shown)

    def bound_to(self, host: str) -> frozenset[str]:
        return frozenset(key for key, each in self._ports.items() if host in each.bindings)

    def vifs(self, server: str) -> tuple[Vif, ...]:
        return tuple(
            Vif(
                port,
                port.status == "ACTIVE",
                TENANT,
                (SUBNET,),
                dict(self._ports[port.id].addresses),
            )
            for port in self.ports(server)
        )

    def resource_groups(self, server: str) -> tuple[ResourceGroup, ...]:
        return tuple(g for port in self.ports(server) for g in self._ports[port.id].groups)

    def bindings(self, port: str) -> tuple[Binding, ...]:
        if port not in self._ports:
            return ()
        return tuple(sorted(self._ports[port].bindings.values(), key=lambda b: b.host))

    def bind(self, port: str, host: str, vnic_type: str, profile: Mapping[str, object]) -> Binding:
        bindings = self._found(port).bindings
        if host not in bindings:
            if self._agents is not None and host not in self._agents:
                raise StepFailed(f"Neutron did not bind port {port} on {host}.", "No agent.")
            alone = not any(binding.active for binding in bindings.values())
            bindings[host] = self._bound(Binding(host, alone, "", vnic_type, dict(profile)))
        return bindings[host]

    def activate(self, port: str, host: str) -> None:
        bindings = self._found(port).bindings
        if host not in bindings:
            raise StepFailed(f"Neutron did not activate the binding of port {port} on {host}.")
        if bindings[host].active:
            return
        for other in bindings.values():
            if other.active:  # it forgets how it was bound, and stays so when re-activated
                bindings[other.host] = replace(other, active=False, vif_type="unbound", details={})
        bindings[host] = replace(bindings[host], active=True)

    def rebind(self, port: str, host: str) -> None:
        bindings = self._found(port).bindings
        if host not in bindings or not bindings[host].active:
            raise StepFailed(f"Neutron did not bind port {port} anew on {host}.")
        bindings[host] = self._bound(bindings[host])

    def unbind(self, port: str, host: str) -> None:
        binding = next((b for b in self.bindings(port) if b.host == host), None)
        if binding is None:
            return
        if binding.active:
            raise StepFailed(f"The binding of port {port} on {host} was not deleted.", "Active.")
        del self._ports[port].bindings[host]

    def _found(self, port: str) -> _Port:
        if port not in self._ports:
            raise StepFailed(f"Port {port} is gone.")
        return self._ports[port]

    def _bound(self, binding: Binding) -> Binding:
        return replace(binding, vif_type="ovs", details=DETAILS)

    def _shown(self, found: _Port) -> Port:
        active = next(binding for binding in found.bindings.values() if binding.active)
        wired = active.vif_type == "ovs" and self._wire(found.port.id, active.host)
        return replace(
            found.port,
            host=active.host,
            status="ACTIVE" if wired else "DOWN",
            vif_type=active.vif_type,
            vnic_type=active.vnic_type,
            profile=active.profile,
            details=active.details,
        )
