"""The worked scripts of the documentation do on a real cloud what they say."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.kit.guest import HEARTBEATS, GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import OUTPUTS, REPOSITORY
from tests.lab.kit.traces import nothing_left

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SCRIPTS = REPOSITORY / "docs" / "scripts"
SOURCE = "cmp1b"


class Shell:
    """Runs them as cron would: no terminal, the programs of the lab first on the path."""

    def __init__(self, state: Path) -> None:
        self._environment = {
            **os.environ,
            "XDG_STATE_HOME": str(state),
            "PATH": f"{OUTPUTS}:{os.environ['PATH']}",
        }

    def run(self, *argv: str, said: str = "", **environment: str) -> tuple[int, str]:
        """Exit code and output of one."""
        done = subprocess.run(
            [str(SCRIPTS / argv[0]), *argv[1:]],
            env={**self._environment, **environment},
            input=said,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def program(path: Path, text: str) -> str:
    """Make a program for one of them to call."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_list_of_servers_is_moved_and_a_host_looked_at(
    nova: Nova, shell: Shell, tmp_path: Path
) -> None:
    begun = time.time()
    with nova.lent("script", SOURCE) as server:
        guest = GuestWatch.of(nova, server)
        guest.wait_ready(SOURCE, begun)
        name = nova.show(server)["name"]
        listed = f"# tonight\n{name}\nno-such-server\n"

        code, said = shell.run("move-at-night.sh", "cell2", said=listed, DRY_RUN="1")
        assert code == 6
        assert f"{name}: would go to cmp2" in said
        assert "no-such-server: No single server is named 'no-such-server'" in said
        assert nova.host(server) == SOURCE

        # The guest is heard at the target only, so the probe says no until it runs there.
        heard = program(
            tmp_path / "heard", f"tail -n 300 {HEARTBEATS} | grep 'cmp2. .*{guest.mac}'"
        )
        night = {"PROBE": heard, "WAIT_SECONDS": "90"}
        code, said = shell.run("move-at-night.sh", "cell2", said=f"{name}\n", **night)
        assert code == 0, said
        there = nova.host(server)
        assert f"{name}: moved to {there}, and answers" in said
        assert (nova.status(server), there[:4]) == ("ACTIVE", "cmp2")

        code, said = shell.run("empty-host.sh", there, "cell1", DRY_RUN="1")
        assert f"{name}: cmp1" in said
    nothing_left(server)


def test_the_morning_check_is_silent_when_all_is_well_and_mails_what_is_not(
    shell: Shell, tmp_path: Path
) -> None:
    mail = program(tmp_path / "mail", f'echo "$@" > {tmp_path}/sent; cat >> {tmp_path}/sent')
    sent = tmp_path / "sent"
    shell.run("check-every-morning.sh", "operators@example.net", MAIL=mail)
    # Other tests' servers may wait to be confirmed at this moment.
    assert not sent.exists() or "Out of order" not in sent.read_text()

    broken = {"CELLMOVE_NOVA_INSTANCES_PATH": "/nowhere", "MAIL": mail}
    code, _ = shell.run("check-every-morning.sh", "operators@example.net", **broken)
    assert code == 7
    subject, *text = sent.read_text().splitlines()
    assert subject.endswith("operators@example.net")
    assert text[0] == "Out of order:"
    assert any(": instances: /nowhere is not there" in line for line in text)
