"""`make lab` on a running lab: it mends what stopped, and otherwise changes nothing."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.lab.inside import HYPERVISORS, OUTPUTS, inside

pytestmark = [pytest.mark.lab, pytest.mark.alone]

STATUS = "/var/lib/cellmove-lab/bin/status.py"
PLACES = ("ctl", "bastion", *HYPERVISORS)
OTHERS = ("lab-bastion", *HYPERVISORS, "db-api", "db-cell1", "db-cell2")


def make_lab() -> dict[str, int]:
    """Run it; how many things it says to have changed, by host."""
    done = subprocess.run(
        ["make", "lab"], cwd=OUTPUTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    recap = re.findall(r"^(\S+) +: .* changed=(\d+) ", done.stdout, re.MULTILINE)
    return {host: int(changes) for host, changes in recap}


def processes() -> dict[tuple[str, str], str]:
    """The process id of each daemon of the lab."""
    lines = {name: inside(name).run("supervisorctl status").stdout for name in PLACES}
    rows = [(name, line.split()) for name in PLACES for line in lines[name].splitlines()]
    return {(name, row[0]): row[3] for name, row in rows if row[1] == "RUNNING"}


def test_make_lab_starts_what_stopped_and_changes_nothing_else() -> None:
    before = processes()
    inside("ctl").check_output("supervisorctl stop heartbeat-monitor")

    status = subprocess.run([STATUS, "--quiet"], capture_output=True, text=True, check=False)
    assert status.returncode == 1
    assert re.search(r"^ctl +heartbeat-monitor +DOWN", status.stdout, re.MULTILINE)

    assert make_lab() == {"machine": 1} | dict.fromkeys(OTHERS, 0)
    after = processes()
    monitor = ("ctl", "heartbeat-monitor")
    assert after.keys() == before.keys()
    assert {daemon for daemon in before if after[daemon] != before[daemon]} == {monitor}
