"""What differs between two cells' records of one server, as data: a gate, and a command."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
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
        *("hidden", "vm_state", "task_state", "power_state", "progress", "launched_at", "cleaned"),
        *("host", "node", "availability_zone"),
        *("instance_type_id", "memory_mb", "vcpus", "root_gb", "ephemeral_gb"),
    ),
    "instance_extra": (*_CLAIM, "flavor", "numa_topology", "pci_requests"),
    "instance_info_caches": ("network_info",),
    "block_device_mapping": ("attachment_id", "connection_info"),
    "migrations": ("status",),
    "instance_actions": ("finish_time", "message"),
}
"""What each cell has for itself from the first write of a move to its end, with `updated_at`."""

MOVING_KEYS: Mapping[str, tuple[str, ...]] = {"instance_system_metadata": ("old_vm_state",)}
"""Rows that each cell has for itself in a move, by their key."""

ONE_ROW = ("instance_extra", "instance_info_caches")
"""Tables with one row a server, which need no key."""


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
    here: Records,
    there: Records,
    *,
    fresh: bool = False,
    unfinished: Collection[str | None] = (),
) -> list[Difference]:
    """What differs, but for ids and what each cell has for itself in a move (`MOVING`).

    Values are compared here, not by a database: its collation calls `a`, `A` and `a ` the same.

    `fresh`: the one was just copied from the other, so only `COPIED_OTHERWISE` may differ, and
    JSON must be the same text. `unfinished`: request ids of actions that each cell writes for
    itself; they are not looked at.
    """
    may_differ = COPIED_OTHERWISE if fresh else MOVING
    said = _exactly if fresh else _plain
    found: list[Difference] = []
    for table in (table.name for table in COPIED):
        left = _keyed(here, table, unfinished)
        right = _keyed(there, table, unfinished)
        ignored = {*IDS, *may_differ.get(table, ()), *(() if fresh else ("updated_at",))}
        own = () if fresh else MOVING_KEYS.get(table, ())
        for key in sorted(left.keys() | right.keys()):
            if key.split(" #")[0] not in own:
                rows = left.get(key), right.get(key)
                found += _row_differences(table, key, rows, ignored, said)
    return found


def _row_differences(
    table: str,
    key: str,
    rows: tuple[Row | None, Row | None],
    ignored: Collection[str],
    said: Callable[[Any], Any],
) -> list[Difference]:
    left, right = rows
    if left is None or right is None:
        sides = [MISSING if row is None else "present" for row in rows]
        return [Difference(table, key, "", *sides)]
    pairs = {column: (left[column], right[column]) for column in left.keys() & right.keys()}
    for column in left.keys() ^ right.keys():
        # Of one release only: empty is as good as absent.
        pairs[column] = (left.get(column) or None, right.get(column) or None)
    return [
        Difference(table, key, column, *map(_shown, pairs[column]))
        for column in sorted(pairs.keys() - set(ignored))
        if said(pairs[column][0]) != said(pairs[column][1])
    ]


def _keyed(records: Records, table: str, unfinished: Collection[str | None]) -> dict[str, Row]:
    """Rows by natural key; equal keys are numbered in the order of the rows."""
    requests = {row["id"]: row for row in records.tables[ACTIONS]}
    seen: Counter[str] = Counter()
    keyed: dict[str, Row] = {}
    for row in records.tables[table]:
        action = requests.get(row["action_id"], {}) if table == EVENTS else row
        if table in (ACTIONS, EVENTS) and action.get("request_id") in unfinished:
            continue
        key = _key(table, row, action)
        seen[key] += 1
        keyed[f"{key} #{seen[key]}" if seen[key] > 1 else key] = row
    return keyed


def _key(table: str, row: Row, action: Mapping[str, Any]) -> str:
    if table in ONE_ROW:
        return ""
    if table in (ACTIONS, EVENTS):
        parts = (action.get("action"), action.get("request_id"), row.get("event"))
        return " ".join(str(part) for part in parts if part)
    for column in ("key", "tag") if table != "block_device_mapping" else ():
        if row.get(column):
            return str(row[column])
    return str(row.get("uuid") or row.get("created_at") or "")


def _exactly(value: Any) -> Any:
    return value


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
