"""Every hypervisor of some cells at once: a few statements a cell, however many hosts it has."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellmove.dbcopy.api import DEFAULT_ZONE, Service, service_of
from cellmove.dbcopy.database import Database, Row
from cellmove.model import Cell, Host

CPU_RATIO = 16.0
"""nova's `initial_cpu_allocation_ratio` of old: what counts while a node has none of its own."""


@dataclass(frozen=True, slots=True)
class Member:
    """A hypervisor with all that the databases say of it."""

    host: Host
    service: Service | None
    node: Row
    """Its row in `compute_nodes`."""
    aggregates: tuple[tuple[str, Mapping[str, str]], ...] = field(default=())
    """Name and metadata of each aggregate that has it, oldest first."""

    @property
    def supports(self) -> tuple[tuple[str, str, str], ...]:
        """Architecture, hypervisor and mode of each kind of guest it runs."""
        kinds = json.loads(self.node.get("supported_instances") or "[]")
        return tuple((str(kind[0]), str(kind[1]), str(kind[2])) for kind in kinds)

    @property
    def free_vcpus(self) -> float:
        ratio = self.node.get("cpu_allocation_ratio") or CPU_RATIO
        return float(self.node["vcpus"] * ratio - self.node["vcpus_used"])

    @property
    def free_disk_mb(self) -> int:
        """What is really free there, where the node knows it, else what is not promised."""
        free = self.node.get("free_disk_gb") or 0
        least = self.node.get("disk_available_least")
        return 1024 * int(free if least is None else min(least, free))

    @property
    def capabilities(self) -> dict[str, Any]:
        """The node's columns, and its stats beside them."""
        return {**json.loads(self.node.get("stats") or "{}"), **self.node}


def read_fleet(
    api: Database, databases: Mapping[str, Database], cells: Sequence[Cell]
) -> list[Member]:
    """All hypervisors of these cells that nova has mapped; bare-metal hosts are left out.

    Raises:
        Unreachable: a cell's database does not answer.
    """
    with api.read() as rows:
        cell_of = {
            row["host"]: row["cell_id"]
            for row in rows.all("host_mappings", cell_id=[cell.id for cell in cells])
        }
        groups = _aggregates(
            rows.all("aggregates"), rows.all("aggregate_hosts"), rows.all("aggregate_metadata")
        )
    found: list[Member] = []
    for cell in cells:
        with databases[cell.uuid].read() as rows:
            nodes = rows.all("compute_nodes", deleted=0)
            services = rows.all("services", binary="nova-compute", deleted=0)
        mapped = [node for node in nodes if cell_of.get(node["host"]) == cell.id]
        found += _members(mapped, services, groups, cell)
    return found


def _members(
    nodes: Sequence[Row], services: Iterable[Row], groups: Mapping[str, Any], cell: Cell
) -> Iterator[Member]:
    service_of_host = {row["host"]: service_of(row) for row in services}
    nodes_of: dict[str, list[Row]] = defaultdict(list)
    for node in nodes:
        nodes_of[node["host"]].append(node)
    for name, own in nodes_of.items():
        if len(own) != 1:
            continue
        node = own[0]
        aggregates = tuple(groups.get(name, ()))
        zones = (meta["availability_zone"] for _, meta in aggregates if "availability_zone" in meta)
        host = Host(
            name=name,
            node=node["hypervisor_hostname"],
            node_id=node["id"],
            provider=node["uuid"],
            address=node["host_ip"] or "",
            zone=next(zones, DEFAULT_ZONE),
            cell=cell,
        )
        yield Member(host, service_of_host.get(name), node, aggregates)


def _aggregates(
    aggregates: Iterable[Row], hosts: Iterable[Row], metadata: Iterable[Row]
) -> dict[str, list[tuple[str, Mapping[str, str]]]]:
    """Host -> its aggregates."""
    names = {row["id"]: row["name"] for row in aggregates}
    says: dict[int, dict[str, str]] = defaultdict(dict)
    for row in metadata:
        says[row["aggregate_id"]][row["key"]] = row["value"]
    found: dict[str, list[tuple[str, Mapping[str, str]]]] = defaultdict(list)
    for row in sorted(hosts, key=lambda each: int(each["aggregate_id"])):
        of = row["aggregate_id"]
        found[row["host"]].append((str(names.get(of, "")), says[of]))
    return found
