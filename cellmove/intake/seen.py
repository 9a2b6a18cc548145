"""What a plan was made of, fact by fact: so that what has changed since can be named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from cellmove.cloud import Cloud
from cellmove.dbcopy import api
from cellmove.dbcopy.copy import Records
from cellmove.dbcopy.database import Row
from cellmove.dbcopy.tables import ACTIONS
from cellmove.intake.found import find
from cellmove.model import Host, Move

Facts = Mapping[str, str]
"""What -> what it was. No secret: of what people write at will, a digest only."""

COLUMNS: Final = (
    *("host", "node", "vm_state", "task_state", "power_state", "locked", "hidden"),
    *("display_name", "launched_at", "updated_at", "instance_type_id"),
)
"""Of the server's row; it is written to by whatever happens to the server."""
WRITTEN: Final = "server's updated_at"
OWN: Final = frozenset(
    {"id", "request_id", "migration", "started_at"}
    | {"actor_user_id", "actor_project_id", "conductor"}
)
"""Of a move, what it has for itself: another one at each planning."""
RESTLESS: Final = ("allocated_bytes", "why_cold")
"""Of a disk: a running guest changes the one, and the other is but words."""
_KEYS: Final = {"ports": "id", "disks": "name", "volumes": "id"}


def seen(cloud: Cloud, move: Move) -> dict[str, str]:
    """The facts that this resize depends on, as they are now; nothing is touched.

    Raises:
        Refused: the server is gone.
    """
    here = find(cloud, move.server)
    facts = dict(_of_records(here.records))
    facts["server's cell"] = here.cell.name or here.cell.uuid
    with cloud.api.read() as rows:
        facts["request spec"] = _digest(api.request_spec(rows, move.server))
    facts |= _of_ports(cloud, move)
    facts |= _of_volumes(cloud, move)
    facts |= _of_allocations(cloud, move)
    facts |= _of_service(cloud, move.target, "target")
    facts |= _of_service(cloud, move.source, "source")
    guest = cloud.hosts.reach(move.source.name).domain(move.server)
    facts["guest"] = "none" if guest is None else f"{guest.state}, definition {_digest(guest.xml)}"
    return dict(sorted(facts.items()))


def move_facts(move: Move) -> dict[str, str]:
    """The move itself, flat, without what it has for itself and what never rests."""
    found: dict[str, str] = {}
    for key, value in asdict(move).items():
        if key in _KEYS:
            for each in value:
                name = f"{key.removesuffix('s')} {each[_KEYS[key]]}"
                found |= _flat(name, {k: v for k, v in each.items() if k not in RESTLESS})
        elif key not in OWN:
            found |= _flat(key.replace("_", " "), value)
    return found


def _flat(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, each in value.items():
            found |= _flat(f"{name} {key}", each)
        return found
    return {name: _text(value)}


def _of_records(records: Records) -> Iterator[tuple[str, str]]:
    tables = records.tables
    for column in COLUMNS:
        yield f"server's {column}", _text(records.instance.get(column))
    yield "server's user_data", _digest(records.instance.get("user_data"))
    for row in tables["instance_metadata"]:
        yield f"metadata {row['key']}", _digest(row["value"])
    for row in tables["instance_system_metadata"]:
        yield f"system metadata {row['key']}", _digest(row["value"])
    for row in tables.get("tags", ()):
        yield f"tag {row['tag']}", "set"
    for row in tables["block_device_mapping"]:
        if row["destination_type"] == "volume":
            of = f"{row['device_name']}, attachment {row['attachment_id']}"
            yield f"mapping of volume {row['volume_id']}", of
    yield "newest action", _newest(tables[ACTIONS], "start_time", "action", "request_id")
    yield "newest migration", _newest(tables["migrations"], "id", "uuid", "status")


def _newest(rows: tuple[Row, ...], by: str, *columns: str) -> str:
    if not rows:
        return "none"
    row = max(rows, key=lambda each: str(each[by]).rjust(32))
    return " ".join(_text(row[column]) for column in columns)


def _of_ports(cloud: Cloud, move: Move) -> Iterator[tuple[str, str]]:
    for port in move.ports:
        for binding in cloud.network.bindings(port.id):
            how = f"{'active' if binding.active else 'inactive'}, {binding.vif_type}"
            yield f"binding of port {port.id} at {binding.host}", how


def _of_volumes(cloud: Cloud, move: Move) -> Iterator[tuple[str, str]]:
    if not move.volumes:
        return
    for volume in move.volumes:
        state = cloud.volumes.volume(volume.id)
        yield f"status of volume {volume.id}", state.status if state else "gone"
    for each in cloud.volumes.attachments(move.server):
        yield f"attachment {each.id}", f"{each.status}, of volume {each.volume}"


def _of_allocations(cloud: Cloud, move: Move) -> Iterator[tuple[str, str]]:
    for provider, held in cloud.placement.allocations(move.server).resources.items():
        amounts = ", ".join(f"{name} {amount}" for name, amount in sorted(held.items()))
        yield f"allocation on provider {provider}", amounts


def _of_service(cloud: Cloud, host: Host, side: str) -> Iterator[tuple[str, str]]:
    """Of the other nova-compute than before we would know nothing."""
    if host.cell.uuid not in cloud.cells:
        yield f"{side} cell", "none of this cloud's"
        return
    with cloud.cells[host.cell.uuid].read() as rows:
        service = api.compute_service(rows, host.name)
        node = rows.one("compute_nodes", uuid=host.provider, deleted=0)
    state = "gone"
    if service is not None:
        up = "up" if service.is_up() else "down"
        state = f"{up}, {'disabled' if service.disabled else 'enabled'}, version {service.version}"
    yield f"{side} host's nova-compute", state
    of = node and (node["hypervisor_hostname"], node["hypervisor_type"], node["hypervisor_version"])
    yield f"{side} host's compute node", " ".join(map(_text, of)) if of else "gone"


def _digest(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
