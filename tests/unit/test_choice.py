"""Without a named host: nova's filters and weighers over all cells, and alternates of one cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellmove.choosing import Multipliers
from cellmove.errors import CellmoveError, Refused, StepFailed, Unreachable
from cellmove.intake import intake_resize
from cellmove.model import Allocations, Host
from tests.fakes.databases import CELL1, CELL2, IMAGE, NEIGHBOURS, add_server, counted
from tests.fakes.world import ACTOR, SERVER, World

OUTWARD = Multipliers(cross_cell_move_weight_multiplier=-1.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The server is on cmp1a; cmp2a has a neighbour, cmp1b and cmp2b have nothing on them."""
    return World(tmp_path)


def target(world: World, by: Multipliers | None = None, **wish: Any) -> Host:
    wish = {"flavor": "c2", "to_host": None, "to_cell": "cell2"} | wish
    actor = replace(ACTOR, multipliers=by or Multipliers())
    return intake_resize(world.cloud, SERVER, actor=actor, request_id="req-1", **wish).target


def node(world: World, host: str, **values: Any) -> None:
    with world.cells[CELL2.uuid].write() as rows:
        rows.change("compute_nodes", values, host=host)


def fill(world: World, host: str, **amounts: int) -> None:
    """Somebody's allocation on a host of cell2."""
    (row,) = world.query(CELL2.uuid, "SELECT uuid FROM compute_nodes WHERE host = ?", host)
    world.placement.replace([Allocations(f"filler-{host}", {row["uuid"]: amounts}, None)])


def service(world: World, host: str, **values: Any) -> None:
    with world.cells[CELL2.uuid].write() as rows:
        rows.change("services", values, host=host)


def aggregate(world: World, host: str, **metadata: str) -> None:
    with world.api.write() as rows:
        (made,) = rows.insert("aggregates", [{"name": f"of {host}", "uuid": f"agg-{host}"}])
        rows.insert("aggregate_hosts", [{"host": host, "aggregate_id": made}])
        rows.insert(
            "aggregate_metadata",
            [{"aggregate_id": made, "key": key, "value": text} for key, text in metadata.items()],
        )


def test_the_host_with_the_most_room_is_chosen(world: World) -> None:
    node(world, "cmp2a", free_ram_mb=9000)
    node(world, "cmp2b", free_ram_mb=3000)
    assert target(world).name == "cmp2a"
    node(world, "cmp2b", free_ram_mb=10000)
    assert target(world).name == "cmp2b"


def test_the_chosen_host_is_whole(world: World) -> None:
    found = target(world, without=("cmp2a",))
    (row,) = world.query(CELL2.uuid, "SELECT * FROM compute_nodes WHERE host = 'cmp2b'")
    assert (found.node_id, found.provider) == (row["id"], row["uuid"])
    assert (found.cell, found.zone, found.address) == (CELL2, "az2", row["host_ip"])


@pytest.mark.parametrize("amounts", [{"MEMORY_MB": 4000}, {"DISK_GB": 98}, {"VCPU": 16}])
def test_a_host_without_room_is_left_out(world: World, amounts: dict[str, int]) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    fill(world, "cmp2b", **amounts)
    assert target(world).name == "cmp2a"


@pytest.mark.parametrize("values", [{"disabled": True}, {"forced_down": True}, {"version": 46}])
def test_a_host_that_takes_nothing_is_left_out(world: World, values: dict[str, Any]) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    service(world, "cmp2b", **values)
    assert target(world).name == "cmp2a"


def test_an_aggregate_for_other_projects_is_left_out(world: World) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    aggregate(world, "cmp2b", filter_tenant_id="somebody-else")
    assert target(world).name == "cmp2a"


def test_a_host_for_isolated_images_is_left_out_unless_the_image_is_one(world: World) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    assert target(world, Multipliers(isolated_hosts=("cmp2b",))).name == "cmp2a"
    both = Multipliers(isolated_hosts=("cmp2a",), isolated_images=(IMAGE,))
    assert target(world, both).name == "cmp2a"


def test_an_aggregate_for_other_images_is_left_out(world: World) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    aggregate(world, "cmp2b", os_distro="rhel")
    with world.cells[CELL1.uuid].write() as rows:
        own = {"instance_uuid": SERVER, "key": "image_os_distro", "value": "debian"}
        rows.insert("instance_system_metadata", [own | {"deleted": 0}])
    assert target(world).name == "cmp2a"


def test_the_zone_that_was_asked_for_binds(world: World) -> None:
    (row,) = world.query("api", "SELECT spec FROM request_specs WHERE instance_uuid = ?", SERVER)
    spec = json.loads(row["spec"])
    spec["nova_object.data"]["availability_zone"] = "az1"
    with world.api.write() as rows:
        rows.change("request_specs", {"spec": json.dumps(spec)}, instance_uuid=SERVER)
    with pytest.raises(Refused, match="No host can take the server") as caught:
        target(world)
    assert "az2" in caught.value.seen
    assert "az1" in caught.value.seen


def test_the_best_host_of_the_servers_own_cell_is_left_to_nova(world: World) -> None:
    with pytest.raises(Refused, match="in its own cell cell1") as caught:
        target(world, to_cell=None)
    assert "cmp1b" in caught.value.what
    assert "--to-cell" in caught.value.do


def test_a_negative_multiplier_leads_out_of_the_cell(world: World) -> None:
    assert target(world, OUTWARD, to_cell=None).cell == CELL2


def test_a_disabled_cell_is_no_target(world: World) -> None:
    with world.api.write() as rows:
        rows.change("cell_mappings", {"disabled": True}, uuid=CELL2.uuid)
    with pytest.raises(Refused, match="It is disabled"):
        target(world)
    with pytest.raises(Refused, match="in its own cell"):
        target(world, OUTWARD, to_cell=None)


def test_where_none_fits_every_host_is_named_with_its_reason(world: World) -> None:
    service(world, "cmp2a", disabled=True)
    fill(world, "cmp2b", DISK_GB=100, VCPU=16)
    with pytest.raises(Refused) as caught:
        target(world)
    assert "cmp2a: nova-compute on cmp2a is disabled" in caught.value.seen
    assert "cmp2b: Placement has no room" in caught.value.seen
    assert caught.value.do


def test_an_alternate_is_taken_when_the_host_itself_speaks_against_it(world: World) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    assert target(world).name == "cmp2b"
    world.hosts.reach("cmp2b").make_directory(SERVER)  # left of something
    assert target(world).name == "cmp2a"


def test_a_host_that_does_not_answer_is_passed_over_and_told(world: World) -> None:
    node(world, "cmp2b", free_ram_mb=10**6)
    world.hosts.unreachable.add("cmp2b")
    said: list[str] = []
    assert target(world, remark=said.append).name == "cmp2a"
    (text,) = said
    assert text.startswith("cmp2b is passed over: cmp2b cannot be the target.")
    assert "cannot be reached" in text


def test_where_no_host_answers_each_is_told_and_nothing_is_touched(world: World) -> None:
    world.hosts.unreachable |= {"cmp2a", "cmp2b"}
    before = world.snapshot()
    with pytest.raises(Refused) as caught:
        target(world)
    assert all(f"{host} cannot be the target." in str(caught.value) for host in ("cmp2a", "cmp2b"))
    assert world.snapshot() == before


def test_a_service_that_does_not_answer_speaks_against_no_host(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise Unreachable("placement cannot be reached.", "Nobody answers.", "Try again.")

    monkeypatch.setattr(world.placement, "candidates", away)
    with pytest.raises(Unreachable, match=r"^placement cannot be reached\."):
        target(world)


def test_a_source_that_fails_speaks_against_no_host(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for its disks after the services were asked for the target."""

    def broken(*_: Any) -> Any:
        raise StepFailed("The disks on cmp1a cannot be read.", "qemu-img says so.", "Look.")

    monkeypatch.setattr(type(world.hosts.reach("cmp1a")), "disks", broken)
    with pytest.raises(StepFailed, match=r"^The disks on cmp1a cannot be read\."):
        target(world)


def test_a_named_host_that_does_not_answer_is_no_reason_to_take_another(world: World) -> None:
    world.hosts.unreachable.add("cmp2b")
    with pytest.raises(Unreachable):
        target(world, to_cell=None, to_host="cmp2b")


def test_where_all_alternates_are_unfit_every_reason_is_told(world: World) -> None:
    for host in ("cmp2a", "cmp2b"):
        world.hosts.reach(host).make_directory(SERVER)
    with pytest.raises(CellmoveError) as caught:
        target(world)
    told = str(caught.value)
    assert "cmp2a" in told
    assert "cmp2b" in told


def test_a_host_that_was_tried_is_not_tried_again(world: World) -> None:
    assert target(world, without=("cmp2a",)).name == "cmp2b"
    assert target(world, without=("cmp2b",)).name == "cmp2a"
    with pytest.raises(Refused, match="No host can take the server"):
        target(world, without=("cmp2a", "cmp2b"))


def test_members_of_a_group_count_over_all_cells(world: World) -> None:
    node(world, "cmp2a", free_ram_mb=10**6)
    with world.api.write() as rows:
        (made,) = rows.insert("instance_groups", [{"uuid": "g", "name": "g", "user_id": "u"}])
        rows.insert("instance_group_policy", [{"group_id": made, "policy": "anti-affinity"}])
        rows.insert(
            "instance_group_member",
            [{"group_id": made, "instance_uuid": each} for each in (SERVER, NEIGHBOURS["cmp2a"])],
        )
    assert target(world).name == "cmp2b"


def statements(world: World) -> Iterator[int]:
    for database in (world.api, *world.cells.values()):
        with counted(database) as sent:
            target(world, flavor=None)
        yield len(sent)


def test_statements_do_not_grow_with_hosts_or_servers(world: World) -> None:
    target(world, flavor=None)
    before = list(statements(world))
    for number in range(20):
        name = f"more{number}"
        _another_host(world, name)
        add_server(
            world.api,
            world.cells[CELL1.uuid],
            uuid=f"dddddddd-0000-4000-8000-{number:012}",
            host="cmp1b",
        )
    assert list(statements(world)) == before


def _another_host(world: World, name: str) -> None:
    (like,) = world.query(CELL2.uuid, "SELECT * FROM compute_nodes WHERE host = 'cmp2b'")
    (served,) = world.query(CELL2.uuid, "SELECT * FROM services WHERE host = 'cmp2b'")
    new = {"id": None, "host": name, "hypervisor_hostname": name, "uuid": f"rp-{name}"}
    with world.cells[CELL2.uuid].write() as rows:
        rows.insert("compute_nodes", [_without_id({**like, **new})])
        rows.insert("services", [_without_id({**served, "host": name, "uuid": f"s-{name}"})])
    with world.api.write() as rows:
        rows.insert("host_mappings", [{"host": name, "cell_id": CELL2.id}])


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != "id"}
