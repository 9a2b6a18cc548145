"""Signing in to the lab: one request id in every log, and tokens that end in mid-move."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from openstack.config import OpenStackConfig

from cellmove.services.session import sign_in
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, SERVICES, STATE, namespace
from tests.lab.kit.program import Cellmove, KeepingTokens, WithClouds

pytestmark = [pytest.mark.lab, pytest.mark.alone]

LOGS = ("keystone", "neutron-server", "placement")
"""Services that a dry run of a server without volumes asks."""


@dataclass(frozen=True, slots=True)
class Operator:
    """An administrator of the test's own, whose tokens nobody else has."""

    user: str
    cloud: Path
    """The clouds.yaml that names them `lab`."""
    keystone: Any

    def token(self) -> str:
        """A token of theirs."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OS_CLIENT_CONFIG_FILE", str(self.cloud))
            session = sign_in("lab", f"req-{uuid.uuid4()}")
            return str(session._region.get_session().get_token())

    def revoke(self) -> None:
        """No token that they have is good any more, but they may sign in again."""
        time.sleep(1)  # Keystone counts whole seconds
        for enabled in (False, True):
            body = {"user": {"enabled": enabled}}
            assert self.keystone.send("PATCH", f"/users/{self.user}", body).ok
        time.sleep(1)
        forget_tokens()


def good(token: str) -> bool:
    """Whether Neutron takes this token."""
    endpoint = lab_session().service("network")._adapter.get_endpoint()  # type: ignore[attr-defined]
    headers = {"X-Auth-Token": token}
    answer = requests.get(f"{endpoint}/ports?limit=1", headers=headers, timeout=30)
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


def forget_tokens() -> None:
    """The services remember for minutes which tokens are good."""
    with namespace(SERVICES):
        memcached = socket.create_connection(("127.0.0.1", 11211), timeout=5)
    with memcached:
        memcached.sendall(b"flush_all\r\n")
        assert memcached.recv(100) == b"OK\r\n"


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    session = lab_session()
    keystone = session.service("identity")
    name, password = f"operator-{uuid.uuid4().hex[:8]}", secrets.token_hex(12)
    body = {"user": {"name": name, "password": password, "domain_id": "default"}}
    user = keystone.send("POST", "/users", body).body["user"]["id"]
    (admin,) = keystone.get("/roles", name="admin").body["roles"]
    path = f"/projects/{session.who.project_id}/users/{user}/roles/{admin['id']}"
    assert keystone.send("PUT", path).ok
    clouds = OpenStackConfig(config_files=[str(OUTPUTS / "clouds.yaml")]).cloud_config
    clouds["clouds"]["lab"]["auth"] |= {"username": name, "password": password}
    (tmp_path / "clouds.yaml").write_text(json.dumps(clouds))
    yield Operator(user, tmp_path / "clouds.yaml", keystone)
    assert keystone.send("DELETE", f"/users/{user}").ok


def log_size(service: str) -> int:
    return (STATE / "log" / f"{service}.log").stat().st_size


def logged(service: str, since: int) -> str:
    with (STATE / "log" / f"{service}.log").open(errors="replace") as log:
        log.seek(since)
        return log.read()


def test_one_request_id_is_in_every_services_log(nova: Nova, cellmove: Cellmove) -> None:
    server = nova.boot("logged", "cmp1a")
    sizes = {service: log_size(service) for service in LOGS}
    done = cellmove("resize", server, "--to-host", "cmp2a", "--dry-run", "--json")
    request_id = done.json()["plans"][0]["move"]["request_id"]
    lines = {service: logged(service, sizes[service]).count(request_id) for service in LOGS}
    assert all(lines.values()), lines


def test_a_token_that_is_revoked_in_mid_move_is_renewed(
    nova: Nova, operator: Operator, tmp_path: Path
) -> None:
    server = nova.boot("revoked", "cmp1a")
    nova.stop(server)
    earlier = operator.token()
    assert good(earlier)
    cellmove = WithClouds(tmp_path, operator.cloud)
    moving = cellmove.start("resize", server, "--to-host", "cmp2a", "--json")
    cellmove.reached("guard-server", "begun")
    moving.send_signal(signal.SIGSTOP)
    try:
        operator.revoke()
        assert not good(earlier)
        assert ("bind-ports", "begun") not in cellmove.marks()  # Neutron is still to be asked
    finally:
        moving.send_signal(signal.SIGCONT)
    done = cellmove.wait(moving)
    assert done.code == 0, done.stdout + done.stderr
    assert nova.status(server) == "VERIFY_RESIZE"
    assert nova.host(server) == "cmp2a"


def test_a_kept_token_spares_the_next_command_the_password(
    nova: Nova, operator: Operator, tmp_path: Path
) -> None:
    server = nova.boot("kept", "cmp1a")
    cellmove = KeepingTokens(tmp_path, operator.cloud)

    def passwords() -> int:
        """How many Keystone looks at for one command."""
        since = log_size("keystone")
        done = cellmove("resize", server, "--to-host", "cmp2a", "--dry-run", "--json")
        request_id = done.json()["plans"][0]["move"]["request_id"]
        lines = [line for line in logged("keystone", since).splitlines() if request_id in line]
        return sum("password_hashing" in line for line in lines)

    assert passwords() == 2  # the operator's, and that of the service user
    assert passwords() == 0
    (kept,) = (tmp_path / "python_keyring").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    operator.revoke()
    assert passwords() == 1
    assert passwords() == 0
