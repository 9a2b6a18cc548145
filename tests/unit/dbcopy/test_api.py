"""What intake asks the API database and a cell."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cellmove import errors
from cellmove.dbcopy import api
from cellmove.dbcopy.database import now
from tests.fakes.databases import C1, C2, CELL1, CELL2, NEIGHBOURS, PROJECT, add_server
from tests.unit.dbcopy.conftest import SERVER, Databases


def test_a_servers_mapping_names_its_cell_and_owner(databases: Databases) -> None:
    with databases.api.read() as rows:
        mapping = api.instance_mapping(rows, SERVER)
        assert mapping is not None
        assert (mapping["cell_id"], mapping["project_id"]) == (CELL1.id, PROJECT)
        assert api.instance_mapping(rows, "nobody") is None


def test_servers_are_found_by_name_in_all_cells_but_hidden_and_deleted_ones(
    databases: Databases,
) -> None:
    cells = [databases.source, databases.target]
    extra = [f"{digit}" * 8 + "-0000-4000-8000-000000000000" for digit in "4567"]
    where = ("cmp1a", "cmp2a", "cmp2b", "cmp2b")
    state: list[dict[str, Any]] = [
        {},
        {"hidden": None},
        {"hidden": True},
        {"deleted": 9},
    ]
    for uuid, host, columns in zip(extra, where, state, strict=True):
        cell = databases.source if host == "cmp1a" else databases.target
        add_server(databases.api, cell, uuid=uuid, host=host, name="twin", **columns)
    assert api.servers_named(cells, "twin") == extra[:2]
    assert api.servers_named(cells, "web-1") == [SERVER]
    assert api.servers_named(cells, "nobody") == []


def test_a_host_belongs_to_a_cell(databases: Databases) -> None:
    with databases.api.read() as rows:
        assert api.cell_of_host(rows, "cmp2b") == CELL2.id
        assert api.cell_of_host(rows, "nobody") is None
        assert api.hosts_of_cell(rows, CELL1) == ["cmp1a", "cmp1b"]


def test_a_flavor_is_found_by_id_flavorid_and_name(databases: Databases) -> None:
    with databases.api.read() as rows:
        assert api.flavor(rows, name="c2") == C2
        assert api.flavor(rows, flavorid="c1") == C1
        assert api.flavor(rows, row_id=C2.id) == C2
        assert api.flavor(rows, name="nobody") is None
        with pytest.raises(ValueError, match="ask for"):
            api.flavor(rows)


def test_the_zone_is_that_of_the_first_aggregate_that_names_one(
    databases: Databases,
) -> None:
    with databases.api.write() as rows:
        (plain, second) = rows.insert("aggregates", [{"name": "ssd"}, {"name": "late"}])
        rows.insert(
            "aggregate_hosts",
            [{"host": host, "aggregate_id": plain} for host in ("cmp1a", "alone")]
            + [{"host": "cmp1a", "aggregate_id": second}],
        )
        values = {"aggregate_id": second, "key": "availability_zone", "value": "late"}
        rows.insert("aggregate_metadata", [values])
        assert api.zone_of_host(rows, "cmp1a") == "az1"
        assert api.zone_of_host(rows, "alone") == "nova"
        assert api.zone_of_host(rows, "nobody", default="elsewhere") == "elsewhere"


def test_a_server_may_still_be_building(databases: Databases) -> None:
    with databases.api.write() as rows:
        rows.insert("build_requests", [{"instance_uuid": "young", "project_id": PROJECT}])
        assert api.is_building(rows, "young")
        assert not api.is_building(rows, SERVER)


def test_a_request_spec_is_json_text(databases: Databases) -> None:
    with databases.api.read() as rows:
        assert '"RequestSpec"' in (api.request_spec(rows, SERVER) or "")
        assert api.request_spec(rows, "nobody") is None


def test_a_servers_group_has_its_policy_and_members(databases: Databases) -> None:
    with databases.api.write() as rows:
        (group,) = rows.insert("instance_groups", [{"uuid": "g", "name": "pair"}])
        rows.insert("instance_group_policy", [{"group_id": group, "policy": "anti-affinity"}])
        members = [SERVER, NEIGHBOURS["cmp2a"]]
        values = [{"group_id": group, "instance_uuid": member} for member in members]
        rows.insert("instance_group_member", values)
        found = api.server_group(rows, SERVER)
        assert found == api.ServerGroup("g", "pair", "anti-affinity", tuple(members))
        rules = {"rules": '{"max_server_per_host": 3}'}
        rows.change("instance_group_policy", rules, expect=None, group_id=group)
        assert getattr(api.server_group(rows, SERVER), "max_per_host", None) == 3
        assert api.server_group(rows, "nobody") is None


def test_a_host_is_its_compute_node(databases: Databases) -> None:
    with databases.target.read() as rows:
        host = api.host(rows, "cmp2b", CELL2, "az2")
        assert host is not None
        assert (host.node, host.zone, host.cell) == ("cmp2b", "az2", CELL2)
        assert host.node_id == rows.all("compute_nodes", host="cmp2b")[0]["id"]
        assert host.address == "192.0.2.31"
        assert api.host(rows, "cmp1a", CELL2, "az2") is None


def test_a_host_with_several_nodes_is_not_chosen_from(databases: Databases) -> None:
    with databases.source.write() as rows:
        node = rows.all("compute_nodes", host="cmp1a")[0]
        other = {"id": None, "uuid": "other", "hypervisor_hostname": "metal"}
        values = {name: value for name, value in (node | other).items() if name != "id"}
        rows.insert("compute_nodes", [values])
        with pytest.raises(errors.Conflict):
            api.host(rows, "cmp1a", CELL1, "az1")


@pytest.mark.parametrize(
    ("seen_seconds_ago", "columns", "up"),
    [
        (0, {}, True),
        (300, {}, False),
        (0, {"forced_down": True}, False),
        (None, {"created_at": None}, False),
    ],
)
def test_a_service_is_up_when_it_was_seen_within_a_minute(
    databases: Databases, seen_seconds_ago: int | None, columns: dict[str, object], up: bool
) -> None:
    seen = None
    if seen_seconds_ago is not None:
        seen = now() - datetime.timedelta(seconds=seen_seconds_ago)
    with databases.source.write() as rows:
        rows.change("services", {"last_seen_up": seen, **columns}, host="cmp1a")
        service = api.compute_service(rows, "cmp1a")
        assert service is not None
        assert service.is_up() is up
        assert not service.disabled
        assert api.compute_service(rows, "nobody") is None
