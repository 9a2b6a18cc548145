"""Signing in and calling: what is sent, and what becomes of every way to fail."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from cellmove.errors import CellmoveError, Refused, StepFailed, Unknown, Unreachable
from cellmove.services.service import GATEWAY_ERRORS, READ_RETRIES, HttpService, Service
from cellmove.services.session import Session, begin_sign_in, sign_in
from tests.unit.services.cloud_on_loopback import HANG_UP, LoopbackCloud

REQUEST = "req-00000000-0000-0000-0000-000000000001"
PATH = "/network/v2.0/ports"
Q = "/ports"


@pytest.fixture
def session(cloud: LoopbackCloud) -> Session:
    return sign_in("here", REQUEST)


@pytest.fixture
def network(session: Session) -> Service:
    return session.service("network")


def test_who_we_are_is_known(session: Session) -> None:
    assert (session.who.user_id, session.who.project_id) == ("operator", "p1")
    assert session.who.roles == {"admin"}


def test_every_call_bears_the_request_id(cloud: LoopbackCloud, network: Service) -> None:
    network.get(Q)
    network.send("POST", Q, {})
    assert {r.headers.get("x-openstack-request-id") for r in cloud.requests} == {REQUEST}


def test_the_token_goes_along_and_no_service_token_uncalled(
    cloud: LoopbackCloud, network: Service
) -> None:
    network.get(Q)
    (request,) = cloud.asked(PATH)
    assert request.headers["x-auth-token"] == "token-of-operator"
    assert "x-service-token" not in request.headers


def test_the_second_clouds_token_goes_along_as_service_token(cloud: LoopbackCloud) -> None:
    sign_in("here", REQUEST, service_cloud="service").service("network").get(Q)
    (request,) = cloud.asked(PATH)
    assert request.headers["x-auth-token"] == "token-of-operator"
    assert request.headers["x-service-token"] == "token-of-cellmove"


def test_one_microversion_is_asked_for(cloud: LoopbackCloud, session: Session) -> None:
    session.service("network", "1.28").get(Q)
    assert cloud.asked(PATH)[0].headers["openstack-api-version"] == "network 1.28"


def test_a_query_is_part_of_the_address(cloud: LoopbackCloud, network: Service) -> None:
    cloud.answers["GET", PATH] = [(200, {"ports": []})]
    answer = network.get(Q, device_id="a b")
    assert (answer.ok, answer.body) == (True, {"ports": []})
    assert cloud.asked(PATH)[0].path == f"{PATH}?device_id=a+b"


def test_without_a_body_nothing_is_sent_as_one(cloud: LoopbackCloud, network: Service) -> None:
    network.send("PUT", Q)
    assert cloud.asked(PATH)[0].body == b""


@pytest.mark.parametrize("status", [400, 404, 409])
def test_an_answer_that_says_no_is_an_answer(
    cloud: LoopbackCloud, network: Service, status: int
) -> None:
    body = {"NeutronError": {"type": "PortNotFound", "message": "Port p\n could not be found."}}
    cloud.answers["GET", PATH] = cloud.answers["POST", PATH] = [(status, body)]
    for answer in (network.get(Q), network.send("POST", Q, {})):
        assert not answer.ok
        assert answer.code == "PortNotFound"
        assert answer.message == f"{status}: Port p could not be found."


@pytest.mark.parametrize("status", GATEWAY_ERRORS)
def test_a_read_is_tried_again(cloud: LoopbackCloud, network: Service, status: int) -> None:
    cloud.answers["GET", PATH] = [(status, {}), (200, {"ports": []})]
    assert network.get(Q).ok


@pytest.mark.parametrize("status", [HANG_UP, 502, 503, 504])
def test_a_read_without_answer_is_unreachable(
    cloud: LoopbackCloud, network: Service, status: int
) -> None:
    cloud.answers["GET", PATH] = [(status, {})]
    with pytest.raises(Unreachable, match="network cannot be reached"):
        network.get(Q)
    assert len(cloud.asked(PATH)) == 1 + READ_RETRIES


@pytest.mark.parametrize("status", [HANG_UP, 502, 503, 504])
def test_a_write_without_answer_is_unknown_and_not_tried_again(
    cloud: LoopbackCloud, network: Service, status: int
) -> None:
    cloud.answers["POST", PATH] = [(status, {})]
    with pytest.raises(Unknown, match="did not say whether POST /ports was done"):
        network.send("POST", Q, {})
    assert len(cloud.asked(PATH)) == 1


def test_a_slow_read_is_unreachable_and_a_slow_write_unknown(
    cloud: LoopbackCloud, tmp_path: Path
) -> None:
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml(api_timeout=1))
    network = sign_in("here", REQUEST).service("network")
    enough = threading.Event()
    cloud.sleep = lambda: enough.wait(60)
    with pytest.raises(Unreachable, match="timed out"):
        network.get(Q)
    with pytest.raises(Unknown, match="timed out"):
        network.send("DELETE", Q)
    enough.set()


def test_a_write_that_found_no_one_was_not_done(
    network: Service, cloud: LoopbackCloud, tmp_path: Path
) -> None:
    nobody = {"network_endpoint_override": "http://127.0.0.1:9/v2.0"}
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml(**nobody))
    network = sign_in("here", REQUEST).service("network")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9.*: Connection refused\."):
        network.send("POST", Q, {})


@pytest.mark.parametrize("status", [401, 403])
def test_a_forbidden_read_is_refused_and_a_forbidden_write_fails(
    cloud: LoopbackCloud, network: Service, status: int
) -> None:
    cloud.answers["GET", PATH] = cloud.answers["POST", PATH] = [(status, {})]
    with pytest.raises(Refused, match="does not let us GET /ports"):
        network.get(Q)
    with pytest.raises(StepFailed, match="does not let us POST /ports") as caught:
        network.send("POST", Q, {})
    assert not isinstance(caught.value, Unknown)


def test_a_token_that_cannot_be_renewed_fails_a_write(
    cloud: LoopbackCloud, network: Service
) -> None:
    cloud.answers["POST", PATH] = [(401, {})]
    cloud.password = "changed meanwhile"
    with pytest.raises(StepFailed, match="Signing in to the cloud failed"):
        network.send("POST", Q, {})


@pytest.mark.parametrize("service", [None, "service"])
def test_a_token_that_runs_out_is_renewed_and_each_call_is_done_once(
    cloud: LoopbackCloud, service: str | None
) -> None:
    network = sign_in("here", REQUEST, service_cloud=service).service("network")
    cloud.answers["GET", PATH] = cloud.answers["POST", PATH] = [(200, {"ports": []})]
    assert network.get(Q).ok
    cloud.revoke()
    assert network.send("POST", Q, {"port": {}}).ok
    refused, done = cloud.asked(PATH)[1:]
    assert refused.headers["x-auth-token"] != done.headers["x-auth-token"]
    assert refused.body == done.body
    cloud.revoke()
    assert network.get(Q).ok
    assert {r.headers.get("x-openstack-request-id") for r in cloud.requests} == {REQUEST}


def test_a_cloud_that_never_takes_the_token_is_not_asked_for_ever(
    cloud: LoopbackCloud, network: Service
) -> None:
    cloud.answers["GET", PATH] = [(401, {})]
    with pytest.raises(Refused):
        network.get(Q)
    assert len(cloud.asked(PATH)) == 4  # with an old and a new token, twice


def test_a_token_that_runs_out_under_several_threads_is_renewed_for_all(
    cloud: LoopbackCloud, network: Service
) -> None:
    cloud.answers["GET", PATH] = [(200, {"ports": []})]
    together = threading.Barrier(8)

    def get(_number: int) -> bool:
        together.wait(60)
        return network.get(Q).ok

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            cloud.revoke()
            assert all(pool.map(get, range(8)))


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        (None, {"project_id": "p1", "project_domain_id": "d1", "system_scope": None}),
        ({"system": {"all": True}}, {"project_id": None, "system_scope": "all"}),
        ({"domain": {"id": "d2", "name": "D"}}, {"project_id": None, "domain_id": "d2"}),
    ],
)
def test_policies_judge_what_the_token_is_for(
    cloud: LoopbackCloud, scope: dict[str, object] | None, seen: dict[str, object]
) -> None:
    cloud.roles = ("reader", "member")
    if scope is not None:
        cloud.scope = scope
    credentials = sign_in("here", REQUEST).who.credentials
    assert credentials["user_id"] == "operator"
    assert credentials["roles"] == ["member", "reader"]
    assert {key: credentials[key] for key in seen} == seen


def test_a_service_too_old_for_the_microversion_is_named(
    cloud: LoopbackCloud, session: Session
) -> None:
    body = {"errors": [{"detail": "Version 1.28 is not supported", "code": "x"}]}
    cloud.answers["GET", PATH] = cloud.answers["POST", PATH] = [(406, body)]
    network = session.service("network", "1.28")
    with pytest.raises(Refused, match="network is too old for this") as refused:
        network.get(Q)
    assert "has microversion 1.28" in refused.value.do
    assert_three_sentences(refused.value)
    with pytest.raises(StepFailed, match="too old"):
        network.send("POST", Q, {})


@pytest.mark.parametrize(("name", "service"), [("here", None), ("service", "here")])
def test_a_way_to_sign_in_that_says_nothing_of_who_we_are_is_refused(
    cloud: LoopbackCloud, tmp_path: Path, name: str, service: str | None
) -> None:
    more = {"auth_type": "none", "auth": {"endpoint": cloud.url}}
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml(**more))
    with pytest.raises(Refused, match="This way of signing in cannot be used") as refused:
        sign_in(name, REQUEST, service_cloud=service)
    assert_three_sentences(refused.value)


@pytest.mark.parametrize("more", [{"region_name": "S"}, {"interface": "internal"}])
def test_region_and_interface_choose_the_endpoint(
    cloud: LoopbackCloud, tmp_path: Path, more: dict[str, object]
) -> None:
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml(**more))
    with pytest.raises(Unreachable, match="not found"):
        sign_in("here", REQUEST).service("network")


@pytest.mark.parametrize(
    ("more", "verify"),
    [({}, True), ({"verify": False}, False), ({"cacert": "/etc/ca.pem"}, "/etc/ca.pem")],
)
def test_the_clouds_certificate_authority_is_the_one_that_counts(
    cloud: LoopbackCloud, tmp_path: Path, more: dict[str, object], verify: bool | str
) -> None:
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml(**more))
    assert sign_in("here", REQUEST)._region.get_session().verify == verify


def test_an_optional_service_is_missed_only_when_it_is_called(session: Session) -> None:
    assert isinstance(session.optional("network"), HttpService)
    absent = session.optional("block-storage", "3.44")
    for call in (partial(absent.get, "/x"), partial(absent.send, "POST", "/x")):
        with pytest.raises(Unreachable, match="catalog does not have"):
            call()


@pytest.mark.parametrize("named", ["/network", "/network/", "/network/v2.0", "/network/v2.0/"])
def test_the_catalog_may_name_neutron_with_its_version(
    cloud: LoopbackCloud, tmp_path: Path, named: str
) -> None:
    override = {"network_endpoint_override": cloud.url + named}
    (tmp_path / "clouds.yaml").write_text(cloud.clouds_yaml(**override))
    sign_in("here", REQUEST).service("network").get(Q)
    assert len(cloud.asked(PATH)) == 1


def test_a_service_that_the_catalog_does_not_have_is_unreachable(session: Session) -> None:
    with pytest.raises(Unreachable, match="placement service in R region not found"):
        session.service("placement")


def test_an_unknown_cloud_is_refused(cloud: LoopbackCloud) -> None:
    with pytest.raises(Refused, match="nowhere was not found"):
        sign_in("nowhere", REQUEST)
    assert cloud.requests == []


@pytest.mark.parametrize(("name", "service"), [("nobody", None), ("here", "nobody")])
def test_a_wrong_password_is_refused_and_not_told(
    cloud: LoopbackCloud, name: str, service: str | None
) -> None:
    with pytest.raises(Refused, match="Signing in to the cloud failed") as caught:
        sign_in(name, REQUEST, service_cloud=service)
    assert "wrong" not in str(caught.value)


def test_a_silent_keystone_is_unreachable(
    cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away = cloud.clouds_yaml().replace(f":{cloud.port}/", ":9/")
    (tmp_path / "clouds.yaml").write_text(away)
    with pytest.raises(Unreachable, match="Keystone cannot be reached") as caught:
        sign_in("here", REQUEST)
    assert_three_sentences(caught.value)


def assert_three_sentences(error: CellmoveError) -> None:
    assert all(part.endswith(".") for part in (error.what, error.seen, error.do))


def test_the_environment_alone_is_enough(
    cloud: LoopbackCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", os.devnull)
    for name, value in {
        "AUTH_URL": f"{cloud.url}/identity/v3",
        "USERNAME": "operator",
        "PASSWORD": "a-secret",
        "PROJECT_NAME": "admin",
        "USER_DOMAIN_ID": "default",
        "PROJECT_DOMAIN_ID": "default",
    }.items():
        monkeypatch.setenv(f"OS_{name}", value)
    assert sign_in(None, REQUEST).who.user_id == "operator"


def test_importing_the_services_does_not_import_openstacksdk() -> None:
    code = (
        "import sys, cellmove.services.session, cellmove.services.neutron, "
        "cellmove.services.placement\n"
        "sys.exit(any(name in sys.modules for name in ('openstack', 'keystoneauth1', 'requests')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sign_in_that_was_begun_tells_its_failure_when_it_is_wanted(
    cloud: LoopbackCloud,
) -> None:
    unknown, wrong = begin_sign_in("nowhere", REQUEST), begin_sign_in("nobody", REQUEST)
    no_service = begin_sign_in("here", REQUEST, "nobody")
    right = begin_sign_in("here", REQUEST)

    for begun, why in ((unknown, "not configured"), (wrong, "failed"), (no_service, "failed")):
        with pytest.raises(Refused, match=why):
            begun()
    assert right().who.user_id == "operator"


def test_a_sign_in_spares_what_openstacksdk_imports_for_others() -> None:
    code = (
        "import sys\n"
        "from cellmove.services.session import begin_sign_in\n"
        "begin_sign_in('no-such-cloud', 'req-1')\n"
        "assert 'openstack.config' in sys.modules\n"
        "assert 'openstack.compute.v2.server' not in sys.modules\n"
        "import openstack\n"
        "import openstack.connection\n"
        "assert openstack.connection.Connection.__module__ == 'openstack.connection'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
