"""Small edits of rows that know whether they hold, what was before, and how to go back.

A step that changes a database is a list of these, applied in one transaction. Each write names the
state it expects (compare-and-swap); each restore touches only what still is as the edit left it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cellmove.dbcopy.database import Row, Rows, now
from cellmove.errors import Conflict

STATES = ("task_state", "vm_state", "power_state", "progress")
"""Columns of an instance that nova sets by itself or for an administrator.

nova 26: admin_actions.py:_reset_state, compute/manager.py:_init_instance, _sync_power_states.
"""


class Edit(Protocol):
    """One reversible change of the rows of one table."""

    @property
    def key(self) -> str:
        """Name under which `remember`'s answer is kept; unique within its step."""
        ...

    def holds(self, rows: Rows) -> bool:
        """Whether the rows are as this edit would leave them."""
        ...

    def remember(self, rows: Rows) -> Sequence[str]:
        """What the edit is about to overwrite; empty when there is no row."""
        ...

    def apply(self, rows: Rows) -> None:
        """Make the edit unless it holds.

        Raises:
            Conflict: the row is not as expected.
        """
        ...

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        """Go back to what `remember` kept; nothing happens when the rows are so already.

        Raises:
            Conflict: the row is neither as the edit left it nor as it was before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """An existing row, found by `where` and expected as `before`, gets the values of `after`."""

    table: str
    where: Mapping[str, Any]
    after: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    stamp: tuple[str, ...] = ()
    """Columns that get the time of the write; they are restored but never compared."""
    label: str = ""
    not_ours: bool = False
    """Nothing of ours is there yet: a row that is so already is somebody else's work."""

    @property
    def key(self) -> str:
        return self.label or self.table

    def holds(self, rows: Rows) -> bool:
        row = self._row(rows)
        return row is not None and not self.not_ours and _same(row, self._known(rows, self.after))

    def remember(self, rows: Rows) -> Sequence[str]:
        row = self._row(rows)
        names = [*self._known(rows, self.after), *self.stamp]
        return [] if row is None else [_kept(row, names)]

    def apply(self, rows: Rows) -> None:
        if not self.holds(rows):
            values = dict(self._known(rows, self.after)) | dict.fromkeys(self.stamp, now())
            rows.change(self.table, values, **{**self.where, **self.before})

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        row = self._row(rows)
        if row is None or not kept or self.not_ours:
            return
        old = json.loads(kept[0])
        if _same(row, {name: value for name, value in old.items() if name not in self.stamp}):
            return
        taken = self._taken_over(row, self._known(rows, self.after))
        if not self.holds(rows) and not taken:
            raise _changed(self.table, self.where, row, self.after)
        # What the edit left in the columns it had expectations of guards the way back.
        guard = {name: self.after[name] for name in self.before if name in self.after}
        guard |= {name: row[name] for name in taken if name in guard}
        old = {name: value for name, value in old.items() if name not in taken}
        if old:
            rows.change(self.table, old, **{**self.where, **guard})

    def _taken_over(self, row: Row, after: Mapping[str, Any]) -> tuple[str, ...]:
        """The state columns that somebody has set by reset-state, or a restarted nova-compute.

        They free the server: our lock (task_state) is gone, and what is taken back besides it is
        ours still. Empty when the row is not like that.
        """
        if self.table != "instances" or row["task_state"] is not None:
            return ()
        other = [name for name in after if not _same(row, {name: after[name]})]
        return tuple(other) if set(other) <= set(STATES) else ()

    def _row(self, rows: Rows) -> Row | None:
        return rows.one(self.table, **self.where)

    def _known(self, rows: Rows, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without the columns this release's schema lacks (e.g. `compute_id` before nova 28)."""
        columns = rows.columns(self.table)
        return {name: value for name, value in values.items() if name in columns}


@dataclass(frozen=True, slots=True)
class Upsert:
    """The row of this natural key has these values; it is made when it is not there."""

    table: str
    where: Mapping[str, Any]
    values: Mapping[str, Any]
    label: str = ""

    @property
    def key(self) -> str:
        return self.label or self.table

    def holds(self, rows: Rows) -> bool:
        row = rows.one(self.table, **self.where)
        return row is not None and _same(row, self.values)

    def remember(self, rows: Rows) -> Sequence[str]:
        row = rows.one(self.table, **self.where)
        return [] if row is None else [_kept(row, [*self.values])]

    def apply(self, rows: Rows) -> None:
        if self.holds(rows):
            return
        if rows.one(self.table, **self.where) is None:
            rows.insert(self.table, [{**self.where, **self.values}])
        else:
            rows.change(self.table, self.values, **self.where)

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        if not kept:
            # The key is this move's own, or a note that only a resize reads.
            rows.delete(self.table, **self.where)
            return
        old = json.loads(kept[0])
        row = rows.one(self.table, **self.where)
        if row is None or _same(row, old):
            return
        if not _same(row, self.values):
            raise _changed(self.table, self.where, row, self.values)
        rows.change(self.table, old, **self.where)


@dataclass(frozen=True, slots=True)
class Remove:
    """No alive row matches: those that do are deleted for good, as nova drops a key.

    nova 26: db/main/api.py:_instance_metadata_update_in_place. A soft-deleted one would be read
    as a second value of the key.
    """

    table: str
    where: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.table + "-removed"

    def holds(self, rows: Rows) -> bool:
        return not rows.count(self.table, deleted=0, **self.where)

    def remember(self, rows: Rows) -> Sequence[str]:
        return [_kept(row, [*row]) for row in rows.all(self.table, deleted=0, **self.where)]

    def apply(self, rows: Rows) -> None:
        rows.delete(self.table, deleted=0, **self.where)

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        if self.holds(rows):
            rows.insert(self.table, [json.loads(each) for each in kept])


@dataclass(frozen=True, slots=True)
class Mirror:
    """An owner's rows in this table say what the `wanted` ones say, no more and no less.

    `by` is the column that tells them apart; `wanted` has that one and those that are to be the
    same. Rows that are there keep their ids and times; a new one has the `created_at` it is given.
    """

    table: str
    owner: Mapping[str, Any]
    by: str
    wanted: Sequence[Mapping[str, Any]]
    besides: tuple[str, ...] = ()
    """What `by` holds in rows that are not looked at."""

    @property
    def key(self) -> str:
        return self.table

    def holds(self, rows: Rows) -> bool:
        return not self._to_do(rows)

    def remember(self, rows: Rows) -> Sequence[str]:
        """Only what differs: each row as it is and as it will be, null where there is none."""
        return [json.dumps(each, default=str) for each in self._to_do(rows)]

    def apply(self, rows: Rows) -> None:
        for old, new in self._to_do(rows):
            self._turn(rows, old, new)

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        mine = self._mine(rows)
        for text in kept:
            old, new = json.loads(text)
            row = mine.get(str((old or new)[self.by]))
            if row is None if old is None else row is not None and _same(row, old):
                continue
            if row is not None if new is None else row is None or not _same(row, new):
                raise _changed(self.table, self.owner, row or {}, new or old)
            self._turn(rows, new, old)

    def _to_do(self, rows: Rows) -> list[tuple[Row | None, Row | None]]:
        mine = self._mine(rows)
        wanted = {str(row[self.by]): dict(row) for row in self.wanted}
        to_do: list[tuple[Row | None, Row | None]] = []
        for key, new in wanted.items():
            if key in self.besides:
                continue
            if key not in mine:
                to_do.append((None, new))
                continue
            new.pop("created_at", None)
            if not _same(mine[key], new):
                to_do.append(({name: mine[key][name] for name in new}, new))
        return to_do + [(row, None) for key, row in mine.items() if key not in wanted]

    def _mine(self, rows: Rows) -> dict[str, Row]:
        found = {str(row[self.by]): row for row in rows.all(self.table, **self.owner)}
        return {key: row for key, row in found.items() if key not in self.besides}

    def _turn(self, rows: Rows, old: Row | None, new: Row | None) -> None:
        """From the one to the other, expected as it was seen."""
        if old is None:
            rows.insert(self.table, [{**self.owner, **(new or {})}])
        elif new is None:
            rows.delete(self.table, **{**self.owner, self.by: old[self.by]})
        else:
            rows.change(self.table, new, **{**self.owner, **old})


def _same(row: Row, values: Mapping[str, Any]) -> bool:
    return all(_text(row.get(name)) == _text(value) for name, value in values.items())


def _text(value: Any) -> str | None:
    """A value as the journal keeps it: times and booleans come back as text and numbers."""
    if isinstance(value, bool):
        return str(int(value))
    return None if value is None else str(value)


def _kept(row: Row, names: Sequence[str]) -> str:
    return json.dumps({name: row.get(name) for name in names}, default=str)


def _changed(table: str, where: Mapping[str, Any], row: Row, after: Mapping[str, Any]) -> Conflict:
    other = [name for name in after if _text(row.get(name)) != _text(after[name])]
    seen = ", ".join(f"{name}={_text(row.get(name))!r:.80}" for name in other)
    return Conflict(
        f"Somebody else changed a row of {table} ({', '.join(map(str, where.values()))}).",
        f"It now has {seen}.",
        "Look at the server with nova before going on.",
    )
