"""What intake asks: the API database about servers, flavors and zones; a cell about its hosts."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cellmove.dbcopy.database import Database, Row, Rows, now
from cellmove.model import Cell, Flavor, Host

DEFAULT_ZONE = "nova"
"""nova's `default_availability_zone`: the zone of a host that no aggregate puts into one."""

SERVICE_DOWN_SECONDS = 60
"""nova's `service_down_time`."""


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """The server group a server belongs to."""

    uuid: str
    name: str
    policy: str
    """`affinity`, `anti-affinity`, `soft-affinity`, `soft-anti-affinity`."""
    members: tuple[str, ...]
    """uuids of servers, in the order they joined."""
    max_per_host: int = 1
    """How many members a host may have under `anti-affinity` (rule `max_server_per_host`)."""


@dataclass(frozen=True, slots=True)
class Service:
    """A nova-compute as its cell knows it."""

    host: str
    disabled: bool
    disabled_reason: str
    forced_down: bool
    seen_at: datetime.datetime | None
    """UTC, naive."""
    version: int

    def is_up(self) -> bool:
        """Whether it reported within nova's `service_down_time`, by this machine's clock.

        nova 26: servicegroup/drivers/db.py:DbDriver.is_up.
        """
        if self.forced_down or self.seen_at is None:
            return False
        return abs((now() - self.seen_at).total_seconds()) <= SERVICE_DOWN_SECONDS


def instance_mapping(rows: Rows, server: str) -> Row | None:
    """The server's row in `instance_mappings`: `cell_id` (may be NULL), `queued_for_delete`..."""
    return rows.one("instance_mappings", instance_uuid=server)


def servers_named(cells: Iterable[Database], name: str) -> list[str]:
    """Find, over all cells, the uuids of the servers of this name; not deleted and hidden ones."""
    found: set[str] = set()
    for database in cells:
        with database.read() as rows:
            alive = rows.all("instances", display_name=name, deleted=0, hidden=(0, None))
            found.update(row["uuid"] for row in alive)
    return sorted(found)


def cell_of_host(rows: Rows, host: str) -> int | None:
    """Row id of the cell that a host belongs to, or None when nova does not know the host."""
    row = rows.one("host_mappings", host=host)
    return None if row is None else int(row["cell_id"])


def hosts_of_cell(rows: Rows, cell: Cell) -> list[str]:
    """Names of all hosts of a cell, sorted."""
    return sorted(row["host"] for row in rows.all("host_mappings", cell_id=cell.id))


def flavor(
    rows: Rows,
    *,
    row_id: int | None = None,
    flavorid: str | None = None,
    name: str | None = None,
) -> Flavor | None:
    """The flavor of this row id, flavorid or name (the first one given), with its extra specs."""
    asked = {"id": row_id, "flavorid": flavorid, "name": name}
    where = {column: value for column, value in asked.items() if value is not None}
    if not where:
        raise ValueError("ask for an id, a flavorid or a name")
    row = rows.one("flavors", **dict([*where.items()][:1]))
    if row is None:
        return None
    specs = rows.all("flavor_extra_specs", flavor_id=row["id"])
    return _flavor(row, {spec["key"]: spec["value"] for spec in specs})


def zone_of_host(rows: Rows, host: str, default: str = DEFAULT_ZONE) -> str:
    """The host's availability zone: of the first aggregate that has it and names one.

    nova 26: availability_zones.py:get_host_availability_zone.
    """
    member_of = [row["aggregate_id"] for row in rows.all("aggregate_hosts", host=host)]
    if not member_of:
        return default
    zones = rows.all("aggregate_metadata", aggregate_id=member_of, key="availability_zone")
    first = min(zones, key=lambda row: int(row["aggregate_id"]), default=None)
    return default if first is None else str(first["value"])


def request_spec(rows: Rows, server: str) -> str | None:
    """The JSON of the server's request spec."""
    row = rows.one("request_specs", instance_uuid=server)
    return None if row is None else str(row["spec"])


def is_building(rows: Rows, server: str) -> bool:
    """Whether nova has not yet finished creating the server's records."""
    return rows.count("build_requests", instance_uuid=server) > 0


def server_group(rows: Rows, server: str) -> ServerGroup | None:
    """The server's group. nova allows one.

    Raises:
        Conflict: it is in several.
    """
    membership = rows.one("instance_group_member", instance_uuid=server)
    if membership is None:
        return None
    group = rows.one("instance_groups", id=membership["group_id"])
    if group is None:
        return None
    policies = rows.all("instance_group_policy", group_id=group["id"])
    members = rows.all("instance_group_member", group_id=group["id"])
    rules = json.loads((policies[0]["rules"] if policies else None) or "{}")
    return ServerGroup(
        uuid=group["uuid"],
        name=group["name"] or "",
        policy=policies[0]["policy"] if policies else "",
        members=tuple(row["instance_uuid"] for row in members),
        max_per_host=int(rules.get("max_server_per_host", 1)),
    )


def host(rows: Rows, name: str, cell: Cell, zone: str) -> Host | None:
    """A hypervisor as its own cell's database describes it; `rows` is that cell's.

    Raises:
        Conflict: the host has several nodes (bare metal), which cannot be moved to or from.
    """
    node = rows.one("compute_nodes", host=name, deleted=0)
    if node is None:
        return None
    return Host(
        name=name,
        node=node["hypervisor_hostname"],
        node_id=node["id"],
        provider=node["uuid"],
        address=node["host_ip"] or "",
        zone=zone,
        cell=cell,
    )


def compute_service(rows: Rows, name: str) -> Service | None:
    """The nova-compute of a host; `rows` is its cell's."""
    row = rows.one("services", host=name, binary="nova-compute", deleted=0)
    return None if row is None else service_of(row)


def service_of(row: Row) -> Service:
    """A row of `services`."""
    return Service(
        host=row["host"],
        disabled=bool(row["disabled"]),
        disabled_reason=row["disabled_reason"] or "",
        forced_down=bool(row["forced_down"]),
        seen_at=row["last_seen_up"] or row["created_at"],
        version=row["version"] or 0,
    )


def _flavor(row: Row, extra_specs: Mapping[str, str]) -> Flavor:
    return Flavor(
        id=row["id"],
        flavorid=row["flavorid"],
        name=row["name"],
        memory_mb=row["memory_mb"],
        vcpus=row["vcpus"],
        root_gb=row["root_gb"] or 0,
        ephemeral_gb=row["ephemeral_gb"] or 0,
        swap_mb=row["swap"],
        rxtx_factor=1.0 if row["rxtx_factor"] is None else row["rxtx_factor"],
        vcpu_weight=row["vcpu_weight"] or 0,
        disabled=bool(row["disabled"]),
        is_public=bool(row["is_public"]),
        extra_specs=extra_specs,
        created_at=_iso(row["created_at"]),
        updated_at=_iso(row["updated_at"]),
    )


def _iso(at: datetime.datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
