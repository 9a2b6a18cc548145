"""A server's actions, events and faults: what one cell has of them and the other lacks.

Nothing is ever overwritten: history is only added to. nova 26 takes home only the revert's own
action (conductor/tasks/cross_cell_migrate.py:_update_instance_actions_in_source_cell).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellmove.dbcopy.database import Row, Rows
from cellmove.dbcopy.tables import ACTIONS, EVENTS

FAULTS = "instance_faults"
ENDING = ("finish_time", "result", "traceback", "details")
"""What the end of an event writes."""

Key = tuple[str, ...]
"""What tells a row from the others in either cell; the n-th of equal ones ends in n."""


@dataclass(frozen=True, slots=True)
class History:
    """All of it that one cell has; an event's key begins with its action's."""

    actions: Mapping[Key, Row]
    events: Mapping[Key, Row]
    faults: Mapping[Key, Row]


def missing(
    there: Rows, home: Rows, server: str, besides: Collection[str | None] = ()
) -> list[str]:
    """Name all that `there` has and `home` lacks, for `drop_carried`.

    `besides`: request ids of actions that are still being written in both cells.
    """
    known, new = read_history(home, server, besides), read_history(there, server, besides)
    lacking = [("action", key) for key in new.actions.keys() - known.actions.keys()]
    lacking += [("event", key) for key in new.events.keys() - known.events.keys()]
    lacking += [("fault", key) for key in new.faults.keys() - known.faults.keys()]
    lacking += [("end", key) for key in _ended(known, new)]
    return sorted(json.dumps([kind, *key]) for kind, key in lacking)


def carry(there: Rows, home: Rows, server: str, besides: Collection[str | None] = ()) -> None:
    """Add to `home` what it lacks, times as they are; ids are the home cell's own."""
    known, new = read_history(home, server, besides), read_history(there, server, besides)
    ids = {key: row["id"] for key, row in known.actions.items()}
    ids |= _add(home, ACTIONS, new.actions, known.actions)
    events = {
        key: row | {"action_id": ids[_action_of(key)]}
        for key, row in new.events.items()
        if _action_of(key) in ids
    }
    _add(home, EVENTS, events, known.events)
    _add(home, FAULTS, new.faults, known.faults)
    for key in _ended(known, new):
        end = {name: new.events[key][name] for name in ENDING if name in known.events[key]}
        home.change(EVENTS, end, id=known.events[key]["id"], finish_time=None)


def drop_carried(home: Rows, server: str, names: Sequence[str]) -> None:
    """Take away what `missing` has named; the rest of the history stays. Twice is once."""
    if not names:
        return
    known = read_history(home, server)
    carried = {(kind, tuple(key)) for kind, *key in map(json.loads, names)}
    gone = {key for kind, key in carried if kind == "action"}
    actions = [row["id"] for key, row in known.actions.items() if key in gone]
    events = [row["id"] for key, row in known.events.items() if ("event", key) in carried]
    faults = [row["id"] for key, row in known.faults.items() if ("fault", key) in carried]
    for table, found in ((EVENTS, events), (ACTIONS, actions), (FAULTS, faults)):
        if found:
            home.delete(table, id=found)
    ended = [row["id"] for key, row in known.events.items() if ("end", key) in carried]
    if ended:
        home.change(EVENTS, dict.fromkeys(ENDING), expect=None, id=ended)


def read_history(rows: Rows, server: str, besides: Collection[str | None] = ()) -> History:
    """All of a server's history in one cell, in the order of ids."""
    actions = [
        row
        for row in rows.all(ACTIONS, instance_uuid=server, deleted=0)
        if row["request_id"] not in besides
    ]
    named = _numbered((_text(row, "request_id", "action", "start_time"), row) for row in actions)
    of = {row["id"]: key for key, row in named.items()}
    events = rows.all(EVENTS, action_id=[*of], deleted=0) if of else []
    faults = rows.all(FAULTS, instance_uuid=server, deleted=0)
    return History(
        named,
        _numbered(((*of[row["action_id"]], *_text(row, "event")), row) for row in events),
        _numbered((_text(row, "created_at", "code", "message", "host"), row) for row in faults),
    )


def _ended(known: History, new: History) -> list[Key]:
    """Events that go on in the one cell and have ended in the other."""
    return [
        key
        for key, row in known.events.items()
        if row["finish_time"] is None
        and key in new.events
        and new.events[key]["finish_time"] is not None
    ]


def _add(home: Rows, table: str, new: Mapping[Key, Row], known: Collection[Key]) -> dict[Key, int]:
    lacking = {key: row for key, row in new.items() if key not in known}
    columns = home.columns(table) - {"id"}
    carried = [
        {name: value for name, value in row.items() if name in columns} for row in lacking.values()
    ]
    return dict(zip(lacking, home.insert(table, carried), strict=True))


def _action_of(event: Key) -> Key:
    return event[:-2]


def _numbered(named: Iterable[tuple[Key, Row]]) -> dict[Key, Row]:
    seen: Counter[Key] = Counter()
    found: dict[Key, Row] = {}
    for name, row in named:
        seen[name] += 1
        found[(*name, str(seen[name]))] = row
    return found


def _text(row: Mapping[str, Any], *names: str) -> Key:
    return tuple(str(row[name]) for name in names)
