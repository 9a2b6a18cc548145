"""Networks, ports and what hangs on them, made through Neutron's API for one test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cellmove.services.session import Session

OUTSIDE = "203.0.113.0/24"
OF_THE_BINDING = (
    "binding:host_id", "binding:profile", "binding:vif_details", "binding:vif_type", "status",
    "revision_number", "updated_at",
)  # fmt: skip


class Wires:
    """Makes things in Neutron, and deletes them in the opposite order."""

    def __init__(self, session: Session) -> None:
        self._service = session.service("network")
        self._made: list[str] = []

    @classmethod
    @contextmanager
    def lent(cls, session: Session) -> Iterator[Wires]:
        """What is made while the block runs is deleted when it ends."""
        wires = cls(session)
        try:
            yield wires
        finally:
            wires.close()

    def make(self, path: str, kind: str, **values: object) -> dict[str, Any]:
        """POST it; answers with what Neutron has made."""
        answer = self._service.send("POST", path, {kind: values})
        assert answer.ok, answer.message
        made = dict(answer.body[kind])
        self._made.append(f"{path}/{made['id']}")
        return made

    def put(self, path: str, body: Mapping[str, object] | None = None) -> None:
        answer = self._service.send("PUT", path, body)
        assert answer.ok, answer.message

    def network(self, name: str) -> str:
        """Id of the network of this name."""
        return str(self._service.get("/networks", name=name).body["networks"][0]["id"])

    def port(self, port: str) -> dict[str, Any]:
        """A port as Neutron shows it; empty when it is gone."""
        answer = self._service.get(f"/ports/{port}")
        return dict(answer.body["port"]) if answer.ok else {}

    def own(self, port: str) -> dict[str, Any]:
        """What a port has whatever host it is bound on."""
        return {key: value for key, value in self.port(port).items() if key not in OF_THE_BINDING}

    def bindings(self, port: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
        """Host -> status, `vif_type` and profile of the port's binding there."""
        found = self._service.get(f"/ports/{port}/bindings").body["bindings"]
        return {b["host"]: (b["status"], b["vif_type"], b["profile"]) for b in found}

    def delete_port(self, port: str) -> None:
        """Delete a port as its owner may at any time; twice is once."""
        self._service.send("DELETE", f"/ports/{port}")

    def policy(self, min_kbit: int) -> str:
        """A QoS policy that guarantees this rate in each direction."""
        policy = str(self.make("/qos/policies", "policy", name="cellmove")["id"])
        self._made.insert(0, self._made.pop())  # deleted last: no port may use it then
        for direction in ("egress", "ingress"):
            rule = {"min_kbps": min_kbit, "direction": direction}
            path = f"/qos/policies/{policy}/minimum_bandwidth_rules"
            answer = self._service.send("POST", path, {"minimum_bandwidth_rule": rule})
            assert answer.ok, answer.message
        return policy

    def floating(self, port: str) -> str:
        """A floating address that leads to the port, from a network outside of all."""
        found = self.port(port)
        inside = found["fixed_ips"][0]["subnet_id"]
        network = self.make("/networks", "network", name="outside", **{"router:external": True})
        outside = {"network_id": network["id"], "ip_version": 4, "cidr": OUTSIDE}
        self.make("/subnets", "subnet", **outside)
        door: dict[str, Any] = {"external_gateway_info": {"network_id": network["id"]}}
        router = self.make("/routers", "router", **door)["id"]
        # The lab's subnets have no gateway address, so the router gets a port of its own.
        leg = {"network_id": found["network_id"], "fixed_ips": [{"subnet_id": inside}]}
        joint = self.make("/ports", "port", **leg)["id"]
        self.put(f"/routers/{router}/add_router_interface", {"port_id": joint})
        self._made[-1] = f"/routers/{router}/remove_router_interface {joint}"
        wish = {
            "floating_network_id": network["id"],
            "port_id": port,
            "fixed_ip_address": found["fixed_ips"][0]["ip_address"],
        }
        return str(self.make("/floatingips", "floatingip", **wish)["floating_ip_address"])

    def leads_to(self, port: str) -> list[str]:
        """The floating addresses that lead to a port."""
        found = self._service.get("/floatingips", port_id=port).body["floatingips"]
        return [each["floating_ip_address"] for each in found]

    def close(self) -> None:
        """Delete all that was made."""
        while self._made:
            path, _, joint = self._made.pop().partition(" ")
            if joint:
                self.put(path, {"port_id": joint})
            else:
                answer = self._service.send("DELETE", path)
                assert answer.ok or answer.status == 404, answer.message
