"""One database: snapshots, compare-and-swap, and errors that say what may have been written."""

from __future__ import annotations

import datetime
import traceback
from collections.abc import Callable
from typing import Any

import pymysql.err
import pytest
import sqlalchemy as sa

from cellmove import errors
from cellmove.dbcopy import connection, database, schema
from cellmove.dbcopy.database import Database, IdsOf, Rows
from tests.fakes.databases import NEIGHBOURS, counted, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases, with_changed_schema

OTHER = "22222222-2222-4222-8222-222222222222"


def test_none_means_null_and_a_list_means_any_of(databases: Databases) -> None:
    with databases.source.read() as rows:
        assert rows.count("instances", task_state=None) == 2
        assert rows.count("instances", uuid=[SERVER, NEIGHBOURS["cmp1a"], OTHER]) == 2
        assert rows.count("instances", uuid=()) == 0
        assert rows.count("instances", hidden=(False, None)) == 2


def test_a_table_that_does_not_exist_has_no_rows(databases: Databases) -> None:
    with databases.source.write() as rows:
        assert rows.all("share_mapping", instance_uuid=SERVER) == []
        assert rows.one("share_mapping", instance_uuid=SERVER) is None
        assert rows.count("share_mapping", instance_uuid=SERVER) == 0
        assert rows.delete("share_mapping", instance_uuid=SERVER) == 0
        assert rows.columns("share_mapping") == frozenset()


def test_one_refuses_to_choose_among_several(databases: Databases) -> None:
    with (
        databases.source.read() as rows,
        pytest.raises(errors.Conflict, match="There are 2"),
    ):
        rows.one("instance_actions", instance_uuid=SERVER)


def test_a_change_that_meets_another_state_is_a_conflict_and_writes_nothing(
    databases: Databases,
) -> None:
    before = snapshot(databases.source)

    def write() -> None:
        with databases.source.write() as rows:
            rows.change("instances", {"display_name": "x"}, uuid=SERVER, task_state=None)
            rows.change("instances", {"task_state": "x"}, uuid=SERVER, task_state="resize_prep")

    with pytest.raises(errors.Conflict, match="0 instead of 1"):
        write()
    assert snapshot(databases.source) == before


def test_a_change_to_the_same_value_still_counts_as_one(databases: Databases) -> None:
    with databases.source.write() as rows:
        assert rows.change("instances", {"vm_state": "active"}, uuid=SERVER) == 1
        assert rows.change("instances", {"progress": 0}, expect=None, uuid=OTHER) == 0


def test_a_change_sets_updated_at_unless_it_is_given(databases: Databases) -> None:
    then = datetime.datetime(2026, 1, 2, 3, 4, 5)
    with databases.source.write() as rows:
        rows.change("instances", {"progress": 1}, uuid=SERVER)
        rows.change("instance_extra", {"updated_at": str(then)}, instance_uuid=SERVER)
    with databases.source.read() as rows:
        instance = rows.all("instances", uuid=SERVER)[0]
        assert (database.now() - instance["updated_at"]).total_seconds() < 60
        assert rows.all("instance_extra", instance_uuid=SERVER)[0]["updated_at"] == then


def test_now_is_utc_without_a_zone_and_in_whole_seconds() -> None:
    utc = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert database.now().microsecond == 0
    assert abs((utc - database.now()).total_seconds()) < 5


def test_an_insert_gives_the_ids_in_the_order_of_the_rows(databases: Databases) -> None:
    actions = [{"instance_uuid": SERVER, "action": f"a{number}"} for number in range(40)]
    with databases.source.write() as rows:
        ids = rows.insert("instance_actions", actions)
        found = {row["id"]: row for row in rows.all("instance_actions", id=ids)}
    assert [found[id_]["action"] for id_ in ids] == [row["action"] for row in actions]
    assert {row["deleted"] for row in found.values()} == {0}
    assert all(row["created_at"] is not None for row in found.values())


def test_an_insert_of_rows_with_other_columns_is_still_one_insert(
    databases: Databases,
) -> None:
    with databases.source.write() as rows:
        with counted(databases.source) as statements:
            values = [
                {"instance_uuid": SERVER, "key": "a"},
                {"instance_uuid": SERVER, "value": "b"},
            ]
            first, second = rows.insert("instance_metadata", values)
        assert len(statements) == 1
        assert rows.all("instance_metadata", id=first)[0]["value"] is None
        assert rows.all("instance_metadata", id=second)[0]["key"] is None


def test_a_table_without_a_number_for_a_key_gives_no_ids(databases: Databases) -> None:
    with databases.source.write() as rows:
        assert rows.insert("tags", [{"resource_id": SERVER, "tag": "new"}]) == []
        assert rows.insert("tags", []) == []
        assert rows.count("tags", resource_id=SERVER) == 3


def test_a_read_cannot_write(databases: Databases) -> None:
    before = snapshot(databases.source)
    with pytest.raises(errors.StepFailed), databases.source.read() as rows:
        rows.change("instances", {"progress": 9}, uuid=SERVER)
    assert snapshot(databases.source) == before
    with databases.source.write() as rows:
        assert rows.change("instances", {"progress": 9}, uuid=SERVER) == 1


def test_a_read_sees_one_snapshot(databases: Databases) -> None:
    with databases.source.read() as before:
        assert before.count("tags", resource_id=SERVER) == 2
        with databases.source.write() as rows:
            rows.delete("tags", resource_id=SERVER)
        assert before.count("tags", resource_id=SERVER) == 2


def test_a_write_that_ends_badly_leaves_nothing(databases: Databases) -> None:
    before = snapshot(databases.source)

    def write() -> None:
        with databases.source.write() as rows:
            rows.delete("tags", resource_id=SERVER)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert snapshot(databases.source) == before


def test_a_change_or_deletion_of_all_rows_is_never_meant(databases: Databases) -> None:
    with databases.source.write() as rows:
        with pytest.raises(ValueError, match="never meant"):
            rows.delete("tags")
        with pytest.raises(ValueError, match="never meant"):
            rows.change("instances", {"progress": 1})


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            lambda rows: rows.insert("instances", [{"uuid": SERVER}]),
            id="same unique key",
        ),
        pytest.param(
            lambda rows: rows.insert("instance_extra", [{"instance_uuid": OTHER}]),
            id="no parent",
        ),
        pytest.param(lambda rows: rows.delete("instances", uuid=SERVER), id="still has children"),
    ],
)
def test_a_record_in_the_way_is_a_conflict(
    databases: Databases, write: Callable[[Rows], Any]
) -> None:
    with (
        pytest.raises(errors.Conflict, match="cell cell1"),
        databases.source.write() as rows,
    ):
        write(rows)


def test_a_column_that_this_release_lacks_is_named(databases: Databases) -> None:
    with (
        pytest.raises(errors.StepFailed, match="compute_id"),
        databases.source.write() as rows,
    ):
        rows.change("instances", {"compute_id": 1}, uuid=SERVER)


def test_the_version_is_the_schemas(databases: Databases, tmp_path: Any) -> None:
    assert databases.source.version() == "ccb0fa1a2252"
    assert Database(f"sqlite:///{tmp_path / 'empty'}", name="empty").version() == ""


def test_an_unreachable_database_is_named_and_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    gone = Database("mysql://nova:s3cret@127.0.0.1:1/nova?charset=utf8&plugin=x", name="cell c")
    reached = pytest.raises(errors.Unreachable, match="cell c cannot be reached")
    with reached as caught, gone.read():
        pass
    assert pauses == list(database.RETRY_PAUSES_SECONDS)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["s3cret", "oracle://u:s3cret@h/x", "nodriver+x://u:s3cret@h/x"])
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(errors.Refused, match="The URL of cell c") as caught:
        Database(url, name="cell c")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1213, errors.Conflict),
        (1205, errors.Conflict),
        (1062, errors.Conflict),
        (1451, errors.Conflict),
        (2013, errors.Unreachable),
        (2003, errors.Unreachable),
        (1045, errors.Unreachable),
        (1142, errors.StepFailed),
    ],
)
def test_what_the_database_says_becomes_one_of_our_errors(
    code: int, expected: type[Exception]
) -> None:
    said = pymysql.err.OperationalError(code, "what MariaDB says")
    secret = {"connection_info": "s3cret"}
    said_so = pytest.raises(expected, match="what MariaDB says")
    with said_so as caught, connection.translated("cell c"):
        raise sa.exc.OperationalError("UPDATE x", secret, said, hide_parameters=True)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_connection_lost_at_commit_is_unknown(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("COMMIT", {}, pymysql.err.OperationalError(2013, "lost"))

    monkeypatch.setattr(sa.Connection, "commit", lost)
    with (
        pytest.raises(errors.Unknown, match="Nobody knows"),
        databases.source.write() as rows,
    ):
        rows.change("instances", {"progress": 1}, uuid=SERVER)


def test_a_connection_lost_before_the_first_statement_is_tried_again(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    connect = sa.Engine.connect
    failures = [pymysql.err.OperationalError(2006, "gone away")]

    def flaky(engine: sa.Engine) -> sa.Connection:
        if failures:
            raise sa.exc.OperationalError("", {}, failures.pop())
        return connect(engine)

    monkeypatch.setattr(sa.Engine, "connect", flaky)
    with databases.source.read() as rows:
        assert rows.count("instances", uuid=SERVER) == 1
    assert len(pauses) == 1


def test_a_wrong_password_is_not_tried_again(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[sa.Engine] = []

    def denied(engine: sa.Engine) -> sa.Connection:
        asked.append(engine)
        raise sa.exc.OperationalError("", {}, pymysql.err.OperationalError(1045, "Access denied"))

    monkeypatch.setattr(sa.Engine, "connect", denied)
    with (
        pytest.raises(errors.Unreachable, match="Access denied"),
        databases.source.read(),
    ):
        pass
    assert len(asked) == 1


def test_foreign_keys_and_columns_are_found_in_the_live_schema(
    databases: Databases,
) -> None:
    with databases.source.read() as rows:
        assert "pci_devices" in rows.tables_with("instance_uuid")
        assert rows.tables_referring_to("instance_actions") == {
            "instance_actions_events": ("action_id", "id")
        }


def test_the_fake_cells_never_share_an_id(databases: Databases) -> None:
    ids = []
    for cell in (databases.source, databases.target):
        with cell.read() as rows:
            ids.append({row["id"] for row in rows.all("instances")})
    assert not ids[0] & ids[1]


def test_several_tables_are_read_as_one_by_one(databases: Databases) -> None:
    wanted = [
        ("instances", {"uuid": SERVER}),
        ("share_mapping", {"instance_uuid": SERVER}),
        ("tags", {"resource_id": SERVER}),
    ]
    with databases.source.read() as rows:
        assert rows.several(*wanted) == [rows.all(table, **where) for table, where in wanted]
        assert rows.counts(*wanted) == [1, 0, 2]
        assert rows.counts() == []


def test_rows_are_found_by_the_ids_of_other_rows(databases: Databases) -> None:
    with databases.source.read() as rows:
        actions = rows.all("instance_actions", instance_uuid=SERVER)
        events = rows.all("instance_actions_events", action_id=[row["id"] for row in actions])
        of_server = IdsOf("instance_actions", {"instance_uuid": SERVER})
        assert rows.all("instance_actions_events", action_id=of_server) == events
        nobodys = IdsOf("instance_actions", {"instance_uuid": OTHER})
        assert rows.count("instance_actions_events", action_id=nobodys) == 0


def test_without_ids_none_are_asked_for(databases: Databases) -> None:
    action = {"instance_uuid": SERVER, "action": "reboot"}
    with databases.source.write() as rows:
        assert rows.insert("instance_actions", [action, action], ids=False) == []
        assert rows.count("instance_actions", action="reboot") == 2


def test_a_schema_that_was_upgraded_is_seen_after_some_minutes(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = databases.source._engine.url
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    cell = Database(url, name="cell c")
    with cell.read() as rows:
        assert "novelty" not in rows.columns("instances")
    with_changed_schema(databases.source, "ALTER TABLE instances ADD COLUMN novelty TEXT")
    with cell.read() as rows:
        assert "novelty" not in rows.columns("instances")
    clock[0] += schema.KEPT_SECONDS + 1
    with cell.read() as rows:
        assert "novelty" in rows.columns("instances")
