"""Without a named host: another cell's host that is up, enabled, and has the most free memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import Refused
from cellmove.intake.schedule import choose
from cellmove.model import Allocations, Cell
from tests.fakes.databases import C2, CELL1, CELL2
from tests.fakes.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """cmp2a has a neighbour, cmp2b has nothing on it."""
    return World(tmp_path)


def chosen(world: World, cells: Sequence[Cell] = (CELL2,)) -> str:
    return choose(world.cloud, cells, C2).name


def fill(world: World, host: str, **amounts: int) -> None:
    """Somebody's allocation on a host of cell2."""
    (node,) = world.query(CELL2.uuid, "SELECT uuid FROM compute_nodes WHERE host = ?", host)
    world.placement.replace([Allocations(f"filler-{host}", {node["uuid"]: amounts}, None)])


def service(world: World, host: str, **values: Any) -> None:
    with world.cells[CELL2.uuid].write() as rows:
        rows.change("services", values, host=host)


def test_the_host_with_the_most_free_memory_is_chosen(world: World) -> None:
    assert chosen(world) == "cmp2b"
    fill(world, "cmp2b", MEMORY_MB=2048)
    assert chosen(world) == "cmp2a"


def test_equal_hosts_are_chosen_by_name(world: World) -> None:
    fill(world, "cmp2b", MEMORY_MB=128)
    assert chosen(world) == "cmp2a"


@pytest.mark.parametrize("amounts", [{"MEMORY_MB": 4000}, {"DISK_GB": 98}, {"VCPU": 16}])
def test_a_host_without_room_is_left_out(world: World, amounts: dict[str, int]) -> None:
    fill(world, "cmp2b", **amounts)
    assert chosen(world) == "cmp2a"


@pytest.mark.parametrize("values", [{"disabled": True}, {"forced_down": True}])
def test_a_host_that_takes_nothing_is_left_out(world: World, values: dict[str, bool]) -> None:
    service(world, "cmp2b", **values)
    assert chosen(world) == "cmp2a"


def test_all_cells_that_are_given_are_searched(world: World) -> None:
    service(world, "cmp2a", disabled=True)
    service(world, "cmp2b", disabled=True)
    assert chosen(world, (CELL2, CELL1)) == "cmp1b"


def test_the_chosen_host_is_whole(world: World) -> None:
    host = choose(world.cloud, [CELL2], C2)
    (node,) = world.query(CELL2.uuid, "SELECT * FROM compute_nodes WHERE host = 'cmp2b'")
    assert (host.node_id, host.provider) == (node["id"], node["uuid"])
    assert (host.cell, host.zone, host.address) == (CELL2, "az2", node["host_ip"])


def test_where_none_fits_every_host_is_named_with_its_reason(world: World) -> None:
    service(world, "cmp2a", disabled=True)
    fill(world, "cmp2b", DISK_GB=100, VCPU=16)
    with pytest.raises(Refused) as caught:
        chosen(world)
    assert caught.value.seen == ("cmp2a: nova-compute is disabled; cmp2b: too little VCPU, DISK_GB")
    assert caught.value.do


def test_without_another_cell_there_is_none(world: World) -> None:
    with pytest.raises(Refused, match=r"There is none\."):
        chosen(world, ())
