#!/usr/bin/python3
"""Is all of the lab well? Prints a table; exits 0 only when it is.

Runs on the machine as root: daemons are asked for at each supervisor, computes and agents at the
APIs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LAB = Path(__file__).resolve().parents[1]
HYPERVISORS = sorted(path.name.removeprefix("host-") for path in LAB.glob("etc/host-cmp*"))
SERVICES = "ctl"
HOSTS = (SERVICES, "bastion", *HYPERVISORS)
LOOK_AGAIN_SECONDS = 3
QUESTION = """
import json, openstack
lab = openstack.connect(cloud="lab")
services = lab.compute.get("/os-services", microversion="2.90").json()["services"]
rows = [(s["host"], s["binary"], s["state"] == "up", s["updated_at"]) for s in services]
rows += [(a.host, a.binary, a.is_alive, str(a.last_heartbeat_at)) for a in lab.network.agents()]
print(json.dumps(rows))
"""


@dataclass(frozen=True)
class Row:
    """One daemon, compute or agent."""

    host: str
    name: str
    well: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.host:8} {self.name:42} {'ok  ' if self.well else 'DOWN'} {self.detail}"


def enter(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command inside a lab host, whatever its exit code."""
    return subprocess.run(
        [LAB / "bin" / "enter", host, *argv],
        env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(LAB / "etc" / "clouds.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )


def daemons(host: str) -> list[Row]:
    """Each daemon of one host, as its supervisor says."""
    answer = enter(host, "supervisorctl", "status")
    words = [line.split(None, 2) for line in answer.stdout.splitlines()]
    known = [word for word in words if len(word) > 1 and word[1].isupper()]
    if not known:
        return [Row(host, "supervisord", well=False, detail=(answer.stderr or "no answer").strip())]
    return [
        Row(host, name.split(":")[-1], state == "RUNNING", " ".join([state, *rest]))
        for name, state, *rest in known
    ]


def members() -> list[Row]:
    """Each compute, conductor, scheduler and layer-2 agent, as the APIs see it."""
    answer = enter(SERVICES, "/usr/bin/python3", "-c", QUESTION)
    if answer.returncode:
        said = answer.stderr.strip().splitlines() or ["no answer"]
        return [Row(SERVICES, "APIs", well=False, detail=said[-1])]
    started = (LAB / "run" / "ctl.pid").stat().st_mtime
    rows = [
        Row(host, f"{name} (by the API)", up and seen_since(started, seen), f"last seen {seen}")
        for host, name, up, seen in json.loads(answer.stdout)
    ]
    there = {(row.host, row.name) for row in rows}
    for name in ("nova-compute (by the API)", "neutron-openvswitch-agent (by the API)"):
        missing = [host for host in HYPERVISORS if (host, name) not in there]
        rows += [Row(host, name, well=False, detail="never reported") for host in missing]
    return sorted(rows, key=lambda row: (HOSTS.index(row.host), row.name))


def seen_since(epoch: float, when: str | None) -> bool:
    """Rows kept from an earlier run say "up" for a minute: only a report of this run counts."""
    try:
        moment = datetime.fromisoformat(when or "")
    except ValueError:  # it has not reported yet
        return False
    return moment.replace(tzinfo=UTC).timestamp() > epoch - 1


def survey() -> list[Row]:
    """The whole table; without its services there is nobody to ask about the rest."""
    rows = [row for host in HOSTS for row in daemons(host)]
    if all(row.well for row in rows if row.host == SERVICES):
        rows += members()
    return rows


def main() -> int:
    """Look, again and again while there is time, and print the last look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait until all is well")
    parser.add_argument("--quiet", action="store_true", help="print only what is not well")
    options = parser.parse_args()
    deadline = time.monotonic() + options.wait
    rows = survey()
    while not all(row.well for row in rows) and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_SECONDS)
        rows = survey()
    well = all(row.well for row in rows)
    table = [str(row) for row in rows if not (options.quiet and row.well)]
    verdict = "the lab is well" if well else "the lab is not well: `make lab` mends it"
    sys.stdout.write("\n".join([*table, verdict, ""]))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
