"""Records of two servers made comparable: ids, times and request ids become words."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cellmove.dbcopy.database import Row
from tests.lab.kit.places import HYPERVISORS
from tests.lab.oracle.records import Dump

JSON_COLUMNS = {
    "instance_extra": {
        "device_metadata", "flavor", "keypairs", "migration_context", "numa_topology",
        "pci_requests", "resources", "trusted_certs", "vcpu_model",
    },
    "instance_info_caches": {"network_info"},
    "request_specs": {"spec"},
}  # fmt: skip
IDS = {"id", "action_id", "instance_uuid", "cell_id", "resource_id", "request_id"}
"""Columns left out: a row's name stands for them, or a word of its own."""
PASSING = (
    "instance_info_caches [] updated_at",
    "instance_info_caches [] network_info.0.active",
    "request_specs [] spec.id",
)
"""Left out too: nova-compute brings its cache up to date once a minute, whatever happens; and a
request spec holds its row's id as soon as it was saved twice."""

Plain = dict[str, Any]
"""`part table [row] column` -> value, without anything that is this one server's."""


@dataclass(slots=True)
class Words:
    """What one server's values are called; it learns them as they appear."""

    known: dict[str, str]
    """uuid, name, address... -> word."""
    ec2_id: int
    """Of its row in `instance_id_mappings` before all moves."""
    cells: Mapping[int, str]
    """Id of a cell in the API database -> `source` or `target`."""
    begun: datetime.datetime
    """When the move began: times before it are told from those since."""
    _counts: dict[str, int] = field(default_factory=dict)

    def learn(self, value: str, kind: str) -> str:
        """The word of a value, e.g. `migration 2`: in the order of appearance."""
        if value not in self.known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self.known[value] = f"{kind} {self._counts[kind]}"
        return self.known[value]

    def told(self, text: str) -> str:
        """The text with words for all that is known, longest first."""
        for value in sorted(self.known, key=len, reverse=True):
            text = text.replace(value, f"<{self.known[value]}>")
        return text


def plain(dump: Dump, words: Words) -> Plain:
    """The records as one flat mapping."""
    for tables in dump.values():
        _learn(tables, words)
    found: Plain = {}
    for database, tables in dump.items():
        numbers = {row["id"]: row["uuid"] for row in tables.get("migrations", ())}
        requests = {row["id"]: row["request_id"] for row in tables.get("instance_actions", ())}
        for table, rows in tables.items():
            for row in rows:
                where = f"{table} {_name(table, row, words, requests)}"
                for path, value in _columns(table, row, words, numbers):
                    if f"{where} {path}" not in PASSING:
                        found[f"{database} {where} {path}"] = value
    return found


def _learn(tables: Mapping[str, Any], words: Words) -> None:
    for row in sorted(tables.get("migrations", ()), key=lambda row: str(row["created_at"])):
        words.learn(row["uuid"], "migration")
    for row in sorted(tables.get("instance_actions", ()), key=lambda row: str(row["start_time"])):
        words.learn(row["request_id"], row["action"])
    for row in tables.get("block_device_mapping", ()):
        words.learn(row["uuid"], "disk")


def _name(table: str, row: Row, words: Words, requests: Mapping[int, str]) -> str:
    """What the row is called: the same for both servers."""
    name: str = ""
    if table.endswith("metadata"):
        name = row["key"]
    elif table == "tags":
        name = row["tag"]
    elif table == "instance_actions":
        name = words.known[row["request_id"]]
    elif table == "instance_actions_events":
        name = f"{words.known[requests[row['action_id']]]}: {row['event']}"
    elif table in ("migrations", "block_device_mapping", "virtual_interfaces"):
        name = words.known.get(row["uuid"] or "", "another")
    return f"[{name}]" + (" (deleted)" if row.get("deleted") else "")


def _columns(
    table: str, row: Row, words: Words, numbers: Mapping[int, str]
) -> Iterator[tuple[str, Any]]:
    for column, value in row.items():
        if column in JSON_COLUMNS.get(table, ()) and value is not None:
            yield from leaves(column, json.loads(value), words, numbers)
        elif column not in IDS:
            yield column, _value(table, column, value, words)
    if table == "instance_id_mappings":
        yield "id", "kept" if row["id"] == words.ec2_id else "another"
    if table == "instance_mappings":
        yield "cell_id", words.cells[row["cell_id"]]


def _value(table: str, column: str, value: Any, words: Words) -> Any:
    if isinstance(value, datetime.datetime):
        return "before the move" if value < words.begun else "during the move"
    if column == "deleted":
        return bool(value)
    if (table, column) == ("instance_actions_events", "host") and value not in HYPERVISORS:
        return "a conductor"
    return words.told(value) if isinstance(value, str) else value


def leaves(
    path: str, value: Any, words: Words, numbers: Mapping[int, str] = MappingProxyType({})
) -> Iterator[tuple[str, Any]]:
    """A tree's leaves; an empty branch is one too. `numbers`: a cell's migrations by id."""
    if path.endswith("changes"):
        yield path, sorted(value)
    elif isinstance(value, dict) and value:
        for key, each in value.items():
            short = key.removeprefix("nova_object.")
            yield from leaves(path if short == "data" else f"{path}.{short}", each, words, numbers)
    elif isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield from leaves(f"{path}.{index}", each, words, numbers)
    elif path.endswith(".migration_id"):
        yield path, words.known[numbers[value]] if value in numbers else "of no row of this cell"
    else:
        yield path, words.told(value) if isinstance(value, str) else value
