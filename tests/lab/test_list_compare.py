"""`list` says what nova's API lists, and `compare` what two copies of a server say differently."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
AT_SOURCE = "compute_prep_snapshot_based_resize_at_source"
TRIES = 5
"""Other tests' servers come and go while one looks twice."""


def by_nova(nova: Nova, **only: str) -> list[dict[str, Any]]:
    """The servers of all projects as nova lists them, in its order, told as cellmove does."""
    answer = nova._compute.get("/servers/detail", all_tenants="1", **only)
    assert answer.ok
    return [
        {
            "server": each["id"],
            "name": each["name"],
            "project_id": each["tenant_id"],
            "status": each["status"],
            "host": each["OS-EXT-SRV-ATTR:host"],
            "flavor": each["flavor"]["original_name"],
        }
        for each in answer.body["servers"]
        if each["OS-EXT-SRV-ATTR:host"] is not None  # not built yet, or never placed
    ]


def by_cellmove(cellmove: Cellmove, *only: str) -> list[dict[str, Any]]:
    servers: list[dict[str, Any]] = cellmove("list", "--json", *only).json()["servers"]
    for each in servers:
        assert each["cell"] == f"cell{each['host'][3]}"
    return [{k: v for k, v in each.items() if k != "cell"} for each in servers if each["host"]]


def agree(nova: Nova, cellmove: Cellmove, server: str, *only: str, **asked: str) -> dict[str, Any]:
    """Both lists are the same, in the same order; returns the entry of this server."""
    for _ in range(TRIES):
        before = by_nova(nova, **asked)
        ours = by_cellmove(cellmove, *only)
        if before == by_nova(nova, **asked):
            assert ours == before
            (entry,) = [each for each in ours if each["server"] == server]
            return entry
    pytest.fail("the lab does not hold still")


def test_a_server_is_listed_as_nova_lists_it_and_its_copies_compared(
    nova: Nova, blank: str, cellmove: Cellmove
) -> None:
    with nova.lent("list", SOURCE, more={"imageRef": blank}) as server:
        nova.wait_port(server, SOURCE)
        assert agree(nova, cellmove, server)["status"] == "ACTIVE"
        alone = cellmove("compare", server, check=False)
        assert alone.code == 1
        assert "records are in cell1" in alone.stderr

        cellmove("resize", server, "--flavor", "c2", "--to-host", TARGET)
        entry = agree(nova, cellmove, server)
        assert (entry["status"], entry["host"], entry["flavor"]) == ("VERIFY_RESIZE", TARGET, "c2")
        name = nova.show(server)["name"]
        project = nova.show(server)["tenant_id"]
        filters = ("--host", TARGET, "--cell", "cell2", "--project", project)
        assert agree(nova, cellmove, server, *filters, host=TARGET, project_id=project) == entry
        assert server in cellmove("list", "--project", "demo").stdout
        assert server not in cellmove("list", "--cell", "cell1").stdout
        assert server not in cellmove("list", "--host", SOURCE).stdout

        same = cellmove("compare", name)
        assert f"{name} ({server}): 0 difference(s)" in same.stdout
        rename = {"server": {"name": name.upper()}}
        assert nova._compute.send("PUT", f"/servers/{server}", rename).ok
        differ = cellmove("compare", server, "--json", check=False)
        assert differ.code == 7
        document = differ.json()
        assert (document["cell"], document["other_cell"]) == ("cell2", "cell1")
        (difference,) = document["differences"]
        assert difference["column"] == "display_name"
        assert (difference["here"], difference["there"]) == (name.upper(), name)

        (resize,) = (each for each in nova.actions(server) if each["action"] == "resize")
        assert AT_SOURCE not in [each["event"] for each in nova.events(server, resize)]
        cellmove("confirm", server, "--yes")
        assert agree(nova, cellmove, server)["status"] == "ACTIVE"
        # What only the source cell had seen is not deleted with its records.
        events = {each["event"]: each["result"] for each in nova.events(server, resize)}
        assert events[AT_SOURCE] == "Success"
        assert cellmove("compare", server, check=False).code == 1
        nova.delete(server)
        nothing_left(server)


@pytest.mark.parametrize(
    ("option", "see"),
    [
        ("--cell", "cell1, cell2"),
        ("--host", "openstack compute service list"),
        ("--project", "openstack project list"),
    ],
)
def test_what_does_not_exist_is_one_clear_error(cellmove: Cellmove, option: str, see: str) -> None:
    failed = cellmove("list", option, "no-such", check=False)
    assert failed.code == 1
    assert "'no-such'" in failed.stderr
    assert see in failed.stderr
    assert failed.stdout == ""
