"""Payloads of nova 26's versioned notifications, made of a server's rows in one cell.

Left as null is what the rows do not say: `projects` of a flavor. `audit_period` is the calendar
month, which is nova's default for `[DEFAULT]instance_usage_audit_period`.
nova 26: notifications/objects/instance.py and flavor.py.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cellmove.dbcopy.database import Row, Rows
from cellmove.model import Move
from cellmove.notices.events import Event

VERSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "action": ("InstanceActionPayload", "1.8"),
    "prep": ("InstanceActionResizePrepPayload", "1.3"),
    "exists": ("InstanceExistsPayload", "2.0"),
}
POWER_STATES: Final = (
    *("pending", "running", "_unused", "paused", "shutdown", "_unused", "crashed", "suspended"),
)
"""By `instances.power_state`; nova 26: objects/fields.py:InstancePowerState."""
AS_THEY_ARE: Final = (
    *("uuid", "user_id", "reservation_id", "display_name", "display_description", "host", "node"),
    *("os_type", "architecture", "availability_zone", "key_name", "kernel_id", "ramdisk_id"),
    *("task_state", "progress"),
)
TIMES: Final = ("created_at", "launched_at", "terminated_at", "deleted_at", "updated_at")
RENAMED: Final = {
    "tenant_id": "project_id",
    "host_name": "hostname",
    "image_uuid": "image_ref",
    "state": "vm_state",
}
FLAVOR: Final = (
    *("flavorid", "memory_mb", "vcpus", "root_gb", "ephemeral_gb", "name", "swap", "rxtx_factor"),
    *("vcpu_weight", "disabled", "is_public", "extra_specs"),
)
VOLUME: Final = ("device_name", "boot_index", "delete_on_termination", "volume_id", "tag")


def payload(event: Event, move: Move, rows: Rows, now: dt.datetime) -> dict[str, Any]:
    """What nova would say of the server as this cell's rows have it.

    Raises:
        CellmoveError, ValueError, KeyError: the rows cannot be read, or are not nova's.
    """
    of = {"instance_uuid": move.server}
    instance = rows.all("instances", uuid=move.server, deleted=0)[0]
    extra = rows.all("instance_extra", **of, deleted=0)[0]
    system = {r["key"]: r["value"] for r in rows.all("instance_system_metadata", **of, deleted=0)}
    flavors = json.loads(extra["flavor"])
    data = _instance(instance, move) | {
        "flavor": _flavor(flavors["cur"]["nova_object.data"]),
        "ip_addresses": list(_addresses(rows.all("instance_info_caches", **of, deleted=0))),
        "block_devices": None,
        "metadata": {r["key"]: r["value"] for r in rows.all("instance_metadata", **of, deleted=0)},
        "locked_reason": system.get("locked_reason"),
    }
    if event.lists_volumes:
        found = rows.all("block_device_mapping", **of, deleted=0)
        data["block_devices"] = [_volume(row) for row in found if row["volume_id"] is not None]
    data |= _more(event, move, flavors, now)
    name, version = VERSIONS[event.payload]
    return _object(name, version, data)


def _more(event: Event, move: Move, flavors: Mapping[str, Any], now: dt.datetime) -> dict[str, Any]:
    """What only this kind of payload has."""
    if event.payload == "exists":
        begin = now.replace(day=1, hour=0, minute=0, second=0)
        period = {"audit_period_beginning": _time(begin), "audit_period_ending": _time(now)}
        return {"audit_period": _object("AuditPeriodPayload", "1.0", period)}
    if event.payload == "action":
        return {"fault": None}
    new = flavors["new"] or {"nova_object.data": _of_model(move)}
    return {"fault": None, "new_flavor": _flavor(new["nova_object.data"])}


def _instance(row: Row, move: Move) -> dict[str, Any]:
    return {
        **{name: row[name] for name in AS_THEY_ARE},
        **{name: row[column] for name, column in RENAMED.items()},
        **{name: _time(row[name]) for name in TIMES},
        "power_state": POWER_STATES[row["power_state"] or 0],
        "locked": bool(row["locked"]),
        "auto_disk_config": "AUTO" if row["auto_disk_config"] else "MANUAL",
        "request_id": move.request_id,
        "action_initiator_user": move.actor_user_id,
        "action_initiator_project": move.actor_project_id,
    }


def _flavor(data: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: data.get(name) for name in FLAVOR}
    return _object(
        "FlavorPayload", "1.4", known | {"projects": None, "description": data.get("description")}
    )


def _of_model(move: Move) -> dict[str, Any]:
    flavor = move.new_flavor
    known = {name: getattr(flavor, name) for name in FLAVOR if name not in ("swap", "extra_specs")}
    return known | {"swap": flavor.swap_mb, "extra_specs": dict(flavor.extra_specs)}


def _addresses(caches: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Fixed addresses of all ports; nova 26: network/model.py:VIF.fixed_ips."""
    for vif in json.loads((caches[0]["network_info"] if caches else None) or "[]"):
        for subnet in vif["network"]["subnets"]:
            for ip in subnet["ips"]:
                data = {
                    "label": vif["network"]["label"],
                    "mac": vif["address"],
                    "meta": vif.get("meta") or {},
                    "port_uuid": vif["id"],
                    "version": ip.get("version") or subnet.get("version"),
                    "address": ip["address"],
                    "device_name": vif.get("devname"),
                }
                yield _object("IpPayload", "1.0", data)


def _volume(row: Row) -> dict[str, Any]:
    data = {name: row[name] for name in VOLUME}
    data["delete_on_termination"] = bool(data["delete_on_termination"])
    return _object("BlockDevicePayload", "1.0", data)


def _object(name: str, version: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """As oslo.versionedobjects writes one."""
    return {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": dict(data),
    }


def _time(at: dt.datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
