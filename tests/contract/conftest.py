"""One suite for the fakes and for the lab's services, so that the fakes cannot drift."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pytest

from cellmove.cloud import Network, Placement
from cellmove.model import Allocations
from cellmove.services.neutron import Neutron
from cellmove.services.placement import MICROVERSION
from cellmove.services.placement import Placement as RealPlacement
from cellmove.services.session import Session, sign_in
from tests.fakes.network import FakeNetwork
from tests.fakes.placement import FakePlacement, Inventory
from tests.lab.kit.places import OUTPUTS
from tests.lab.kit.plugin import pytest_runtest_protocol, pytest_runtest_setup
from tests.lab.kit.wires import Wires

__all__ = ["pytest_runtest_protocol", "pytest_runtest_setup"]

BOTH = ["fake", pytest.param("real", marks=pytest.mark.lab)]
PROFILE = {"trusted": "true"}
RATE_KBIT = 1000
GUARANTEES = {"NET_BW_EGR_KILOBIT_PER_SEC": RATE_KBIT, "NET_BW_IGR_KILOBIT_PER_SEC": RATE_KBIT}
SHARING = "MISC_SHARES_VIA_AGGREGATE"


class NetworkWorld(Protocol):
    """A network in which nothing plugs a port in: they stay DOWN."""

    network: Network
    source: str
    target: str
    agentless: str

    def new_port(self) -> tuple[str, str]:
        """Server and port, bound on the source with `PROFILE`."""
        ...

    def guarantee(self, port: str) -> None:
        """Have a QoS policy guarantee the port `RATE_KBIT` in each direction."""
        ...

    def new_floating(self, port: str) -> str:
        """A floating address that leads to the port."""
        ...

    def delete_port(self, port: str) -> None: ...


class FakeNetworkWorld:
    source, target, agentless = "cmp1a", "cmp2a", "nowhere"

    def __init__(self) -> None:
        self._fake = FakeNetwork(wire=lambda port, host: False, agents=(self.source, self.target))
        self.network: Network = self._fake

    def new_port(self) -> tuple[str, str]:
        server = str(uuid.uuid4())
        return server, self._fake.add_port(server, self.source, PROFILE).id

    def guarantee(self, port: str) -> None:
        self._fake.add_group(port, GUARANTEES, "CUSTOM_VNIC_TYPE_NORMAL")

    def new_floating(self, port: str) -> str:
        self._fake.add_floating(port, "203.0.113.7")
        return "203.0.113.7"

    def delete_port(self, port: str) -> None:
        self._fake.delete_port(port)


class RealNetworkWorld:
    source, target, agentless = "cmp1a", "cmp2a", "nowhere"

    def __init__(self, session: Session) -> None:
        self.network: Network = Neutron(session.service("network"))
        self._wires = Wires(session)

    def new_port(self) -> tuple[str, str]:
        server = str(uuid.uuid4())
        wish: dict[str, object] = {
            "network_id": self._wires.network("flat1"),
            "name": "cellmove-contract",
            "device_id": server,
            "device_owner": "compute:nova",
            "binding:host_id": self.source,
            "binding:profile": PROFILE,
        }
        return server, str(self._wires.make("/ports", "port", **wish)["id"])

    def guarantee(self, port: str) -> None:
        wish = {"qos_policy_id": self._wires.policy(RATE_KBIT)}
        self._wires.put(f"/ports/{port}", {"port": wish})

    def new_floating(self, port: str) -> str:
        return self._wires.floating(port)

    def delete_port(self, port: str) -> None:
        self._wires.delete_port(port)

    def close(self) -> None:
        self._wires.close()


class PlacementWorld(Protocol):
    """Two providers of 4 VCPU and 1024 MEMORY_MB, and consumers of our own."""

    placement: Placement
    source: str
    target: str

    def new_consumer(self) -> str: ...

    def new_switch(self) -> str:
        """A provider nested under the source that gives ten times `GUARANTEES`, of a trait."""
        ...

    def new_store(self) -> str:
        """A provider of 100 DISK_GB that shares with source and target."""
        ...


class FakePlacementWorld:
    def __init__(self) -> None:
        self._fake = fake = FakePlacement()
        self.placement: Placement = fake
        self.source, self.target = str(uuid.uuid4()), str(uuid.uuid4())
        for provider in (self.source, self.target):
            vcpu = Inventory(2, allocation_ratio=2.0, max_unit=2)
            fake.add_provider(provider, {"VCPU": vcpu, "MEMORY_MB": Inventory(1536, reserved=512)})

    def new_consumer(self) -> str:
        return str(uuid.uuid4())

    def new_switch(self) -> str:
        switch = str(uuid.uuid4())
        inventory = {name: Inventory(10 * rate) for name, rate in GUARANTEES.items()}
        traits = ("CUSTOM_VNIC_TYPE_NORMAL",)
        self._fake.add_provider(switch, inventory, root=self.source, traits=traits)
        return switch

    def new_store(self) -> str:
        store = str(uuid.uuid4())
        roots = (self.source, self.target)
        self._fake.add_provider(store, {"DISK_GB": Inventory(100)}, shared_by=roots)
        return store


class RealPlacementWorld:
    def __init__(self, session: Session) -> None:
        self._service = session.service("placement", MICROVERSION)
        self.placement: Placement = RealPlacement(self._service)
        self._consumers: list[str] = []
        self._providers: list[str] = []
        """Parents before those nested under them."""
        inventories: dict[str, Any] = {
            "VCPU": {"total": 2, "allocation_ratio": 2.0, "max_unit": 2},
            "MEMORY_MB": {"total": 1536, "reserved": 512},
        }
        self.source, self.target = (self._new_provider(inventories) for _ in range(2))

    def new_consumer(self) -> str:
        self._consumers.append(str(uuid.uuid4()))
        return self._consumers[-1]

    def new_switch(self) -> str:
        inventories = {name: {"total": 10 * rate} for name, rate in GUARANTEES.items()}
        switch = self._new_provider(inventories, parent=self.source)
        self._put(switch, "traits", {"traits": ["CUSTOM_VNIC_TYPE_NORMAL"]}, generation=1)
        return switch

    def new_store(self) -> str:
        store = self._new_provider({"DISK_GB": {"total": 100}})
        self._put(store, "traits", {"traits": [SHARING]}, generation=1)
        aggregate = [str(uuid.uuid4())]
        for provider, generation in ((store, 2), (self.source, 1), (self.target, 1)):
            self._put(provider, "aggregates", {"aggregates": aggregate}, generation=generation)
        return store

    def close(self) -> None:
        for consumer in self._consumers:
            held = self.placement.allocations(consumer)
            emptied = Allocations(consumer, {}, held.generation, held.project_id, held.user_id)
            self.placement.replace([emptied])
        for provider in reversed(self._providers):
            answer = self._service.send("DELETE", f"/resource_providers/{provider}")
            assert answer.ok, answer.message

    def _new_provider(self, inventories: Mapping[str, Any], parent: str | None = None) -> str:
        provider = str(uuid.uuid4())
        body = {"name": f"cellmove-contract-{provider}", "uuid": provider}
        nested = {"parent_provider_uuid": parent} if parent else {}
        answer = self._service.send("POST", "/resource_providers", body | nested)
        assert answer.ok, answer.message
        self._providers.append(provider)
        self._put(provider, "inventories", {"inventories": inventories}, generation=0)
        return provider

    def _put(
        self, provider: str, what: str, body: Mapping[str, object], *, generation: int
    ) -> None:
        path = f"/resource_providers/{provider}/{what}"
        stamped = {**body, "resource_provider_generation": generation}
        answer = self._service.send("PUT", path, stamped)
        assert answer.ok, answer.message


@pytest.fixture(scope="session")
def admin() -> Session:
    """Signed in to the lab, once."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OS_CLIENT_CONFIG_FILE", str(OUTPUTS / "clouds.yaml"))
        return sign_in("lab", f"req-{uuid.uuid4()}", service_cloud="lab-service")


@pytest.fixture(params=BOTH)
def networks(request: pytest.FixtureRequest) -> Iterator[NetworkWorld]:
    if request.param == "fake":
        yield FakeNetworkWorld()
        return
    world = RealNetworkWorld(request.getfixturevalue("admin"))
    yield world
    world.close()


@pytest.fixture(params=BOTH)
def placements(request: pytest.FixtureRequest) -> Iterator[PlacementWorld]:
    if request.param == "fake":
        yield FakePlacementWorld()
        return
    world = RealPlacementWorld(request.getfixturevalue("admin"))
    yield world
    world.close()
