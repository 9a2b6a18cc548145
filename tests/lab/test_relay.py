"""Copies that pass through the bastion alone: `relay = "bastion"`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import OUTPUTS, STATE, host_run, received_bytes
from tests.lab.kit.program import Cellmove

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1a", "cmp2a"
KNOWN = "/home/cellmove/.ssh/known_hosts"
MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(admin_nova: Nova) -> Iterator[GuestWatch]:
    """Guest of a running server with something of its own on its disk."""
    with admin_nova.lent("relay", SOURCE, metadata={"fill_mib": "32"}) as server:
        guest = GuestWatch.of(admin_nova, server)
        guest.wait_ready(SOURCE, since=0)
        guest.wait_told(SOURCE, "fill done")
        yield guest


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """Socket of an agent that has the operator's key."""
    socket = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
        while not Path(socket).exists():
            time.sleep(0.02)
        environ = {**os.environ, "SSH_AUTH_SOCK": socket}
        key = str(STATE / "keys" / "cellmove")
        subprocess.run(["ssh-add", "-q", key], env=environ, check=True)
        yield socket
        process.terminate()


@pytest.fixture
def relayed(tmp_path: Path, agent: str) -> Cellmove:
    """The program whose copies the bastion joins, with the operator's key by an agent."""
    config = tmp_path / "ssh_config"
    config.write_text("Host bastion\n  ForwardAgent yes\n" + (OUTPUTS / "ssh_config").read_text())
    environ = {
        "SSH_AUTH_SOCK": agent,
        "CELLMOVE_SSH_CONFIG": str(config),
        "CELLMOVE_SSH_RELAY": "bastion",
    }
    return Cellmove(tmp_path, environ)


@pytest.fixture
def acquainted() -> Iterator[None]:
    """The bastion's account knows the hosts' keys."""
    keys = (OUTPUTS / "known_hosts").read_text()
    host_run("bastion", ["sh", "-c", 'printf %s "$1" > "$2"', "sh", keys, KNOWN])
    try:
        yield
    finally:
        host_run("bastion", ["rm", KNOWN])


def test_a_bastion_that_does_not_know_the_hosts_is_refused_before_anything_is_touched(
    guest: GuestWatch, relayed: Cellmove
) -> None:
    done = relayed("resize", guest.server, "--to-host", TARGET, check=False)

    assert done.code == 1, done
    assert f"The bastion cannot copy from {SOURCE} to {TARGET}." in done.stderr
    assert "Host key verification failed" in done.stderr
    assert relayed.marks() == []

    checked = relayed("check", check=False)
    assert checked.code != 0
    assert f"{TARGET}: copies by the bastion" in checked.stdout + checked.stderr


@pytest.mark.usefixtures("acquainted")
def test_disks_cross_on_the_bastion_and_little_comes_to_the_conductor(
    guest: GuestWatch, relayed: Cellmove
) -> None:
    begun, here, there = time.time(), received_bytes("cond"), received_bytes(TARGET)
    relayed("resize", guest.server, "--to-host", TARGET, "--flatten", "--compress")
    crossed = received_bytes(TARGET) - there
    assert received_bytes("cond") - here < crossed / 4
    guest.wait_ready(TARGET, begun)
    assert guest.filled(TARGET)
    # What the image has can be packed, what the guest wrote cannot.
    held = int(host_run(TARGET, ["stat", "-c", "%b", f"{INSTANCES}/{guest.server}/disk"])) * 512
    assert 32 * MIB < crossed < held

    since = time.time()
    relayed("revert", guest.server, "--yes")
    guest.wait_ready(SOURCE, since)
    assert guest.filled(SOURCE)

    assert relayed("check", check=False).stdout.count("copies by the bastion") == 4
