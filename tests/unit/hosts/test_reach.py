"""The way to hosts that are expected: opened ahead, and nobody's trouble when it cannot be."""

from __future__ import annotations

import time

import pytest

from cellmove.errors import Unreachable
from cellmove.hosts.reach import RemoteHosts
from tests.unit.hosts.conftest import Sshd


def signed_in(sshd: Sshd) -> int:
    return (sshd.keys / "log").read_text().count("Accepted publickey")


def soon(sshd: Sshd, count: int) -> bool:
    """Whether that many have signed in before long."""
    deadline = time.monotonic() + 60
    while signed_in(sshd) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return signed_in(sshd) == count


def test_hosts_that_are_expected_are_reached_once(sshd: Sshd) -> None:
    before = signed_in(sshd)
    with RemoteHosts(ssh_config=sshd.config, bastion="bastion") as hosts:
        hosts.expect()
        assert soon(sshd, before + 1)
        hosts.expect("far", "farther")
        assert soon(sshd, before + 3)

        assert hosts.reach("far") is hosts.reach("far")
        assert hosts.reach("farther").name == "farther"
        assert signed_in(sshd) == before + 3


def test_a_host_that_cannot_be_reached_is_told_when_it_is_needed(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    began = time.monotonic()
    with RemoteHosts(ssh_config=sshd.config, bastion="bastion") as hosts:
        hosts.expect("far")
        hosts.expect()

        with pytest.raises(Unreachable, match="not in known_hosts"):
            hosts.reach("far")
    assert time.monotonic() - began < 15
