"""An edit knows whether it holds, gives back what was, and keeps off somebody else's work."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from cellmove.dbcopy.edits import Change, Edit, Mirror, Remove, Upsert
from cellmove.errors import Conflict
from tests.fakes.databases import snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases

ROW = {"uuid": SERVER, "deleted": 0}
LOCK = Change("instances", ROW, {"task_state": "resize_prep", "progress": 0}, {"task_state": None})
KEY = {"instance_uuid": SERVER, "deleted": 0, "key": "old_vm_state"}
NOTE = Upsert("instance_system_metadata", KEY, {"value": "active"})
DROP = Remove("instance_metadata", {"instance_uuid": SERVER, "key": "role"})
EDITS = pytest.mark.parametrize("edit", [LOCK, NOTE, DROP], ids=["change", "upsert", "remove"])


def look(databases: Databases, edit: Edit) -> tuple[bool, list[str]]:
    with databases.source.read() as rows:
        return edit.holds(rows), list(edit.remember(rows))


def apply(databases: Databases, edit: Edit) -> None:
    with databases.source.write() as rows:
        edit.apply(rows)


def restore(databases: Databases, edit: Edit, kept: list[str]) -> None:
    with databases.source.write() as rows:
        edit.restore(rows, kept)


def row(databases: Databases) -> dict[str, Any]:
    with databases.source.read() as rows:
        found = rows.one("instances", **ROW)
    assert found is not None
    return found


def change(databases: Databases, **values: Any) -> None:
    """Somebody else's work."""
    with databases.source.write() as rows:
        rows.change("instances", values, uuid=SERVER)


def timeless(databases: Databases) -> list[str]:
    """All rows but for the server's `updated_at`, which every write moves."""
    change(databases, updated_at=datetime.datetime(2026, 1, 1))
    return [repr(rows) for rows in snapshot(databases.source).items()]


@EDITS
def test_looking_changes_nothing(databases: Databases, edit: Edit) -> None:
    before = snapshot(databases.source)
    assert look(databases, edit)[0] is False
    assert snapshot(databases.source) == before


@EDITS
def test_an_applied_edit_holds_and_a_second_time_changes_nothing(
    databases: Databases, edit: Edit
) -> None:
    apply(databases, edit)
    assert look(databases, edit)[0] is True
    once = snapshot(databases.source)
    apply(databases, edit)
    assert snapshot(databases.source) == once


@EDITS
def test_restore_gives_back_what_was_and_twice_is_once(databases: Databases, edit: Edit) -> None:
    before = timeless(databases)
    _, kept = look(databases, edit)
    restore(databases, edit, kept)
    assert timeless(databases) == before, "nothing was applied yet"
    apply(databases, edit)
    for _ in range(2):
        restore(databases, edit, kept)
        assert timeless(databases) == before


def test_a_change_is_refused_when_the_row_is_not_as_expected(databases: Databases) -> None:
    change(databases, task_state="rebooting")
    before = snapshot(databases.source)
    with pytest.raises(Conflict):
        apply(databases, LOCK)
    assert snapshot(databases.source) == before


def test_a_change_of_a_row_that_is_gone_is_refused(databases: Databases) -> None:
    change(databases, deleted=1)
    with pytest.raises(Conflict):
        apply(databases, LOCK)


def test_what_somebody_else_wrote_is_not_restored(databases: Databases) -> None:
    _, kept = look(databases, LOCK)
    apply(databases, LOCK)
    change(databases, task_state="deleting")
    before = snapshot(databases.source)
    with pytest.raises(Conflict) as caught:
        restore(databases, LOCK, kept)
    assert "task_state='deleting'" in caught.value.seen
    assert snapshot(databases.source) == before


def test_what_is_not_ours_is_refused_and_never_restored(databases: Databases) -> None:
    edit = replace(LOCK, not_ours=True)
    _, kept = look(databases, edit)
    change(databases, task_state="resize_prep", progress=0)
    before = snapshot(databases.source)
    assert look(databases, edit)[0] is False
    with pytest.raises(Conflict):
        apply(databases, edit)
    restore(databases, edit, kept)
    assert snapshot(databases.source) == before


def test_a_row_that_went_away_needs_no_restore(databases: Databases) -> None:
    _, kept = look(databases, LOCK)
    apply(databases, LOCK)
    change(databases, deleted=1)
    before = snapshot(databases.source)
    restore(databases, LOCK, kept)
    assert snapshot(databases.source) == before


def test_a_column_that_this_release_lacks_is_left_out(databases: Databases) -> None:
    edit = Change("instances", ROW, {"power_state": 4, "of_a_later_release": 7})
    apply(databases, edit)
    holds, (kept,) = look(databases, edit)
    assert holds
    assert row(databases)["power_state"] == 4
    assert "of_a_later_release" not in kept


def test_a_stamp_gets_the_time_of_the_write_and_is_given_back(databases: Databases) -> None:
    edit = Change("instances", ROW, {"vm_state": "resized"}, stamp=("launched_at",))
    born = row(databases)["launched_at"]
    _, kept = look(databases, edit)
    apply(databases, edit)
    assert row(databases)["launched_at"] > born
    change(databases, launched_at=datetime.datetime(2026, 1, 1))
    assert look(databases, edit)[0] is True, "a stamp is never compared"
    restore(databases, edit, kept)
    assert row(databases)["launched_at"] == born


def test_an_upsert_of_a_row_that_is_there_gives_its_old_value_back(databases: Databases) -> None:
    with databases.source.write() as rows:
        rows.insert("instance_system_metadata", [{**KEY, "value": "stopped"}])
    before = value(databases)
    _, kept = look(databases, NOTE)
    apply(databases, NOTE)
    assert value(databases) == "active"
    restore(databases, NOTE, kept)
    assert value(databases) == before == "stopped"


def value(databases: Databases) -> str:
    with databases.source.read() as rows:
        (found,) = rows.all("instance_system_metadata", **KEY)
    return str(found["value"])


def test_a_removed_row_is_gone_for_good_and_comes_back_whole(databases: Databases) -> None:
    with databases.source.read() as rows:
        before = rows.all("instance_metadata")
    _, kept = look(databases, DROP)
    apply(databases, DROP)
    with databases.source.read() as rows:
        assert rows.all("instance_metadata", instance_uuid=SERVER) == []
    restore(databases, DROP, kept)
    with databases.source.read() as rows:
        assert rows.all("instance_metadata") == before


def test_a_key_that_somebody_set_again_is_not_doubled(databases: Databases) -> None:
    _, kept = look(databases, DROP)
    apply(databases, DROP)
    with databases.source.write() as rows:
        rows.insert("instance_metadata", [{"instance_uuid": SERVER, "key": "role", "value": "new"}])
    restore(databases, DROP, kept)
    with databases.source.read() as rows:
        (found,) = rows.all("instance_metadata", instance_uuid=SERVER, key="role")
    assert found["value"] == "new"


def test_what_somebody_else_wrote_over_an_upsert_is_not_overwritten(databases: Databases) -> None:
    apply(databases, replace(NOTE, values={"value": "stopped"}))
    _, kept = look(databases, NOTE)
    apply(databases, NOTE)
    with databases.source.write() as rows:
        rows.change(NOTE.table, {"value": "theirs"}, instance_uuid=SERVER, key=KEY["key"])
    with pytest.raises(Conflict, match="Somebody else changed"):
        restore(databases, NOTE, kept)
    with databases.source.read() as rows:
        assert [each["value"] for each in rows.all(NOTE.table, **KEY)] == ["theirs"]


OWNER: dict[str, Any] = {"instance_uuid": SERVER, "deleted": 0}
WANTED: list[dict[str, Any]] = [{"key": "role", "value": "db"}, {"key": "new", "value": None}]
MIRROR = Mirror("instance_metadata", OWNER, "key", WANTED, besides=("mine",))


def metadata(databases: Databases) -> dict[str, str | None]:
    with databases.source.read() as rows:
        return {row["key"]: row["value"] for row in rows.all("instance_metadata", **OWNER)}


def test_a_mirror_makes_changes_and_removes_rows_and_leaves_its_own(databases: Databases) -> None:
    with databases.source.write() as rows:
        more = [{"instance_uuid": SERVER, "key": key, "value": "x"} for key in ("gone", "mine")]
        rows.insert("instance_metadata", more)
    held, kept = look(databases, MIRROR)
    assert held is False
    apply(databases, MIRROR)
    assert metadata(databases) == {"role": "db", "new": None, "mine": "x"}
    assert look(databases, MIRROR) == (True, [])
    for _ in range(2):
        restore(databases, replace(MIRROR, wanted=()), kept)
        assert metadata(databases) == {"role": "web", "gone": "x", "mine": "x"}


def test_a_mirror_tells_letters_and_blanks_apart(databases: Databases) -> None:
    wanted = [{"key": "role", "value": "Web "}]
    edit = Mirror("instance_metadata", OWNER, "key", wanted)
    assert look(databases, edit)[0] is False
    apply(databases, edit)
    assert metadata(databases) == {"role": "Web "}


def test_a_mirror_does_not_overwrite_what_somebody_else_set(databases: Databases) -> None:
    _, kept = look(databases, MIRROR)
    apply(databases, MIRROR)
    with databases.source.write() as rows:
        rows.change("instance_metadata", {"value": "theirs"}, key="role", **OWNER)
    with pytest.raises(Conflict, match="Somebody else changed"):
        restore(databases, MIRROR, kept)
    assert metadata(databases)["role"] == "theirs"
