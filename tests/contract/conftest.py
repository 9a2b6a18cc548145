"""One suite for the fakes and for the lab's services, so that the fakes cannot drift."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Protocol

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

__all__ = ["pytest_runtest_protocol", "pytest_runtest_setup"]

BOTH = ["fake", pytest.param("real", marks=pytest.mark.lab)]
PROFILE = {"trusted": "true"}


class NetworkWorld(Protocol):
    """A network in which nothing plugs a port in: they stay DOWN."""

    network: Network
    source: str
    target: str
    agentless: str

    def new_port(self) -> tuple[str, str]:
        """Server and port, bound on the source with `PROFILE`."""
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

    def delete_port(self, port: str) -> None:
        self._fake.delete_port(port)


class RealNetworkWorld:
    source, target, agentless = "cmp1a", "cmp2a", "nowhere"

    def __init__(self, session: Session) -> None:
        self._service = session.service("network")
        self.network: Network = Neutron(self._service)
        self._made: list[str] = []

    def new_port(self) -> tuple[str, str]:
        server = str(uuid.uuid4())
        body = {
            "network_id": self._service.get("/networks", name="flat1").body["networks"][0]["id"],
            "name": "cellmove-contract",
            "device_id": server,
            "device_owner": "compute:nova",
            "binding:host_id": self.source,
            "binding:profile": PROFILE,
        }
        answer = self._service.send("POST", "/ports", {"port": body})
        assert answer.ok, answer.message
        self._made.append(answer.body["port"]["id"])
        return server, self._made[-1]

    def delete_port(self, port: str) -> None:
        self._service.send("DELETE", f"/ports/{port}")

    def close(self) -> None:
        for port in self._made:
            self.delete_port(port)


class PlacementWorld(Protocol):
    """Two providers of 4 VCPU and 1024 MEMORY_MB, and consumers of our own."""

    placement: Placement
    source: str
    target: str

    def new_consumer(self) -> str: ...


class FakePlacementWorld:
    def __init__(self) -> None:
        fake = FakePlacement()
        self.placement: Placement = fake
        self.source, self.target = str(uuid.uuid4()), str(uuid.uuid4())
        for provider in (self.source, self.target):
            vcpu = Inventory(2, allocation_ratio=2.0, max_unit=2)
            fake.add_provider(provider, {"VCPU": vcpu, "MEMORY_MB": Inventory(1536, reserved=512)})

    def new_consumer(self) -> str:
        return str(uuid.uuid4())


class RealPlacementWorld:
    def __init__(self, session: Session) -> None:
        self._service = session.service("placement", MICROVERSION)
        self.placement: Placement = RealPlacement(self._service)
        self._consumers: list[str] = []
        self.source, self.target = self._new_provider(), self._new_provider()

    def new_consumer(self) -> str:
        self._consumers.append(str(uuid.uuid4()))
        return self._consumers[-1]

    def close(self) -> None:
        for consumer in self._consumers:
            held = self.placement.allocations(consumer)
            emptied = Allocations(consumer, {}, held.generation, held.project_id, held.user_id)
            self.placement.replace([emptied])
        for provider in (self.source, self.target):
            answer = self._service.send("DELETE", f"/resource_providers/{provider}")
            assert answer.ok, answer.message

    def _new_provider(self) -> str:
        provider = str(uuid.uuid4())
        body: dict[str, object] = {"name": f"cellmove-contract-{provider}", "uuid": provider}
        answer = self._service.send("POST", "/resource_providers", body)
        assert answer.ok, answer.message
        body = {
            "resource_provider_generation": 0,
            "inventories": {
                "VCPU": {"total": 2, "allocation_ratio": 2.0, "max_unit": 2},
                "MEMORY_MB": {"total": 1536, "reserved": 512},
            },
        }
        answer = self._service.send("PUT", f"/resource_providers/{provider}/inventories", body)
        assert answer.ok, answer.message
        return provider


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
