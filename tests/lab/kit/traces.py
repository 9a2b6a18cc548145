"""What is there: every trace of one server, and everything at all for "it changed nothing"."""

from __future__ import annotations

import base64
import datetime
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.kit.guest import INSTANCES
from tests.lab.kit.places import HYPERVISORS, STATE, host_run, sql

CELLS = {"cell1": "nova_cell1", "cell2": "nova_cell2"}
"""Server of the lab -> its schema."""
SCHEMAS = [*CELLS.items(), *(("api", name) for name in ("nova_api", "neutron", "placement"))]
RESERVED_MIB = 512
"""What nova-compute counts for the host itself (`reserved_host_memory_mb`)."""
OF_THE_SERVICES = {
    "services",
    "compute_nodes",
    "agents",
    "inventories",
    "resource_providers",
    "instance_info_caches",
}
"""Tables that the services write by themselves all the time: heartbeats, what hosts have, and the
network cache, which nova-compute fetches anew whenever Neutron says a word and once a minute."""
QUIET_SECONDS = 8
SETTLING_SECONDS = 120
AUDITED = "GET /resource_providers/{provider}/allocations"
"""What nova-compute asks Placement whenever it counts what its servers take: once a minute, and
when it builds or deletes one (nova 26: compute/resource_tracker.py:_update_to_placement)."""
RECORDED_SECONDS = 5
"""From that question until the count has been written, and more."""


def columns(server: str, schema: str) -> dict[str, list[str]]:
    """Table -> its columns."""
    found: dict[str, list[str]] = {}
    query = (
        "SELECT table_name, column_name FROM information_schema.columns"
        f" WHERE table_schema = '{schema}' ORDER BY table_name, ordinal_position"
    )
    for table, column in sql(server, query):
        found.setdefault(table, []).append(column)
    return found


def rows(database: str, table: str, where: str = "TRUE") -> list[dict[str, Any]]:
    """Rows of one table, e.g. `rows("cell1.nova_cell1", "instances", "uuid = '...'")`."""
    server, _, schema = database.partition(".")
    pairs = ", ".join(f"'{name}', `{name}`" for name in columns(server, schema)[table])
    query = f"SELECT TO_BASE64(JSON_OBJECT({pairs})) FROM `{table}` WHERE {where}"
    return [json.loads(_plain(line)) for (line,) in sql(database, query)]


def dump_databases() -> dict[str, str]:
    """`schema.table` -> count and checksum of its rows, less what services write by themselves."""
    found = {}
    for server, schema in SCHEMAS:
        parts = [
            f"SELECT '{table}', COUNT(*), SUM({_checksum(names)}) FROM `{table}`"
            for table, names in columns(server, schema).items()
            if table not in OF_THE_SERVICES
        ]
        for table, count, checksum in sql(f"{server}.{schema}", " UNION ALL ".join(parts)):
            found[f"{schema}.{table}"] = f"{count} rows, {checksum}"
    return found


def settled(look: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What is there once nova has stopped writing: two looks some time apart that agree.

    nova's API says a server is stopped before Neutron's last word on its port is in the cache.
    """
    deadline = time.monotonic() + SETTLING_SECONDS
    before = look()
    while True:
        time.sleep(QUIET_SECONDS)
        after = look()
        if after == before:
            return after
        if time.monotonic() > deadline:
            changed = [name for name in before | after if before.get(name) != after.get(name)]
            pytest.fail(f"nova does not come to rest: it writes {changed}")
        before = after


def dump_hosts() -> dict[str, str]:
    """What a hypervisor has of servers: files and their owners, guests, ports of the bridge.

    Without what nova-compute writes when the cleaning of its image cache has its turn.
    """
    but = ["(", "-name", "locks", "-o", "-name", "compute_nodes", ")", "-prune", "-o"]
    printed = ["-printf", r"%p %y %m %u:%g\n"]
    questions = {
        "files": ["find", str(INSTANCES), "/var/lib/cellmove", *but, *printed],
        "guests": ["virsh", "list", "--all", "--uuid", "--name"],
        "ports": ["ovs-vsctl", "list-ports", "br-int"],
    }
    return {
        f"{host} {what}": "\n".join(sorted(host_run(host, argv).splitlines()))
        for host in HYPERVISORS
        for what, argv in questions.items()
    }


def traces(server: str) -> list[str]:
    """Every trace that a deleted server must not leave, in words.

    nova marks the rows of a deleted server as deleted and keeps them until they are archived, in
    the cell where it was; such rows are no trace. In another cell not one row may be left.
    """
    return [
        *_rows_left(server),
        *(f"Neutron has port {port} bound at {host}" for port, host in _bindings(server)),
        *(f"Cinder has volume {volume} {status}" for volume, status in _volumes(server)),
        *(f"Placement has allocations of {consumer}" for consumer in _consumers(server)),
        *(trace for host in HYPERVISORS for trace in _traces_on(host, server)),
    ]


def content(host: str, server: str) -> str:
    """SHA-256 of every file in a server's directory on this host."""
    argv = ["find", str(INSTANCES / server), "-type", "f", "-exec", "sha256sum", "{}", "+"]
    return host_run(host, argv)


def wait_counted(cell: str, host: str, since: float, timeout_seconds: float = 150) -> None:
    """Wait until nova-compute of this host has counted its servers since then, and rightly.

    It writes only what has changed, so `updated_at` tells nothing; Placement's log tells when it
    counts. What it has seen may be a little older than what it asks there. Nothing may be built
    or deleted on the host meanwhile: nova-compute asks the same then.
    """
    deadline = time.monotonic() + timeout_seconds
    while _audited_at(cell, host) < since + RECORDED_SECONDS:
        if time.monotonic() > deadline:
            pytest.fail(f"nova-compute on {host} has not counted its servers")
        time.sleep(1)
    time.sleep(RECORDED_SECONDS)
    while True:
        taken, counted = usage(cell, host)
        if taken == counted:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"servers take {taken} on {host}, nova-compute counts {counted}")
        time.sleep(1)


def _audited_at(cell: str, host: str) -> float:
    """When nova-compute of this host last counted: epoch seconds; 0 when it never has."""
    query = f"SELECT uuid, host_ip FROM compute_nodes WHERE host = '{host}' AND deleted = 0"
    ((provider, address),) = sql(f"{cell}.{CELLS[cell]}", query)
    asked = f'{address} "{AUDITED.format(provider=provider)}"'
    with (STATE / "log" / "placement.log").open(errors="replace") as log:
        found = [line for line in log if asked in line]
    if not found:
        return 0.0
    return datetime.datetime.fromisoformat(found[-1][:23]).timestamp()


def usage(cell: str, host: str) -> tuple[list[int], list[int]]:
    """MiB of memory, VCPUs and GB of disk that a host's servers take by their rows, and by nova."""
    database = f"{cell}.{CELLS[cell]}"
    taken = (
        f"SELECT {RESERVED_MIB} + IFNULL(SUM(memory_mb), 0), IFNULL(SUM(vcpus), 0),"
        " IFNULL(SUM(root_gb + ephemeral_gb), 0)"
        f" FROM instances WHERE host = '{host}' AND deleted = 0"
    )
    counted = (
        f"SELECT memory_mb_used, vcpus_used, local_gb_used FROM compute_nodes WHERE host = '{host}'"
    )
    by_rows, by_nova = ([int(n) for n in sql(database, q)[0]] for q in (taken, counted))
    return by_rows, by_nova


def nothing_left(server: str) -> None:
    """Fail the test when a deleted server has left anything anywhere."""
    left = traces(server)
    assert not left, f"deleted server {server} left: {'; '.join(left)}"


def _plain(encoded: str) -> bytes:
    """A JSON text that came through the mariadb client, which breaks base64 into lines."""
    return base64.b64decode(encoded.replace("\\n", ""))


def _checksum(names: list[str]) -> str:
    """SQL of a number that changes with any byte of a row, and does not depend on their order."""
    row = ", ".join(f"QUOTE(`{name}`)" for name in names)
    return f"CAST(CONV(LEFT(MD5(CONCAT_WS(0x1f, {row})), 15), 16, 10) AS UNSIGNED)"


def _rows_left(server: str) -> list[str]:
    left = []
    for cell, schema in CELLS.items():
        instance = sql(f"{cell}.{schema}", f"SELECT deleted FROM instances WHERE uuid = '{server}'")
        if instance:
            left += [f"{cell} has a living row" for (deleted,) in instance if deleted == "0"]
            continue
        parts = [
            f"SELECT '{table}', COUNT(*) FROM `{table}` WHERE instance_uuid = '{server}'"
            for table, names in columns(cell, schema).items()
            if "instance_uuid" in names
        ]
        for table, count in sql(f"{cell}.{schema}", " UNION ALL ".join(parts)):
            left += [f"{cell} has {count} rows in {table}"] * (count != "0")
    return left


def _bindings(server: str) -> list[list[str]]:
    return sql(
        "api.neutron",
        "SELECT id, host FROM ports LEFT JOIN ml2_port_bindings ON port_id = id"
        f" WHERE device_id = '{server}' ORDER BY id, host",
    )


def _volumes(server: str) -> list[list[str]]:
    return sql(
        "api.cinder",
        "SELECT volume_id, attach_status FROM volume_attachment"
        f" WHERE instance_uuid = '{server}' AND deleted = 0 ORDER BY volume_id, attach_status",
    )


def _consumers(server: str) -> list[str]:
    """Of the server and of its migrations."""
    query = f"SELECT uuid FROM migrations WHERE instance_uuid = '{server}'"
    migrations = [uuid for cell, name in CELLS.items() for (uuid,) in sql(f"{cell}.{name}", query)]
    names = ", ".join(f"'{name}'" for name in {server, *migrations})
    query = (
        f"SELECT consumer_id FROM allocations WHERE consumer_id IN ({names})"
        f" UNION SELECT uuid FROM consumers WHERE uuid IN ({names})"
    )
    return [consumer for (consumer,) in sql("api.placement", query)]


def _traces_on(host: str, server: str) -> list[str]:
    pattern = f"{server}*"
    questions = {
        "files": ["find", str(INSTANCES), "-maxdepth", "1", "-name", pattern],
        "files of cellmove": ["find", "/var/lib/cellmove", "-name", f"*{pattern}"],
        "an OVS port": ["ovs-vsctl", "--bare", "--columns=name", "find", "Interface",
                        f"external_ids:vm-uuid={server}"],
    }  # fmt: skip
    left = [
        f"{host} has {what}" for what, argv in questions.items() if host_run(host, argv).strip()
    ]
    if server in host_run(host, ["virsh", "list", "--all", "--uuid"]):
        left.append(f"{host} has the guest")
    return left
