"""The real schema, real records and the real accounts: what the fake cells stand for."""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from cellmove import errors
from cellmove.dbcopy import api, objects
from cellmove.dbcopy.cells import mapped_cells, open_cells
from cellmove.dbcopy.compare import differences
from cellmove.dbcopy.copy import Records, delete_records, leftovers, read_records, write_records
from cellmove.dbcopy.database import Database, Row, Rows, now
from cellmove.dbcopy.obstacles import obstacles
from cellmove.dbcopy.tables import ACTIONS, COPIED, DELETION_ORDER, EVENTS, unknown_tables
from cellmove.model import Cell
from tests.fakes import schema
from tests.fakes.databases import counted, request_spec
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import OUTPUTS, sql

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Lab:
    """The lab's databases, opened as cellmove opens them."""

    api: Database
    cells: dict[str, Database]
    """By name."""
    mapped: dict[str, Cell]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    config = tomllib.loads((OUTPUTS / "cellmove.toml").read_text())["database"]
    password = Path(config["password_file"]).read_text().strip()
    url = sa.make_url(config["url"]).set(password=password)
    database = Database(url, name="the API database")
    with database.read() as rows:
        mapped = [each for each in mapped_cells(rows) if not each.is_cell0]
    opened = open_cells(mapped, url, credentials=config["cell_credentials"])
    yield Lab(
        database,
        {each.cell.name: opened[each.cell.uuid] for each in mapped},
        {each.cell.name: each.cell for each in mapped},
    )
    for each in (database, *opened.values()):
        each.close()


@pytest.fixture(scope="module")
def server(admin_nova: Nova, blank: str) -> Iterator[str]:
    """A server that nova has just made on cmp1a; the tests of this module only look at it."""
    made = admin_nova.boot(f"dbcopy-{uuid.uuid4().hex[:8]}", "cmp1a", more={"imageRef": blank})
    yield made
    admin_nova.delete(made)


def read(database: Database, server: str) -> Records:
    with database.read() as rows:
        return read_records(rows, server)


@pytest.mark.parametrize("cell", ["cell1", "cell2"])
def test_the_census_lists_every_table_of_novas_schema_that_knows_a_server(
    lab: Lab, cell: str
) -> None:
    assert unknown_tables(lab.cells[cell]) == {}
    with lab.cells[cell].read() as rows:
        referring = rows.tables_referring_to("instances")
        assert referring["instance_extra"] == ("instance_uuid", "uuid")
        assert "shadow_instance_extra" not in rows.tables_with("instance_uuid")
        for table in COPIED:
            assert table.key in rows.columns(table.name)


def columns_of(server: str, database: str) -> dict[str, dict[str, bool]]:
    """Table -> column -> whether it may be NULL."""
    query = (
        "SELECT TABLE_NAME, COLUMN_NAME, IS_NULLABLE FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = '{database}'"
    )
    found: dict[str, dict[str, bool]] = {}
    for table, column, nullable in sql(server, query):
        found.setdefault(table, {})[column] = nullable == "YES"
    return found


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        (schema.API, ("api", "nova_api")),
        (schema.CELL, ("cell1", "nova_cell1")),
        (schema.CELL, ("cell2", "nova_cell2")),
    ],
    ids=["api", "cell1", "cell2"],
)
def test_the_fakes_tables_have_the_columns_of_the_real_ones(
    metadata: sa.MetaData, where: tuple[str, str]
) -> None:
    real = columns_of(*where)
    for name, table in metadata.tables.items():
        assert {column.name: bool(column.nullable) for column in table.columns} == real[name], name


def test_a_servers_records_are_read_whole(lab: Lab, server: str) -> None:
    records = read(lab.cells["cell1"], server)
    assert records.instance["host"] == "cmp1a"
    assert len(records.tables["instance_system_metadata"]) > 5
    (vif,) = records.tables["virtual_interfaces"]
    assert vif["address"].endswith(f"/{vif['uuid']}")
    assert [row["action"] for row in records.tables[ACTIONS]] == ["create"]
    assert records.tables[EVENTS][0]["action_id"] == records.tables[ACTIONS][0]["id"]


def test_the_flavor_in_the_records_is_the_one_in_the_api_database(lab: Lab, server: str) -> None:
    extra = read(lab.cells["cell1"], server).tables["instance_extra"][0]["flavor"]
    with lab.api.read() as rows:
        flavor = api.flavor(rows, name="c1")
        other = api.flavor(rows, name="c2")
        spec = api.request_spec(rows, server) or ""
    assert flavor is not None
    assert other is not None
    assert objects.flavor_of(extra) == flavor
    assert objects.flavors(extra, cur=flavor) == extra
    assert objects.spec_with_flavor(spec, flavor) == spec
    there_and_back = objects.spec_with_flavor(objects.spec_with_flavor(spec, other), flavor)
    expected = json.loads(spec)
    # nova itself names the server there at the first resize, and leaves it so.
    expected["nova_object.data"]["pci_requests"]["nova_object.data"]["instance_uuid"] = server
    assert json.loads(there_and_back) == expected


def test_the_fakes_request_spec_has_the_fields_of_novas(lab: Lab, server: str) -> None:
    with lab.api.read() as rows:
        flavor = api.flavor(rows, name="c1")
        real = objects._parsed(api.request_spec(rows, server) or "", "spec")
    assert flavor is not None
    fake = request_spec(server, flavor)
    assert fake["nova_object.version"] == real["nova_object.version"]
    assert fake[objects.DATA].keys() == real[objects.DATA].keys()


def test_a_host_and_its_service_are_found_in_its_cell(lab: Lab) -> None:
    with lab.api.read() as rows:
        cell = lab.mapped["cell2"]
        assert api.cell_of_host(rows, "cmp2b") == cell.id
        zone = api.zone_of_host(rows, "cmp2b")
    with lab.cells["cell2"].read() as rows:
        host = api.host(rows, "cmp2b", cell, zone)
        service = api.compute_service(rows, "cmp2b")
    assert host is not None
    assert (host.name, host.cell.name, host.zone) == ("cmp2b", "cell2", "nova")
    assert service is not None
    assert service.is_up()


def test_a_server_is_found_by_its_name(lab: Lab, server: str) -> None:
    name = read(lab.cells["cell1"], server).instance["display_name"]
    assert api.servers_named(lab.cells.values(), name) == [server]


def test_nothing_is_in_the_way_of_a_server_that_nova_has_just_made(lab: Lab, server: str) -> None:
    assert obstacles(lab.cells["cell1"], lab.cells["cell2"], server) == []


class TakenBack(Exception):
    """Ends a transaction that is only a rehearsal."""


@contextmanager
def rehearsal(database: Database) -> Iterator[Rows]:
    """A write that is rolled back in the end."""
    with suppress(TakenBack), database.write() as rows:
        yield rows
        raise TakenBack


def connection_of(rows: Rows) -> int:
    number = rows._connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
    return int(number)


def write_over_a_killed_connection(database: Database, server: str, *, then: bool) -> None:
    """`then`: use the connection once more before the commit."""
    with database.write() as rows:
        rows.change("instances", {"progress": 50}, uuid=server)
        sql(database.name.removeprefix("cell "), f"KILL {connection_of(rows)}")
        if then:
            rows.change("instances", {"progress": 51}, uuid=server)


def test_a_copy_in_the_other_cell_says_the_same_and_is_deleted_without_a_trace(
    lab: Lab, server: str
) -> None:
    here = read(lab.cells["cell1"], server)
    target = lab.cells["cell2"]
    with rehearsal(target) as rows:
        write_records(rows, here, instance={"hidden": True})
        there = read_records(rows, server)
        assert differences(here, there, fresh=True) == []
        assert there.instance["hidden"]
        assert leftovers(rows, server)["instances"] == 1
        delete_records(rows, server)
        assert leftovers(rows, server) == {}
    with target.read() as rows:
        assert leftovers(rows, server) == {}


def test_round_trips_are_counted_in_tables_not_in_rows(lab: Lab, server: str) -> None:
    source, target = lab.cells["cell1"], lab.cells["cell2"]
    read(source, server)
    with counted(source) as reading:
        records = read(source, server)
    bulky = _with_many_rows(records)
    with rehearsal(target) as rows:
        write_records(rows, records, instance={})
        delete_records(rows, server)
        with counted(target) as writing:
            write_records(rows, bulky, instance={})
        with counted(target) as deleting:
            delete_records(rows, server)
    assert len(reading) == 2
    # The EC2 id is looked for, and all is read again.
    assert len(writing) <= len(COPIED) + 2
    assert len(deleting) <= len(DELETION_ORDER) + 1


def _with_many_rows(records: Records) -> Records:
    """The same server after a long life, with a row in every table of the census."""
    owned = {"instance_uuid": records.server}
    (action,) = records.tables[ACTIONS]
    event = records.tables[EVENTS][0]
    more: dict[str, list[Row]] = {
        "instance_metadata": [owned | {"key": f"k{n}", "value": "v"} for n in range(100)],
        "tags": [{"resource_id": records.server, "tag": f"t{n}"} for n in range(50)],
        "instance_faults": [owned | {"code": 500, "message": "once"} for n in range(10)],
        "migrations": [owned | {"uuid": str(uuid.uuid4()), "status": "done"} for n in range(5)],
        ACTIONS: [action | {"id": 10_000 + n} for n in range(300)],
        EVENTS: [event | {"id": n, "action_id": 10_000 + n % 300} for n in range(900)],
    }
    bulky = {**records.tables, **{name: tuple(rows) for name, rows in more.items()}}
    assert all(bulky.values())
    return Records(records.server, bulky)


def test_the_server_itself_counts_the_same_round_trips(lab: Lab, server: str) -> None:
    """Nothing travels behind our back: no ping, no second rollback."""
    source = lab.cells["cell1"]
    read(source, server)
    before = _questions(source)
    with counted(source) as sent:
        read(source, server)
    # Its tables in one go, the rollback that ends a read, and what asks this very question.
    asked = _questions(source) - before
    assert len(sent) == 2
    assert asked <= len(COPIED) + 1 + 4


def _questions(database: Database) -> int:
    with database.read() as rows:
        (_, value) = rows._connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Questions'").one()
        return int(value)


def test_a_change_that_changes_nothing_still_counts_as_one(lab: Lab, server: str) -> None:
    with rehearsal(lab.cells["cell1"]) as rows:
        same = {"vm_state": "active", "updated_at": now()}
        assert rows.change("instances", same, uuid=server, task_state=None) == 1
        assert rows.change("instances", same, uuid=server, task_state=None) == 1


def test_a_value_that_does_not_fit_is_refused_not_cut(lab: Lab, server: str) -> None:
    with pytest.raises(errors.StepFailed, match="too long"), lab.cells["cell1"].write() as rows:
        rows.change("instances", {"display_name": "x" * 256}, uuid=server)


def test_a_read_cannot_write(lab: Lab, server: str) -> None:
    with pytest.raises(errors.StepFailed, match="READ ONLY"), lab.cells["cell1"].read() as rows:
        rows.change("instances", {"progress": 0}, uuid=server)


def test_a_lock_that_somebody_holds_is_a_conflict(lab: Lab, server: str) -> None:
    source = lab.cells["cell1"]
    with rehearsal(source) as holder:
        holder.change("instances", {"progress": 0}, uuid=server)
        with source.read() as rows:
            rows._connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
        with pytest.raises(errors.Conflict, match="held a lock"), source.write() as rows:
            rows.change("instances", {"progress": 0}, uuid=server)
    source.close()  # Others wait longer.


def test_a_lock_of_one_who_went_away_is_waited_for(lab: Lab, server: str) -> None:
    source = lab.cells["cell1"]
    with suppress(errors.Unreachable), rehearsal(source) as holder:
        holder.change("instances", {"progress": 0}, uuid=server)
        with source.write() as rows:
            assert rows.change("instances", {"progress": 0}, uuid=server) == 1


def test_a_connection_that_the_database_closed_is_opened_anew(lab: Lab, server: str) -> None:
    source = lab.cells["cell2"]
    with source.read() as rows:
        first = connection_of(rows)
    sql("cell2", f"KILL {first}")
    with source.read() as rows:
        assert connection_of(rows) != first


def test_a_connection_lost_in_the_middle_of_a_write_has_written_nothing(
    lab: Lab, server: str
) -> None:
    source = lab.cells["cell1"]
    before = read(source, server)
    with pytest.raises(errors.Unreachable, match="Nothing was written"):
        write_over_a_killed_connection(source, server, then=True)
    assert read(source, server).instance["progress"] == before.instance["progress"]


def test_a_connection_lost_before_the_commit_is_unknown_and_looked_up(
    lab: Lab, server: str
) -> None:
    source = lab.cells["cell1"]
    before = read(source, server)
    with pytest.raises(errors.Unknown):
        write_over_a_killed_connection(source, server, then=False)
    assert read(source, server).instance["progress"] == before.instance["progress"]


def test_what_the_account_may_not_do_is_said(lab: Lab) -> None:
    with pytest.raises(errors.StepFailed, match="denied"), lab.cells["cell1"].write() as rows:
        rows.change("compute_nodes", {"mapped": 1}, expect=None, host="cmp1a")
