"""How long the planning of a drain takes: a cell of 10,000 servers and 500 hypervisors.

Needs the lab (`make lab`) and root. Cells of nova 26's schema are made in databases of the
benchmark's own on the lab's MariaDB servers, filled, and dropped again. What is measured, in a
process of its own, is what `cellmove drain --cell` does before the first move: who is there and in
which order they leave, and every hypervisor of the other cell judged for every flavor among them.
The same is done with a tenth of the servers: statements must not grow with them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pymysql.cursors import Cursor

from cellmove.choosing import Multipliers, Wish, rank
from cellmove.cloud import Cloud
from cellmove.dbcopy.database import Database, Row
from cellmove.dbcopy.fleet import read_fleet
from cellmove.draining.scope import look, scope_of
from cellmove.draining.wishes import Wishes
from cellmove.intake.ranking import candidate_of
from cellmove.model import Flavor

ROOT = Path(__file__).resolve().parent.parent
CONDUCTOR = Path("/run/netns/cm-cond")
SERVERS = {"api": "10.98.0.30", "cell1": "10.98.0.31", "cell2": "10.98.0.32"}
SCHEMA = ROOT / "tests" / "schemas" / "cell-26.sql"
NAME = "cellmove_plan"
"""Of the databases, and of the account."""
API_TABLES = (
    *("cell_mappings", "host_mappings", "aggregates", "aggregate_hosts", "aggregate_metadata"),
)
CELLS = {
    "cell1": {"id": 2, "uuid": "11111111-0000-4000-8000-000000000000", "name": "old"},
    "cell2": {"id": 3, "uuid": "22222222-0000-4000-8000-000000000000", "name": "new"},
}
FLAVORS = 8
BORN = datetime.fromisoformat("2026-11-20T09:00:00")
BATCH = 1000


def flavor_of(number: int) -> dict[str, Any]:
    """One of the flavors, as nova's objects write it."""
    return {
        "id": number,
        "name": f"m{number}",
        "flavorid": str(number),
        "vcpus": number,
        "memory_mb": 512 * number,
        "root_gb": 10 * number,
        "ephemeral_gb": 0,
        "swap": 0,
        "rxtx_factor": 1.0,
        "vcpu_weight": 0,
        "disabled": False,
        "is_public": True,
        "extra_specs": {},
        "created_at": None,
        "updated_at": None,
    }


def hosts_of(cell: str, count: int) -> Iterator[tuple[str, list[Row]]]:
    """The hypervisors' rows in their cell."""
    names = [f"{cell}-{number:04}" for number in range(count)]
    node = {
        "vcpus": 64,
        "memory_mb": 2**18,
        "local_gb": 4000,
        "vcpus_used": 8,
        "memory_mb_used": 2**15,
        "local_gb_used": 400,
        "free_ram_mb": 2**17,
        "free_disk_gb": 3000,
        "disk_available_least": 2900,
        "hypervisor_type": "QEMU",
        "hypervisor_version": 7002000,
        "cpu_info": "{}",
        "host_ip": "192.0.2.1",
        "stats": "{}",
        "supported_instances": '[["x86_64", "qemu", "hvm"]]',
        "cpu_allocation_ratio": 4.0,
    }
    nodes = [
        node | {"uuid": str(uuid.uuid4()), "host": name, "hypervisor_hostname": name}
        for name in names
    ]
    yield "compute_nodes", nodes
    service = {"binary": "nova-compute", "topic": "compute", "version": 66, "report_count": 1}
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    service |= {"disabled": 0, "forced_down": 0, "last_seen_up": now}
    yield "services", [service | {"uuid": str(uuid.uuid4()), "host": name} for name in names]


def servers_of(cell: str, begin: int, count: int, hosts: int) -> Iterator[tuple[str, list[Row]]]:
    """Servers' rows as far as planning could look at them."""
    numbers = range(begin, begin + count)
    ids = {number: str(uuid.uuid4()) for number in numbers}
    who = {"user_id": secrets.token_hex(16), "project_id": secrets.token_hex(16)}
    state = {"vm_state": "active", "power_state": 1, "hidden": 0, "locked": 0}
    made = {"created_at": BORN, "launched_at": BORN, "availability_zone": "nova"}
    sizes = [flavor_of(number % FLAVORS + 1) for number in numbers]
    yield (
        "instances",
        [
            {
                "uuid": ids[number],
                "display_name": f"web-{number}",
                "host": f"{cell}-{number % hosts:04}",
                "node": f"{cell}-{number % hosts:04}",
                "memory_mb": size["memory_mb"],
                "vcpus": size["vcpus"],
                "root_gb": size["root_gb"],
                "ephemeral_gb": 0,
                "instance_type_id": size["id"],
            }
            | who
            | state
            | made
            for number, size in zip(numbers, sizes, strict=True)
        ],
    )
    whole = {"nova_object.name": "Flavor", "nova_object.version": "1.2"}
    kept = [{"cur": whole | {"nova_object.data": s}, "old": None, "new": None} for s in sizes]
    flavors = dict(zip(numbers, map(json.dumps, kept), strict=True))
    owned = [{"instance_uuid": ids[number], "created_at": BORN} for number in numbers]
    extra = [own | {"flavor": flavors[number]} for own, number in zip(owned, numbers, strict=True)]
    yield "instance_extra", extra
    local = {"source_type": "image", "destination_type": "local", "boot_index": 0}
    yield "block_device_mapping", [own | local | {"uuid": str(uuid.uuid4())} for own in owned]
    yield "tags", [{"resource_id": ids[number], "tag": f"rack-{number % 40}"} for number in numbers]


def fill(urls: dict[str, str], servers: int, hosts: int) -> None:
    """Both cells' hypervisors, and the old one's servers."""
    with opened(urls) as (api, cells):
        with api.write() as rows:
            rows.insert("cell_mappings", [each | {"disabled": 0} for each in CELLS.values()])
            for cell, each in CELLS.items():
                names = [f"{cell}-{number:04}" for number in range(hosts)]
                mapped = [{"host": name, "cell_id": each["id"]} for name in names]
                rows.insert("host_mappings", mapped)
        for cell, database in cells.items():
            with database.write() as rows:
                for table, values in hosts_of(cell, hosts):
                    rows.insert(table, values)
        for begin in range(0, servers, BATCH):
            with cells["cell1"].write() as rows:
                many = min(BATCH, servers - begin)
                for table, values in servers_of("cell1", begin, many, hosts):
                    rows.insert(table, values, ids=False)


def planned(urls: dict[str, str]) -> dict[str, Any]:
    """One planning: what it saw, asked, took and held."""
    with opened(urls) as (api, cells), counted() as sent:
        databases = {str(CELLS[name]["uuid"]): each for name, each in cells.items()}
        cloud = cast("Cloud", SimpleNamespace(api=api, cells=databases))
        began = time.perf_counter()
        wishes = Wishes(cell="old", to_cell="new")
        scope = scope_of(cloud, wishes)
        found = look(cloud, scope, wishes, ())
        fleet = [candidate_of(each) for each in read_fleet(api, databases, (scope.to_cell,))]
        roomy = frozenset(each.host.provider for each in fleet)
        here = replace(fleet[0].host, name="cell1-0000", cell=scope.cell)
        fit = 0
        for name in {each.flavor for each in found.wanted}:
            data = flavor_of(int(name[1:]))
            data["swap_mb"] = data.pop("swap")
            wish = Wish(Flavor(**data), here, "p", roomy=roomy, cells=(scope.to_cell,))
            fit += len(rank(fleet, wish, Multipliers()).fit)
        seconds = time.perf_counter() - began
    return {
        "servers": len(found.wanted),
        "hosts": len(fleet),
        "judged": fit,
        "statements": len(sent),
        "seconds": round(seconds, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements sent to any database while the block runs; several may go together."""
    sent: list[str] = []
    patched: Any = Cursor
    real = Cursor.execute

    def noting(cursor: Cursor, query: str, *more: Any) -> int:
        sent.append(query)
        return real(cursor, query, *more)

    patched.execute = noting
    yield sent
    patched.execute = real


@contextmanager
def opened(urls: dict[str, str]) -> Iterator[tuple[Database, dict[str, Database]]]:
    """The API database and the cells', as cellmove opens them."""
    with ExitStack() as stack:
        found = {name: Database(url, name=name) for name, url in urls.items()}
        for each in found.values():
            stack.callback(each.close)
        yield found.pop("api"), found


def root_sql(server: str, text: str, database: str = "") -> None:
    """Statements as root of this MariaDB."""
    argv = [str(ROOT / "lab" / "sql"), server, *([database] if database else [])]
    subprocess.run(argv, check=True, input=text, text=True)


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Databases of our own on each server, with nova 26's schema and an account; their URLs."""
    password = secrets.token_hex(12)
    like = "; ".join(f"CREATE TABLE {name} LIKE nova_api.{name}" for name in API_TABLES)
    try:
        for server in SERVERS:
            root_sql(server, f"DROP DATABASE IF EXISTS {NAME}; CREATE DATABASE {NAME}")
            root_sql(server, f"CREATE OR REPLACE USER {NAME} IDENTIFIED BY '{password}'")
            root_sql(server, f"GRANT ALL ON {NAME}.* TO {NAME}")
            root_sql(server, like if server == "api" else SCHEMA.read_text(), NAME)
        account = f"mysql+pymysql://{NAME}:{password}"
        yield {name: f"{account}@{host}:3306/{NAME}?charset=utf8" for name, host in SERVERS.items()}
    finally:
        for server in SERVERS:
            root_sql(server, f"DROP DATABASE IF EXISTS {NAME}; DROP USER IF EXISTS {NAME}")


def measured(servers: int, hosts: int) -> dict[str, Any]:
    """Fill, and plan in a fresh process; the URLs hold a password, so they go by a pipe."""
    with databases() as urls:
        fill(urls, servers, hosts)
        argv = [sys.executable, __file__, "--child"]
        done = subprocess.run(
            argv, check=True, input=json.dumps(urls), stdout=subprocess.PIPE, text=True
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--servers", type=int, default=10_000, help="default 10000")
    parser.add_argument("--hosts", type=int, default=500, help="of each cell (default 500)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(planned(json.load(sys.stdin))))
        return
    if not CONDUCTOR.exists():
        sys.exit("The lab is not up: run `make lab` first.")
    if Path("/proc/self/ns/net").stat().st_ino != CONDUCTOR.stat().st_ino:
        # Where cellmove runs, and whence the databases are reached.
        enter = ["/usr/bin/nsenter", f"--net={CONDUCTOR}", sys.executable, __file__, *argv]
        os.execv(enter[0], enter)  # noqa: S606 -- there is no shell to be wanted
    small = measured(options.servers // 10, options.hosts)
    found = {"benchmark": "plan"} | measured(options.servers, options.hosts)
    found["statements_of_a_tenth"] = small["statements"]
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['servers']} servers, {found['hosts']} hypervisors to choose from: "
        f"{found['seconds']} s, {found['statements']} statements ({small['statements']} for "
        f"{small['servers']} servers), {found['peak_rss_mb']} MB at most"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
