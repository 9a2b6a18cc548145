"""Policy and quota on the lab: cellmove refuses what nova refuses, with nova's own numbers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmove.errors import StepFailed
from tests.lab.kit.nova import MICROVERSION, Nova, lab_session
from tests.lab.kit.program import Cellmove

pytestmark = [pytest.mark.lab, pytest.mark.alone]

RAM_MB = 140
"""More than flavor c1's 128, less than c2's 160."""


@pytest.fixture
def project() -> Iterator[str]:
    """A project of the test's own, in which the administrator may do everything."""
    session = lab_session()
    identity = session.service("identity")
    name = f"limited-{uuid.uuid4().hex[:8]}"
    body = {"project": {"name": name, "domain_id": "default"}}
    made = identity.send("POST", "/projects", body).body["project"]["id"]
    roles = identity.get("/roles").body["roles"]
    for role in roles:
        if role["name"] in ("admin", "member"):
            path = f"/projects/{made}/users/{session.who.user_id}/roles/{role['id']}"
            assert identity.send("PUT", path).ok
    yield name
    assert identity.send("DELETE", f"/projects/{made}").ok


@pytest.fixture
def limited(project: str) -> Iterator[Nova]:
    """nova in that project, whose quota has room for one server of flavor c1."""
    session = lab_session(project=project)
    nova = Nova(session)
    path = f"/os-quota-sets/{session.who.project_id}"
    compute = session.service("compute", MICROVERSION)
    assert compute.send("PUT", path, {"quota_set": {"ram": RAM_MB}}).ok
    yield nova
    for server in nova.servers:
        nova.discard(server)
    assert compute.send("DELETE", path).ok


def test_policy_and_quota_refuse_as_nova_does(
    limited: Nova,
    blank: str,
    cellmove: Cellmove,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = limited.boot("limited", "cmp1a", more={"imageRef": blank})
    before = limited.show(server)
    there = (server, "--to-host", "cmp2a")

    resize = {"resize": {"flavorRef": limited.flavor("c2")}}
    with pytest.raises(StepFailed) as by_nova:
        limited._compute.send("POST", f"/servers/{server}/action", resize)
    said = r"Requested (\d+), but already used (\d+) of (\d+) ram"
    numbers = re.search(said, by_nova.value.seen)
    assert numbers, by_nova.value
    wanted, used, allowed = numbers.groups()
    for more in ((), ("--dry-run",)):
        done = cellmove("resize", *there, "--flavor", "c2", *more, "--json", check=False)
        assert done.code == 1
        assert done.json()["error"]["seen"] == (
            f"{used} MiB of memory are in use, {wanted} more are needed, {allowed} are allowed."
        )
    assert cellmove("resize", *there, "--dry-run").code == 0

    monkeypatch.setenv("CELLMOVE_POLICY_FILE", "")
    strict = Cellmove(tmp_path)
    for more in ((), ("--dry-run",)):
        done = strict("resize", *there, *more, "--json", check=False)
        assert done.code == 1
        error = done.json()["error"]
        assert "Rule compute:servers:resize:cross_cell is `!`" in error["seen"]
        assert '"compute:servers:resize:cross_cell": "rule:admin_api"' in error["do"]
    assert limited.show(server) == before
