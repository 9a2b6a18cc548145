"""Fixtures of the lab tests; without a running lab every one of these tests fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.kit.images import empty_image
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.plugin import (
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)
from tests.lab.kit.program import Cellmove

__all__ = ["pytest_runtest_protocol", "pytest_runtest_setup", "pytest_runtest_teardown"]


@pytest.fixture(scope="session")
def admin_nova() -> Nova:
    """nova as an administrator in the customer's project: can choose hosts, sees everything."""
    return Nova(lab_session(project="demo"))


@pytest.fixture(scope="session")
def customer() -> Nova:
    """nova as the customer, an ordinary member of project demo."""
    return Nova(lab_session("demo"))


@pytest.fixture(scope="session")
def blank() -> Iterator[str]:
    """An image whose guest does nothing, at once: for servers that nobody looks into."""
    with empty_image(lab_session(project="demo")) as image:
        yield image


@pytest.fixture
def nova(admin_nova: Nova) -> Iterator[Nova]:
    """`admin_nova`; the servers that the test boots are deleted after it."""
    admin_nova.servers.clear()
    yield admin_nova
    for server in admin_nova.servers:
        admin_nova.discard(server)


@pytest.fixture
def cellmove(tmp_path: Path) -> Cellmove:
    """The program with a journal of the test's own."""
    return Cellmove(tmp_path)
