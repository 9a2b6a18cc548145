"""Fixtures of the acceptance tests: the lab's own, and a project with nothing in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from cellmove.services.session import Session
from tests.lab.conftest import (
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.program import Cellmove
from tests.lab.kit.volumes import Volumes

__all__ = ["pytest_runtest_protocol", "pytest_runtest_setup", "pytest_runtest_teardown"]


@pytest.fixture(scope="session")
def project() -> Iterator[str]:
    """A project of these tests' own, in which the administrator may do everything."""
    session = lab_session()
    identity = session.service("identity")
    name = f"accept-{uuid.uuid4().hex[:8]}"
    body = {"project": {"name": name, "domain_id": "default"}}
    made = identity.send("POST", "/projects", body).body["project"]["id"]
    for role in identity.get("/roles").body["roles"]:
        if role["name"] in ("admin", "member"):
            path = f"/projects/{made}/users/{session.who.user_id}/roles/{role['id']}"
            assert identity.send("PUT", path).ok
    yield name
    assert identity.send("DELETE", f"/projects/{made}").ok


@pytest.fixture(scope="session")
def session(project: str) -> Session:
    return lab_session(project=project)


@pytest.fixture(scope="session")
def nova(session: Session) -> Nova:
    """nova as an administrator in that project."""
    return Nova(session)


@pytest.fixture(scope="session")
def volumes(session: Session, nova: Nova) -> Volumes:
    return Volumes(session, nova)


@pytest.fixture(scope="module")
def cellmove(tmp_path_factory: pytest.TempPathFactory) -> Cellmove:
    return Cellmove(tmp_path_factory.mktemp("accept"))
