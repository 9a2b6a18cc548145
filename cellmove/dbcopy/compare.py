"""What differs between two cells' records of one server, as data: a gate, and a command."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cellmove.dbcopy.copy import Records
from cellmove.dbcopy.database import Row
from cellmove.dbcopy.tables import ACTIONS, COPIED, EVENTS

MISSING = "<no such row>"

IDS = frozenset({"id", "action_id", "compute_id", "dest_compute_id"})
"""Numbers of one cell: never compared."""

_CLAIM = ("migration_context",)
COPIED_OTHERWISE: Mapping[str, tuple[str, ...]] = {
    "instances": ("hidden", "updated_at"),
    "instance_extra": _CLAIM,
}
"""What differs in a fresh copy by design."""

MOVING: Mapping[str, tuple[str, ...]] = {
    "instances": (
        *COPIED_OTHERWISE["instances"],
        *(
            "vm_state",
            "task_state",
            "power_state",
            "progress",
            "host",
            "node",
            "launched_at",
        ),
        *("availability_zone", "instance_type_id", "memory_mb", "vcpus", "root_gb"),
        *("ephemeral_gb", "auto_disk_config", "cleaned"),
    ),
    "instance_extra": (
        *_CLAIM,
        "flavor",
        "updated_at",
        "numa_topology",
        "pci_requests",
    ),
    "instance_info_caches": ("network_info", "updated_at"),
    "block_device_mapping": ("attachment_id", "connection_info", "updated_at"),
    "migrations": ("status", "updated_at"),
    "instance_actions": ("updated_at", "finish_time", "message"),
}
"""What each cell has for itself from the first write of a move to its end."""

MOVING_KEYS: Mapping[str, tuple[str, ...]] = {"instance_system_metadata": ("old_vm_state",)}
"""Rows that each cell has for itself in a move, by their key."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that two records of the same server disagree about."""

    table: str
    key: str
    """The row's natural key: a metadata key, a uuid, an action and its event."""
    column: str
    """Empty: one side lacks the row."""
    here: str
    there: str


def differences(
    here: Records, there: Records, *, fresh: bool = False, request_id: str = ""
) -> list[Difference]:
    """What differs, but for ids and what each cell has for itself in a move (`MOVING`).

    `fresh`: the one was just copied from the other, so only `COPIED_OTHERWISE` may differ.
    `request_id`: the actions of this request are still being written, and are not looked at.
    """
    may_differ = COPIED_OTHERWISE if fresh else MOVING
    found: list[Difference] = []
    for table in (table.name for table in COPIED):
        left = _keyed(here, table, request_id)
        right = _keyed(there, table, request_id)
        ignored = IDS | set(may_differ.get(table, ()))
        own = () if fresh else MOVING_KEYS.get(table, ())
        for key in sorted(left.keys() | right.keys()):
            if key.split(" #")[0] not in own:
                found += _row_differences(table, key, left.get(key), right.get(key), ignored)
    return found


def _row_differences(
    table: str, key: str, left: Row | None, right: Row | None, ignored: Iterable[str]
) -> list[Difference]:
    if left is None or right is None:
        sides = [MISSING if row is None else "present" for row in (left, right)]
        return [Difference(table, key, "", *sides)]
    columns = sorted((left.keys() & right.keys()) - set(ignored))
    return [
        Difference(table, key, column, _shown(left[column]), _shown(right[column]))
        for column in columns
        if _plain(left[column]) != _plain(right[column])
    ]


def _keyed(records: Records, table: str, request_id: str) -> dict[str, Row]:
    """Rows by natural key; equal keys are numbered in the order of the rows."""
    requests = {row["id"]: row for row in records.tables[ACTIONS]}
    seen: Counter[str] = Counter()
    keyed: dict[str, Row] = {}
    for row in records.tables[table]:
        action = requests.get(row["action_id"], {}) if table == EVENTS else row
        if request_id and action.get("request_id") == request_id:
            continue
        key = _key(table, row, action)
        seen[key] += 1
        keyed[f"{key} #{seen[key]}" if seen[key] > 1 else key] = row
    return keyed


def _key(table: str, row: Row, action: Mapping[str, Any]) -> str:
    if table in (ACTIONS, EVENTS):
        parts = (action.get("action"), action.get("request_id"), row.get("event"))
        return " ".join(str(part) for part in parts if part)
    for column in ("key", "tag") if table != "block_device_mapping" else ():
        if row.get(column):
            return str(row[column])
    return str(row.get("uuid") or row.get("created_at") or "")


def _plain(value: Any) -> Any:
    """JSON is compared by what it says."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
