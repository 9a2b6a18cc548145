"""How fast a server's records are copied into another cell, beside nova's own TargetDBSetupTask.

Needs the lab (`make lab`) and root. Both copy the same server (10 volumes, 5 interfaces, 20 tags,
100 image properties, 300 actions of 3 events, 5 migrations) between the same two MariaDB servers in
the same run, from one warm process each; the fastest of their rounds counts. Ours is the step
CopyRecords: read, write, and read again and compare, in one transaction. Then both once more with a
delay added to every round trip, and ours over 2,000 servers in a row.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import multiprocessing
import os
import re
import resource
import secrets
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa

from cellmove.dbcopy.copy import delete_records, read_records
from cellmove.dbcopy.database import Database, Row
from cellmove.dbcopy.tables import COPIED
from cellmove.steps.target_cell import CopyRecords

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "tests" / "schemas" / "cell-26.sql"
SHADOWS = re.compile(r"^CREATE TABLE `shadow_.*?;\n", re.MULTILINE | re.DOTALL)
"""Neither side looks at them."""
NOVA = ROOT / "benchmarks" / "nova" / "copy_records.py"
CONDUCTOR = Path("/run/netns/cm-cond")
SERVERS = {"cell1": "10.98.0.31", "cell2": "10.98.0.32"}
NAME = "cellmove_bench"
"""Of the databases, and of the account."""
DELAY_SECONDS = 0.005
BORN = datetime.datetime.fromisoformat("2026-11-20T09:00:00")


@dataclass(frozen=True)
class Size:
    """How many rows a server has."""

    volumes: int = 10
    interfaces: int = 5
    tags: int = 20
    properties: int = 100
    actions: int = 300
    events: int = 3
    migrations: int = 5


BULKY = Size()
ORDINARY = Size(2, 1, 2, 30, 5, 3, 1)


@dataclass(frozen=True)
class Server:
    """A server in the source cell, as far as the step that copies it must know it."""

    server: str
    migration: str


@dataclass(frozen=True)
class Way:
    """Both databases, and how they are reached."""

    source: str
    target: str
    trips: Synchronized[int] | None = None

    @contextmanager
    def opened(self) -> Iterator[tuple[Database, Database]]:
        """Both as cellmove opens them."""
        source, target = Database(self.source, name="source"), Database(self.target, name="target")
        try:
            yield source, target
        finally:
            source.close()
            target.close()


def rows_of(server: Server, size: Size) -> Iterator[tuple[str, list[Row]]]:
    """Table by table what nova 26 would have written of such a server."""
    times = {"created_at": BORN, "updated_at": BORN}
    owned = {"instance_uuid": server.server, **times}
    flavor = {
        "nova_object.name": "Flavor",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.2",
        "nova_object.data": {
            "id": 1,
            "name": "m1",
            "flavorid": "1",
            "memory_mb": 512,
            "vcpus": 1,
            "root_gb": 1,
            "ephemeral_gb": 0,
            "swap": 0,
            "rxtx_factor": 1.0,
            "vcpu_weight": 0,
            "disabled": False,
            "is_public": True,
            "extra_specs": {},
            "description": None,
            "created_at": None,
            "updated_at": None,
            "deleted_at": None,
            "deleted": False,
        },
    }
    who = {"user_id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "project_id": "9a1b2c3d4e5f60718293"}
    host = {"host": "cmp1a", "node": "cmp1a"}
    names = {"hostname": "web-1", "display_name": "web-1", "display_description": "web-1"}
    sizes = {"memory_mb": 512, "vcpus": 1, "root_gb": 1, "ephemeral_gb": 0, "instance_type_id": 1}
    state = {"vm_state": "active", "task_state": "resize_prep", "power_state": 1, "progress": 0}
    flags = {"locked": 0, "hidden": 0, "cleaned": 0, "launch_index": 0, "disable_terminate": 0}
    rest = {"launched_at": BORN, "reservation_id": "r-abcd1234", "availability_zone": "nova"}
    yield (
        "instances",
        [
            {
                "uuid": server.server,
                **times,
                **who,
                **host,
                **names,
                **sizes,
                **state,
                **flags,
                **rest,
            }
        ],
    )
    flavors = json.dumps({"cur": flavor, "old": None, "new": None})
    yield "instance_extra", [owned | {"flavor": flavors, "pci_requests": "[]"}]
    yield "instance_info_caches", [owned | {"network_info": "[]"}]
    properties = [owned | {"key": f"image_p{n}", "value": f"v{n}"} for n in range(size.properties)]
    yield "instance_system_metadata", properties
    kind = {"source_type": "volume", "destination_type": "volume", "device_type": "disk"}
    info = json.dumps({"driver_volume_type": "nfs", "data": {"export": "10.0.0.1:/v", "name": "x"}})
    volumes = [
        owned | kind | {"uuid": new(), "volume_id": new(), "boot_index": n, "connection_info": info}
        for n in range(size.volumes)
    ]
    yield "block_device_mapping", [each | {"attachment_id": new()} for each in volumes]
    ports = [new() for _ in range(size.interfaces)]
    yield (
        "virtual_interfaces",
        [
            owned | {"uuid": port, "address": f"fa:16:3e:{port[:2]}:{port[2:4]}:{port[4:6]}/{port}"}
            for port in ports
        ],
    )
    yield "tags", [{"resource_id": server.server, "tag": f"tag-{n}"} for n in range(size.tags)]
    yield "instance_id_mappings", [{"uuid": server.server, **times}]
    migration = {
        "source_compute": "cmp1a",
        "source_node": "cmp1a",
        "dest_compute": "cmp1b",
        "status": "confirmed",
        "migration_type": "resize",
        "hidden": 0,
        "cross_cell_move": 0,
        "old_instance_type_id": 1,
        "new_instance_type_id": 2,
    }
    uuids = [server.migration, *(new() for _ in range(size.migrations - 1))]
    yield "migrations", [owned | migration | who | {"uuid": each} for each in uuids]


def new() -> str:
    """A uuid."""
    return str(uuid.uuid4())


def make(source: Database, size: Size) -> Server:
    """Write a server of this size into the source cell."""
    server = Server(new(), new())
    with source.write() as rows:
        for table, values in rows_of(server, size):
            rows.insert(table, values)
        who = {"user_id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "project_id": "9a1b2c3d4e5f60718293"}
        actions = [
            {
                "instance_uuid": server.server,
                "action": "reboot",
                "request_id": f"req-{new()}",
                **who,
            }
            | {"created_at": BORN + datetime.timedelta(minutes=n), "start_time": BORN}
            for n in range(size.actions)
        ]
        done = {"result": "Success", "start_time": BORN, "finish_time": BORN, "host": "cmp1a"}
        events = [
            {"action_id": id_, "event": f"compute_event_{n}", "created_at": BORN, **done}
            for id_ in rows.insert("instance_actions", actions)
            for n in range(size.events)
        ]
        rows.insert("instance_actions_events", events)
    return server


def copied(server: Server, source: Database, target: Database) -> float:
    """Seconds that the step takes."""
    cloud = SimpleNamespace(source=lambda _: source, target=lambda _: target)
    step = CopyRecords(cast("Any", server))
    began = time.perf_counter()
    step.execute(cast("Any", cloud))
    return time.perf_counter() - began


def ours(way: Way, server: Server, rounds: int) -> dict[str, Any]:
    """Seconds of the first copy, with connecting and looking at the schema, and of the fastest."""
    with way.opened() as (source, target):
        taken, trips = [], 0
        for _ in range(rounds + 1):
            before = way.trips.value if way.trips else 0
            taken.append(copied(server, source, target))
            trips = way.trips.value - before if way.trips else 0
            with target.write() as rows:
                delete_records(rows, server.server)
        return {
            "first_seconds": round(taken[0], 4),
            "seconds": round(min(taken[1:]), 4),
            "round_trips": trips,
        }


def novas(way: Way, server: Server, rounds: int) -> dict[str, Any]:
    """Seconds of nova's fastest copy."""
    before = way.trips.value if way.trips else 0
    # The URLs hold a password: they do not go on the command line.
    wanted = {"server": server.server, "migration": server.migration, "rounds": rounds}
    wanted |= {"source": way.source, "target": way.target}
    argv = ["/usr/bin/python3", str(NOVA)]
    done = subprocess.run(
        argv, check=False, input=json.dumps(wanted), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"nova's own copy failed: {done.stderr[-2000:]}")
    trips = way.trips.value - before if way.trips else 0
    return {"seconds": round(min(json.loads(done.stdout)), 4), "round_trips": trips}


def in_a_row(way: Way, count: int) -> dict[str, Any]:
    """Ours over many servers: seconds a server at the start and at the end, and memory."""
    with way.opened() as (source, target):
        servers = [make(source, ORDINARY) for _ in range(count)]
        taken: list[float] = []
        kept: list[int] = []
        for server in servers:
            taken.append(copied(server, source, target))
            kept.append(memory_kib())
        tenth = max(1, count // 10)
        return {
            "servers": count,
            "first_tenth_seconds": round(statistics.median(taken[:tenth]), 5),
            "last_tenth_seconds": round(statistics.median(taken[-tenth:]), 5),
            "memory_kib_after_first_tenth": kept[tenth - 1],
            "memory_kib_at_the_end": kept[-1],
        }


def memory_kib() -> int:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def forward(upstream: str, port: Any, delay_seconds: float, trips: Synchronized[int]) -> None:
    """Be a MariaDB server that is far away: each turn from question to answer is one round trip."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(upstream, 3306)
        turn = {"asks": False}

        async def ask() -> None:
            while data := await reader.read(2**20):
                if not turn["asks"]:
                    turn["asks"] = True
                    with trips.get_lock():
                        trips.value += 1
                    await asyncio.sleep(delay_seconds)
                to_writer.write(data)
            to_writer.close()

        async def answer() -> None:
            while data := await to_reader.read(2**20):
                turn["asks"] = False
                writer.write(data)
            writer.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)

    async def listen() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(listen())


@contextmanager
def far_away(near: Way, delay_seconds: float) -> Iterator[Way]:
    """The same databases, each round trip this much longer, and counted."""
    trips = cast("Synchronized[int]", multiprocessing.Value("i", 0))
    ends, urls = [], []
    for url in map(sa.make_url, (near.source, near.target)):
        port = multiprocessing.Value("i", 0)
        end = multiprocessing.Process(
            target=forward, args=(url.host, port, delay_seconds, trips), daemon=True
        )
        end.start()
        ends.append(end)
        while not port.value and end.is_alive():
            time.sleep(0.01)
        far = url.set(host="127.0.0.1", port=port.value)
        urls.append(far.render_as_string(hide_password=False))
    try:
        yield Way(urls[0], urls[1], trips)
    finally:
        for end in ends:
            end.terminate()
            end.join()


def root_sql(cell: str, text: str, database: str = "") -> None:
    """Statements as root of this cell's MariaDB."""
    argv = [str(ROOT / "lab" / "sql"), cell, *([database] if database else [])]
    subprocess.run(argv, check=True, input=text, text=True)


@contextmanager
def databases() -> Iterator[Way]:
    """A database of our own on each cell's server, with nova 26's schema and an account."""
    password = secrets.token_hex(12)
    try:
        for cell in SERVERS:
            root_sql(
                cell, f"DROP DATABASE IF EXISTS {NAME}; CREATE DATABASE {NAME} CHARSET utf8mb3"
            )
            root_sql(cell, f"CREATE OR REPLACE USER {NAME} IDENTIFIED BY '{password}'")
            root_sql(cell, f"GRANT ALL ON {NAME}.* TO {NAME}")
            root_sql(cell, SHADOWS.sub("", SCHEMA.read_text()), NAME)
        account = f"mysql+pymysql://{NAME}:{password}"
        urls = [f"{account}@{host}:3306/{NAME}?charset=utf8" for host in SERVERS.values()]
        yield Way(urls[0], urls[1])
    finally:
        for cell in SERVERS:
            root_sql(cell, f"DROP DATABASE IF EXISTS {NAME}; DROP USER IF EXISTS {NAME}")


def measure(rounds: int, nova_rounds: int, servers: int) -> dict[str, Any]:
    """Everything."""
    with databases() as near:
        with near.opened() as (source, _):
            server = make(source, BULKY)
            with source.read() as rows:
                found = read_records(rows, server.server)
        loopback = {
            "cellmove": ours(near, server, rounds),
            "nova": novas(near, server, nova_rounds),
        }
        with far_away(near, DELAY_SECONDS) as far:
            slow = {"cellmove": ours(far, server, rounds), "nova": novas(far, server, 1)}
        row = in_a_row(near, servers) if servers else {}
    del loopback["cellmove"]["round_trips"], loopback["nova"]["round_trips"]
    return {
        "benchmark": "records",
        "ratios": {
            "loopback": _ratio(loopback),
            "rtt5ms": _ratio(slow),
        },
        "round_trips": slow["cellmove"]["round_trips"],
        "tables": len(COPIED),
        "rows": sum(len(each) for each in found.tables.values()),
        "loopback": loopback,
        "rtt5ms": slow,
        "in_a_row": row,
    }


def _ratio(pair: dict[str, dict[str, Any]]) -> float:
    ratio: float = pair["nova"]["seconds"] / pair["cellmove"]["seconds"]
    return round(ratio, 1)


def shown(found: dict[str, Any]) -> str:
    """A table for people."""
    lines = [
        f"{found['rows']} rows, {found['tables']} tables, {found['round_trips']} round trips",
        f"{'':<24}{'cellmove':>12}{'nova':>12}{'ratio':>9}",
    ]
    for name, label in (("loopback", "loopback"), ("rtt5ms", "5 ms a round trip")):
        pair = found[name]
        times = [f"{pair[each]['seconds'] * 1000:>9.0f} ms" for each in ("cellmove", "nova")]
        lines.append(f"{label:<24}{times[0]}{times[1]}{found['ratios'][name]:>8.0f}x")
    far = found["rtt5ms"]
    counts = (far["cellmove"]["round_trips"], far["nova"]["round_trips"])
    lines.append(f"{'round trips':<24}{counts[0]:>12}{counts[1]:>12}")
    first = found["loopback"]["cellmove"]["first_seconds"]
    lines.append(
        f"The first copy of a process, connecting and schema included: {first * 1000:.0f} ms"
    )
    if row := found["in_a_row"]:
        lines.append(
            f"{row['servers']} ordinary servers in a row: "
            f"{row['first_tenth_seconds'] * 1000:.1f} ms each in the first tenth, "
            f"{row['last_tenth_seconds'] * 1000:.1f} ms in the last; "
            f"{row['memory_kib_after_first_tenth'] / 1024:.0f} MiB after the first tenth, "
            f"{row['memory_kib_at_the_end'] / 1024:.0f} MiB at the end"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=10, help="copies of ours (default 10)")
    parser.add_argument("--nova-rounds", type=int, default=3, help="nova's, loopback (default 3)")
    parser.add_argument(
        "--servers", type=int, default=2000, help="in a row (default 2000; 0: none)"
    )
    options = parser.parse_args(argv)
    if not CONDUCTOR.exists():
        sys.exit("The lab is not up: run `make lab` first.")
    if Path("/proc/self/ns/net").stat().st_ino != CONDUCTOR.stat().st_ino:
        # Where cellmove runs, and whence the databases are reached.
        enter = ["/usr/bin/nsenter", f"--net={CONDUCTOR}", sys.executable, __file__, *argv]
        os.execv(enter[0], enter)  # noqa: S606 -- there is no shell to be wanted
    found = measure(options.rounds, options.nova_rounds, options.servers)
    print(json.dumps(found) if options.json else shown(found))


if __name__ == "__main__":
    main(sys.argv[1:])
