"""Servers over all cells, each once; and what two copies of one say differently."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import Refused
from cellmove.intake.copies import compare
from cellmove.intake.listing import Listed, listing, status_of
from cellmove.journal import Verb
from cellmove.plan import plan
from tests.fakes.databases import (
    BORN,
    CELL1,
    CELL2,
    NEIGHBOURS,
    PROJECT,
    add_server,
    counted,
)
from tests.fakes.world import SERVER, World, perform
from tests.unit.conftest import Terminal

OTHER = "99999999-0000-4000-8000-000000000000"
OLD, NEW = NEIGHBOURS["cmp1a"], NEIGHBOURS["cmp2a"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ids(found: list[Listed]) -> list[str]:
    return [each.server for each in found]


def change(world: World, cell: Any, server: str = SERVER, **values: Any) -> None:
    with world.cells[cell.uuid].write() as rows:
        rows.change("instances", values, uuid=server)


def test_every_cells_servers_are_listed_newest_first(world: World) -> None:
    change(world, CELL2, NEW, created_at=BORN + dt.timedelta(days=1))
    change(world, CELL1, OLD, created_at=BORN - dt.timedelta(days=1))
    found = listing(world.cloud)
    assert ids(found) == [NEW, SERVER, OLD]
    assert found[1] == Listed(SERVER, "web-1", PROJECT, "ACTIVE", "cmp1a", CELL1, "c1")


def test_equal_times_are_ordered_by_falling_uuid(world: World) -> None:
    found = ids(listing(world.cloud))
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"hidden": None}, True),
        ({"hidden": True}, False),
        ({"deleted": 5}, False),
        ({"vm_state": "soft-delete"}, False),
        ({"vm_state": None}, True),
        ({"host": None, "node": None}, True),
    ],
)
def test_what_nova_lists_is_listed(world: World, values: dict[str, Any], shown: bool) -> None:
    change(world, CELL1, **values)
    assert (SERVER in ids(listing(world.cloud))) is shown


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_at_every_step_of_a_move_the_server_is_listed_once_and_where_it_is_mapped(
    world: World, verb: Verb
) -> None:
    verbs: tuple[Verb, ...] = ("resize", verb)
    for each in verbs:
        for step in plan(each, world.move(each)):
            perform(step, world)
            (mapping,) = world.query(
                "api", "SELECT cell_id FROM instance_mappings WHERE instance_uuid = ?", SERVER
            )
            (found,) = [each for each in listing(world.cloud) if each.server == SERVER]
            assert found.cell.id == mapping["cell_id"], step.name


def test_the_flavor_is_the_one_in_the_servers_own_records(world: World) -> None:
    with world.api.write() as rows:
        rows.delete("flavors", name="c1")
    assert {each.flavor for each in listing(world.cloud)} == {"c1"}


def test_filters(world: World) -> None:
    add_server(world.api, world.cells[CELL2.uuid], uuid=OTHER, host="cmp2b", project="p2", name="x")
    assert set(ids(listing(world.cloud, cell="cell2"))) == {NEW, OTHER}
    assert ids(listing(world.cloud, cell=CELL2.uuid, host="cmp2b")) == [OTHER]
    assert ids(listing(world.cloud, project_id="p2")) == [OTHER]
    assert ids(listing(world.cloud, cell="cell1", host="cmp2b")) == []
    assert ids(listing(world.cloud, project_id="nobody's")) == []


@pytest.mark.parametrize("asked", [{"cell": "cell9"}, {"host": "cmp9"}])
def test_what_is_unknown_is_named(world: World, asked: dict[str, str]) -> None:
    with pytest.raises(Refused, match=next(iter(asked.values()))) as refused:
        listing(world.cloud, **asked)
    assert refused.value.seen
    assert refused.value.do


def test_statements_grow_with_cells_and_not_with_servers(world: World) -> None:
    listing(world.cloud)
    counts = []
    for more in (0, 40):
        for n in range(more):
            add_server(
                world.api,
                world.cells[CELL1.uuid],
                uuid=f"{n:08d}-0000-4000-8000-000000000000",
                host="cmp1a",
            )
        with counted(world.api) as api, counted(world.cells[CELL1.uuid]) as cell:
            listing(world.cloud)
        counts.append((len(api), len(cell)))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("vm_state", "task_state", "status"),
    [
        ("active", None, "ACTIVE"),
        ("active", "resize_migrating", "RESIZE"),
        ("active", "rebooting_hard", "HARD_REBOOT"),
        ("stopped", None, "SHUTOFF"),
        ("resized", None, "VERIFY_RESIZE"),
        ("resized", "resize_reverting", "REVERT_RESIZE"),
        ("error", "rebuilding", "REBUILD"),
        ("active", "image_snapshot", "ACTIVE"),
        ("nonsense", None, "UNKNOWN"),
        (None, None, "UNKNOWN"),
    ],
)
def test_a_status_is_as_novas_api_says(
    vm_state: str | None, task_state: str | None, status: str
) -> None:
    assert status_of(vm_state, task_state) == status


def resized(world: World) -> World:
    for step in plan("resize", world.move("resize")):
        perform(step, world)
    return world


def test_the_copies_of_a_resized_server_differ_only_by_design(world: World) -> None:
    found = compare(resized(world).cloud, "web-1")
    assert (found.server, found.here, found.there) == (SERVER, CELL2, CELL1)
    assert found.found == []


def test_at_no_step_between_the_copy_and_the_end_do_the_copies_differ(world: World) -> None:
    """But for a moment, while the claim is written in one cell after the other."""
    verbs: tuple[Verb, ...] = ("resize", "revert")
    for verb in verbs:
        for step in plan(verb, world.move(verb)):
            perform(step, world)
            if step.name != "write-target-claim" and all(
                world.query(cell.uuid, "SELECT id FROM instances WHERE uuid = ?", SERVER)
                for cell in (CELL1, CELL2)
            ):
                assert compare(world.cloud, SERVER).found == [], step.name


def test_what_was_changed_since_is_told_owner_first(world: World) -> None:
    change(resized(world), CELL2, display_name="WEB-1")
    (difference,) = compare(world.cloud, SERVER).found
    assert (difference.table, difference.column) == ("instances", "display_name")
    assert (difference.here, difference.there) == ("WEB-1", "web-1")


@pytest.mark.parametrize("asked", [SERVER, OTHER, "no-such-name"])
def test_without_two_copies_there_is_nothing_to_compare(world: World, asked: str) -> None:
    with pytest.raises(Refused) as refused:
        compare(world.cloud, asked)
    assert refused.value.seen
    assert refused.value.do


def test_the_commands_answer_in_both_forms(terminal: Terminal) -> None:
    listed = terminal.type("list", "--cell", "cell1", "--project", PROJECT)
    assert listed.code == 0
    assert f"{SERVER}  web-1" in listed.out
    assert NEW not in listed.out
    servers = terminal.type("list", "--json").json["servers"]
    assert [each["name"] for each in servers if each["server"] == SERVER] == ["web-1"]
    refused = terminal.type("compare", "web-1")
    assert refused.code == 1
    assert "no two copies" in refused.err
    resized(terminal.world)
    same = terminal.type("compare", "web-1")
    assert (same.code, "0 difference(s)" in same.out) == (0, True)
    change(terminal.world, CELL2, display_description="new")
    differ = terminal.type("compare", "web-1", "--json")
    assert differ.code == differ.json["exit_code"] == 7
    (difference,) = differ.json["differences"]
    assert difference["column"] == "display_description"
    assert "display_description" in terminal.type("compare", "web-1").out


def test_a_hostile_name_is_one_line(terminal: Terminal) -> None:
    change(terminal.world, CELL1, display_name="a\x1b[31m\nb [red]")
    out = terminal.type("list").out
    assert "a?[31m?b [red]" in out
    assert "\x1b" not in out
