"""Keystone fails at the sign-in, and when a token runs out in mid-move: in every way there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmove.errors import CellmoveError, Refused, StepFailed, Unknown, Unreachable
from cellmove.services.session import sign_in
from tests.faults import proxy as proxy_module
from tests.faults.proxy import Fault, Proxy, proxy
from tests.faults.rules import One
from tests.unit.services.cloud_on_loopback import LoopbackCloud

REQUEST = "req-00000000-0000-0000-0000-000000000001"
PATH, Q = "/network/v2.0/ports", "/ports"
AWAY = (Fault.ERROR, Fault.UNAVAILABLE, Fault.RESET, Fault.HALF, Fault.GARBAGE, Fault.LOST)
KINDS = ("password", "v3password")
"""How one signs in: the first asks Keystone for its versions, the second does not."""


@pytest.fixture(autouse=True)
def _quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "SLOW_SECONDS", 0.2)


@pytest.fixture
def between(cloud: LoopbackCloud) -> Iterator[Proxy]:
    """A proxy in front of Keystone alone."""
    with proxy({"identity": f"{cloud.url}/identity"}) as made:
        yield made


def signs_in_through(between: Proxy, cloud: LoopbackCloud, folder: Path, kind: str) -> None:
    text = cloud.clouds_yaml(auth_type=kind, api_timeout=1)
    text = text.replace(f"{cloud.url}/identity", between.url("identity"))
    (folder / "clouds.yaml").write_text(text)


def require_clear(error: CellmoveError) -> None:
    assert all(part.endswith(".") for part in (error.what, error.seen, error.do)), error
    assert "a-secret" not in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_keystone_that_fails_at_the_sign_in_is_unreachable_and_no_password_is_blamed(
    cloud: LoopbackCloud, between: Proxy, tmp_path: Path, kind: str
) -> None:
    signs_in_through(between, cloud, tmp_path, kind)
    for fault in (*AWAY, Fault.SILENT):
        asks = One(fault, match=lambda call: call.method == "POST", for_ever=True)
        with between.spoiling(asks), pytest.raises(Unreachable, match="Keystone") as caught:
            sign_in("here", REQUEST).service("network")
        require_clear(caught.value)
        assert "password" not in str(caught.value), fault
        if kind == "v3password":
            assert asks.met


@pytest.mark.parametrize("kind", KINDS)
def test_a_keystone_that_takes_nobody_refuses_and_a_slow_one_is_waited_for(
    cloud: LoopbackCloud, between: Proxy, tmp_path: Path, kind: str
) -> None:
    signs_in_through(between, cloud, tmp_path, kind)
    with between.spoiling(One(Fault.SLOW, for_ever=True)):
        assert sign_in("here", REQUEST).who.user_id == "operator"
    cloud.password = "another"
    with pytest.raises(Refused, match="Signing in to the cloud failed") as caught:
        sign_in("here", REQUEST)
    require_clear(caught.value)


@pytest.mark.parametrize("fault", [*AWAY, Fault.SILENT, Fault.SLOW])
def test_a_token_that_runs_out_while_keystone_fails_loses_no_write_and_goes_on_later(
    cloud: LoopbackCloud, between: Proxy, tmp_path: Path, fault: Fault
) -> None:
    signs_in_through(between, cloud, tmp_path, "v3password")
    network = sign_in("here", REQUEST).service("network")
    cloud.answers["GET", PATH] = cloud.answers["POST", PATH] = [(200, {"ports": []})]
    for method in ("GET", "POST"):
        cloud.revoke()
        done = len(cloud.asked(PATH))
        with between.spoiling(One(fault, for_ever=True)):
            if fault is Fault.SLOW:
                assert (network.get(Q) if method == "GET" else network.send(method, Q, {})).ok
                continue
            with pytest.raises((Unreachable, StepFailed)) as caught:
                network.get(Q) if method == "GET" else network.send(method, Q, {})
        require_clear(caught.value)
        assert method == "POST" or not isinstance(caught.value, Unknown | StepFailed)
        # Of a write no more than one came, and that one bore the token that was refused.
        assert method == "GET" or len(cloud.asked(PATH)) == done + 1
        assert network.send("POST", Q, {}).ok
