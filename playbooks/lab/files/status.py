#!/usr/bin/python3
"""Is all of the lab well? Prints a table; exits 0 only when it is.

Runs on the machine as root: asks each host's supervisor for its daemons, and the APIs for computes
and agents.
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
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

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


def supervisor(host: str) -> Any:
    """The supervisor of one host, through its socket as this machine sees it."""
    socket = LAB / "run" / "supervisor-control.sock"
    if host != SERVICES:
        pid = (LAB / "run" / f"{host}.pid").read_text().strip()
        socket = Path(f"/proc/{pid}/root/run/supervisor.sock")
    transport = SupervisorTransport(None, None, f"unix://{socket}")
    return ServerProxy("http://localhost", transport=transport).supervisor


def daemons(host: str) -> list[Row]:
    """Each daemon of one host, as its supervisor says."""
    try:
        known = supervisor(host).getAllProcessInfo()
    except (OSError, Fault) as problem:
        return [Row(host, "supervisord", well=False, detail=str(problem))]
    return [
        Row(host, info["name"], info["statename"] == "RUNNING", info["description"])
        for info in known
    ]


def mend() -> list[str]:
    """Start the daemons that stopped; their names."""
    started = []
    for host in HOSTS:
        stopped = [row.name for row in daemons(host) if not row.well]
        if stopped and stopped != ["supervisord"]:
            supervisor(host).startAllProcesses()
            started += [f"{host} {name}" for name in stopped]
    return started


def members() -> list[Row]:
    """Each compute, conductor, scheduler and layer-2 agent, as the APIs see it."""
    answer = subprocess.run(
        [LAB / "bin" / "enter", SERVICES, "/usr/bin/python3", "-c", QUESTION],
        env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(LAB / "etc" / "clouds.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )
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
    parser.add_argument("--mend", action="store_true", help="start what stopped, and no more")
    options = parser.parse_args()
    if options.mend:
        sys.stdout.write("".join(f"started {name}\n" for name in mend()))
        return 0
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
