"""Every call that a client of a service makes meets every fault over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cellmove.errors import CellmoveError, Refused, StepFailed, Unknown, Unreachable
from cellmove.model import Allocations
from cellmove.services.cinder import Cinder
from cellmove.services.keystone import Projects
from cellmove.services.neutron import Neutron
from cellmove.services.placement import Placement
from cellmove.services.service import READ_RETRIES, HttpService
from tests.faults import proxy as proxy_module
from tests.faults.proxy import Call, Fault, Proxy, proxy
from tests.faults.rules import One

PATIENT_SECONDS, HASTY_SECONDS = 20.0, 0.15
PASSING = (
    *(Fault.UNAVAILABLE, Fault.RESET, Fault.HALF, Fault.GARBAGE, Fault.LOST, Fault.SLOW),
    Fault.SILENT,
)
"""What a read gets over when it is tried again."""
UNKNOWING = (
    *(Fault.UNAVAILABLE, Fault.RESET, Fault.HALF, Fault.GARBAGE, Fault.LOST, Fault.SILENT),
    Fault.LATE,
)
"""After which nobody can know whether a write was done."""

BINDING = {
    "host": "here",
    "vif_type": "ovs",
    "vif_details": {},
    "vnic_type": "normal",
    "profile": {},
}
BINDINGS = {
    "bindings": [
        {**BINDING, "status": "ACTIVE"},
        {**BINDING, "host": "there", "status": "INACTIVE"},
    ]
}
PORT = {
    "id": "p",
    "device_id": "s",
    "device_owner": "compute:nova",
    "mac_address": "fa:16:3e:00:00:01",
    "binding:host_id": "here",
    "status": "ACTIVE",
    "admin_state_up": True,
    "binding:vif_type": "ovs",
    "binding:vnic_type": "normal",
    "binding:profile": {},
    "binding:vif_details": {},
    "network_id": "n",
    "fixed_ips": [{"ip_address": "192.0.2.5", "subnet_id": "s"}],
    "resource_request": None,
}
NETWORK = {
    "id": "n",
    "name": "net",
    "project_id": "t",
    "mtu": 1500,
    "provider:network_type": "vlan",
    "provider:physical_network": "phys",
}
SUBNET = {
    "id": "s",
    "cidr": "192.0.2.0/24",
    "gateway_ip": "192.0.2.1",
    "dns_nameservers": [],
    "host_routes": [],
    "enable_dhcp": True,
    "ipv6_address_mode": None,
}
ATTACHMENT = {
    "id": "a",
    "volume_id": "v",
    "status": "attached",
    "instance": "s",
    "connection_info": {"driver_volume_type": "nfs"},
}
PROVIDER = "/resource_providers/r"
INVENTORY = {"total": 4, "reserved": 0, "allocation_ratio": 1.0, "max_unit": 4}
CANDIDATES = {
    "allocation_requests": [{"allocations": {"r": {"resources": {"VCPU": 1}}}, "mappings": {}}],
    "provider_summaries": {"r": {"root_provider_uuid": "r", "traits": []}},
}
ANSWERS: Mapping[tuple[str, str], Any] = {
    ("GET", "/extensions/x"): {"extension": {"alias": "x"}},
    ("GET", "/ports"): {"ports": [PORT]},
    ("GET", "/floatingips"): {
        "floatingips": [{"fixed_ip_address": "192.0.2.5", "floating_ip_address": "203.0.113.1"}]
    },
    ("GET", "/networks/n"): {"network": NETWORK},
    ("GET", "/subnets"): {"subnets": [SUBNET]},
    ("GET", "/ports/p/bindings"): BINDINGS,
    ("POST", "/ports/p/bindings"): {"binding": BINDINGS["bindings"][1]},
    ("PUT", "/ports/p/bindings/there/activate"): {"binding": BINDINGS["bindings"][1]},
    ("PUT", "/ports/p"): {"port": PORT},
    ("DELETE", "/ports/p/bindings/there"): None,
    ("GET", "/volumes/v"): {"volume": {"status": "in-use"}},
    ("GET", "/attachments"): {"attachments": [ATTACHMENT]},
    ("GET", "/attachments/a"): {"attachment": ATTACHMENT},
    ("POST", "/attachments"): {"attachment": ATTACHMENT},
    ("PUT", "/attachments/a"): {"attachment": ATTACHMENT},
    ("POST", "/attachments/a/action"): None,
    ("DELETE", "/attachments/a"): {"attachments": []},
    ("GET", "/allocations/c"): {"allocations": {}},
    ("POST", "/allocations"): None,
    ("GET", f"{PROVIDER}/inventories"): {"inventories": {"VCPU": INVENTORY}},
    ("GET", f"{PROVIDER}/usages"): {"usages": {"VCPU": 1}},
    ("GET", "/usages"): {"usages": {"VCPU": 1}},
    ("GET", "/resource_providers"): {"resource_providers": [{"uuid": "r"}]},
    ("GET", f"{PROVIDER}/allocations"): {"allocations": {"c": {"resources": {"VCPU": 1}}}},
    ("GET", f"{PROVIDER}/aggregates"): {"aggregates": ["g"]},
    ("GET", "/allocation_candidates"): CANDIDATES,
    ("GET", "/projects"): {"projects": [{"id": "named"}]},
}
NEW, OLD = (Allocations("c", {"r": {"VCPU": 1}}, n, "project", "user") for n in (None, 3))
GONE = Allocations("c", {}, None, "project", "user")
CLIENTS: Mapping[str, Callable[[HttpService], Any]] = {
    "neutron has_extension": lambda http: Neutron(http).has_extension("x"),
    "neutron ports": lambda http: Neutron(http).ports("s"),
    "neutron vifs": lambda http: Neutron(http).vifs("s"),
    "neutron resource_groups": lambda http: Neutron(http).resource_groups("s"),
    "neutron bindings": lambda http: Neutron(http).bindings("p"),
    "neutron server_ports": lambda http: Neutron(http).server_ports(),
    "neutron bound_to": lambda http: Neutron(http).bound_to("there"),
    "neutron bind": lambda http: Neutron(http).bind("p", "there", "normal", {}),
    "neutron activate": lambda http: Neutron(http).activate("p", "there"),
    "neutron rebind": lambda http: Neutron(http).rebind("p", "here"),
    "neutron unbind": lambda http: Neutron(http).unbind("p", "there"),
    "cinder has_attachments": lambda http: Cinder(http).has_attachments(),
    "cinder volume": lambda http: Cinder(http).volume("v"),
    "cinder attachments": lambda http: Cinder(http).attachments("s"),
    "cinder all_attachments": lambda http: Cinder(http).all_attachments(),
    "cinder connection_info": lambda http: Cinder(http).connection_info("a"),
    "cinder reserve": lambda http: Cinder(http).reserve("v", "s"),
    "cinder export": lambda http: Cinder(http).export("v", "s", {"host": "there"}),
    "cinder connect": lambda http: Cinder(http).connect("a", {"host": "there"}),
    "cinder complete": lambda http: Cinder(http).complete("a"),
    "cinder delete": lambda http: Cinder(http).delete("a"),
    "placement allocations": lambda http: Placement(http).allocations("c"),
    "placement held": lambda http: Placement(http).held(),
    "placement replace new": lambda http: Placement(http).replace([NEW]),
    "placement replace old": lambda http: Placement(http).replace([OLD]),
    "placement replace gone": lambda http: Placement(http).replace([GONE]),
    "placement free": lambda http: Placement(http).free("r"),
    "placement used": lambda http: Placement(http).used("project", "user"),
    "placement providers": lambda http: Placement(http).providers("r"),
    "placement candidates": lambda http: Placement(http).candidates("r", {"VCPU": 1}),
    "placement roomy": lambda http: Placement(http).roomy({"VCPU": 1}),
    "keystone id_of": lambda http: Projects(http).id_of("name"),
}


class Canned(BaseHTTPRequestHandler):
    """A service that has one answer to each request, and 404 to the rest."""

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = (self.command, self.path.partition("?")[0])
        body = ANSWERS.get(key, {})
        said = b"" if body is None else json.dumps(body).encode()
        self.send_response_only((204 if body is None else 200) if key in ANSWERS else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None: ...


for _method in ("GET", "POST", "PUT", "DELETE"):
    setattr(Canned, f"do_{_method}", Canned._serve)


@pytest.fixture(scope="module")
def between() -> Iterator[Proxy]:
    """A proxy in front of the canned service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with proxy({"service": f"http://127.0.0.1:{server.server_address[1]}"}) as made:
            yield made
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("keystoneauth1.session._Retries.__next__", lambda self: 0.0)
    monkeypatch.setattr(proxy_module, "SLOW_SECONDS", 0.02)


def over_http(between: Proxy, seconds: float = PATIENT_SECONDS) -> HttpService:
    from keystoneauth1.adapter import Adapter
    from keystoneauth1.noauth import NoAuth
    from keystoneauth1.session import Session

    adapter = Adapter(Session(auth=NoAuth()), endpoint_override=between.url("service"))
    return HttpService("service", adapter, seconds)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a client's method gave, or raised."""

    value: Any = None
    error: CellmoveError | None = None


def ended(client: Callable[[HttpService], Any], http: HttpService) -> Ended:
    """Run it; whatever is not an error of ours is a defect, and goes up."""
    try:
        return Ended(client(http))
    except CellmoveError as error:
        return Ended(error=require_three_sentences(error))


def require_three_sentences(error: CellmoveError) -> CellmoveError:
    assert all(part.endswith(".") for part in (error.what, error.seen, error.do)), error
    return error


def clean(between: Proxy, name: str) -> tuple[Ended, list[Call]]:
    """What happens when nothing goes wrong."""
    between.forget()
    found = ended(CLIENTS[name], over_http(between))
    return found, list(between.calls)


def spoilt(between: Proxy, name: str, rule: One) -> Ended:
    with between.spoiling(rule):
        hasty = rule.fault in (Fault.SILENT, Fault.LATE)
        http = over_http(between, HASTY_SECONDS if hasty else PATIENT_SECONDS)
        found = ended(CLIENTS[name], http)
        assert rule.met, "the fault was not met"
        return found


def places(calls: list[Call], *, writes: bool) -> list[int]:
    """The numbers of the calls that write, or of those that read."""
    return [n for n, call in enumerate(calls, start=1) if call.writes is writes]


def test_every_method_of_every_client_is_here() -> None:
    classes = {"neutron": Neutron, "cinder": Cinder, "placement": Placement, "keystone": Projects}
    tried = {tuple(name.split()[:2]) for name in CLIENTS}
    assert tried == {
        (name, method)
        for name, kind in classes.items()
        for method in vars(kind)
        if not method.startswith("_")
    }


@pytest.mark.parametrize("name", CLIENTS)
def test_nothing_goes_wrong_without_a_fault(between: Proxy, name: str) -> None:
    found, calls = clean(between, name)
    assert found.error is None
    assert calls


@pytest.mark.parametrize("name", CLIENTS)
def test_a_fault_that_passes_is_not_felt_by_a_read(between: Proxy, name: str) -> None:
    wanted, calls = clean(between, name)
    for nth in places(calls, writes=False):
        for fault in PASSING:
            assert spoilt(between, name, One(fault, nth=nth)) == wanted, (calls[nth - 1], fault)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_read_that_stays_broken_is_unreachable_and_not_asked_for_ever(
    between: Proxy, name: str
) -> None:
    _, calls = clean(between, name)
    for nth in places(calls, writes=False):
        for fault in (Fault.UNAVAILABLE, Fault.RESET, Fault.HALF, Fault.GARBAGE):
            rule = One(fault, nth=nth, for_ever=True)
            assert isinstance(spoilt(between, name, rule).error, Unreachable), (nth, fault)
            assert len(rule.met) == 1 + READ_RETRIES
        error = spoilt(between, name, One(Fault.ERROR, nth=nth)).error
        assert isinstance(error, Unreachable)
        assert "500: Made on purpose." in error.seen


@pytest.mark.parametrize("name", CLIENTS)
def test_a_read_that_is_turned_down_is_an_error_and_no_empty_answer(
    between: Proxy, name: str
) -> None:
    _, calls = clean(between, name)
    for nth in places(calls, writes=False):
        rule = One(Fault.CONFLICT, nth=nth, for_ever=True)
        error = spoilt(between, name, rule).error
        assert isinstance(error, StepFailed | Unreachable | Refused), calls[nth - 1]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_write_of_which_nobody_knows_is_unknown_and_sent_once(between: Proxy, name: str) -> None:
    _, calls = clean(between, name)
    for nth in places(calls, writes=True):
        for fault in UNKNOWING:
            rule = One(fault, match=partial(_same, calls[nth - 1]))
            error = spoilt(between, name, rule).error
            assert isinstance(error, Unknown), (calls[nth - 1], fault, error)
            assert between.written == [call for call in calls[:nth] if call.writes]
            assert len(between.forwarded) == nth - (not fault.was_done)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_write_that_the_service_turns_down_fails_and_is_sent_once(
    between: Proxy, name: str
) -> None:
    wanted, calls = clean(between, name)
    for nth in places(calls, writes=True):
        for fault in (Fault.ERROR, Fault.CONFLICT):
            found = spoilt(between, name, One(fault, nth=nth))
            if (name, fault) == ("neutron bind", Fault.CONFLICT):
                assert found == wanted  # it looks, and finds the binding
                continue
            assert isinstance(found.error, StepFailed), (calls[nth - 1], fault)
            assert not isinstance(found.error, Unknown)
            assert "Made on purpose." in str(found.error)
            assert len(between.written) == len(places(calls[:nth], writes=True))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_slow_write_is_a_write(between: Proxy, name: str) -> None:
    wanted, calls = clean(between, name)
    for nth in places(calls, writes=True):
        assert spoilt(between, name, One(Fault.SLOW, nth=nth)) == wanted


def _same(one: Call, other: Call) -> bool:
    return one == other
