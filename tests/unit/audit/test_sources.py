"""What is listed in pages is listed whole, however the service cuts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cellmove.errors import StepFailed
from cellmove.model import ServerPort
from cellmove.services.cinder import Cinder
from cellmove.services.neutron import Neutron
from cellmove.services.placement import Placement
from cellmove.services.service import Answer


class Paged:
    """A service that gives few rows at a time, or, `deaf`, all of them whatever one asks for."""

    def __init__(self, kind: str, rows: Sequence[Mapping[str, Any]], *, deaf: bool = False) -> None:
        self._kind, self._rows, self._deaf = kind, rows, deaf
        self.asked: list[dict[str, str]] = []

    def get(self, path: str, **query: str) -> Answer:
        self.asked.append(query)
        if self._deaf:
            return Answer(200, {self._kind: list(self._rows)})
        after = [row for row in self._rows if str(row["id"]) > query.get("marker", "")]
        return Answer(200, {self._kind: after[:2]})

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        raise AssertionError("a look writes nothing")


def port(number: int, owner: str = "compute:az1") -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "device_id": f"s{number}",
        "device_owner": owner,
        "mac_address": "fa:16:3e:00:00:01",
        "binding:host_id": "cmp1a",
        "binding:vif_type": "ovs",
        "binding:vnic_type": "normal",
        "binding:profile": {},
        "binding:vif_details": {},
        "status": "ACTIVE",
    }


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_all_servers_ports_are_listed_and_no_others(count: int, deaf: bool) -> None:
    rows = [*map(port, range(count)), port(7, "network:dhcp"), port(8, "network:router_gateway")]
    service = Paged("ports", rows, deaf=deaf)
    found = Neutron(service).server_ports()
    assert found == tuple(ServerPort(f"p{n}", f"s{n}", "cmp1a", "ovs") for n in range(count))


@pytest.mark.parametrize("deaf", [False, True])
def test_all_ports_with_a_binding_at_a_host_are_listed(deaf: bool) -> None:
    service = Paged("ports", [{"id": f"p{n}"} for n in range(5)], deaf=deaf)
    assert Neutron(service).bound_to("cmp1a") == {f"p{n}" for n in range(5)}
    assert {each["binding:host_id"] for each in service.asked} == {"cmp1a"}


@pytest.mark.parametrize("deaf", [False, True])
def test_all_attachments_are_listed_by_server(deaf: bool) -> None:
    rows = [
        {"id": f"a{n}", "volume_id": f"v{n}", "instance": owner, "status": "attached"}
        for n, owner in enumerate(["s1", "s2", None, "s1", "s1"])
    ]
    found = Cinder(Paged("attachments", rows, deaf=deaf)).all_attachments()
    assert {server: [each.id for each in of] for server, of in found.items()} == {
        "s1": ["a0", "a3", "a4"],
        "s2": ["a1"],
    }


class Providers:
    """A Placement with three providers, one of which goes while it is asked."""

    def get(self, path: str, **query: str) -> Answer:
        if path == "/resource_providers":
            return Answer(200, {"resource_providers": [{"uuid": each} for each in "abc"]})
        provider = path.split("/")[2]
        if provider == "b":
            return Answer(404, {})
        held = {"one": {"resources": {"VCPU": 1}}}
        return Answer(
            200, {"allocations": held if provider == "a" else held | {"two": held["one"]}}
        )

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        raise AssertionError("a look writes nothing")


def test_consumers_are_collected_from_all_providers_that_stay() -> None:
    one = {"VCPU": 1}
    assert Placement(Providers()).held() == {"one": {"a": one, "c": one}, "two": {"c": one}}


def test_an_error_in_a_list_is_no_end_of_it() -> None:
    class Broken(Paged):
        def get(self, path: str, **query: str) -> Answer:
            return Answer(400, {})

    with pytest.raises(StepFailed):
        Neutron(Broken("ports", [])).server_ports()
    with pytest.raises(StepFailed):
        Cinder(Broken("attachments", [])).all_attachments()
