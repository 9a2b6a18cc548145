"""`cellmove check --server`, and what policy and quota say at intake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cellmove.errors import Refusals, Refused
from cellmove.intake import intake_confirm, intake_resize, intake_revert
from cellmove.intake.quota import Quota
from cellmove.policy import CROSS_CELL, PolicyFile
from tests.fakes.databases import CELL1
from tests.fakes.world import ACTOR, SERVER, World
from tests.unit.conftest import Terminal
from tests.unit.rehearsal import Rehearsal

NOBODY = replace(ACTOR, policy=PolicyFile({"user_id": "u", "project_id": "p", "roles": ["admin"]}))
POOR = replace(ACTOR, quota=Quota(cores=0, ram_mb=0))
REQUEST = "req-00000000-0000-4000-8000-000000000009"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_server_that_can_be_moved_has_nothing_against_it(terminal: Terminal) -> None:
    before = terminal.world.snapshot()
    ran = terminal.type("check", "--server", "web-1", "--to-host", "cmp2a", "--json")
    assert ran.code == 0
    assert ran.json["server"] == SERVER
    assert (ran.json["host"], ran.json["to_host"], ran.json["to_cell"]) == (
        "cmp1a",
        "cmp2a",
        "cell2",
    )
    assert ran.json["reasons"] == []
    table = terminal.type("check", "--server", "web-1", "--to-cell", "cell2")
    assert "can be moved to" in table.out
    assert terminal.world.snapshot() == before
    assert not terminal.journal.exists()


def test_all_reasons_are_told_though_flavor_and_target_are_refused(terminal: Terminal) -> None:
    with terminal.world.cells[CELL1.uuid].write() as rows:
        rows.change("instances", {"task_state": "rebooting"}, expect=None, uuid=SERVER)
    wish = ("--server", SERVER, "--flavor", "none", "--to-host", "nowhere")
    ran = terminal.type("check", *wish, "--json")
    assert ran.code == ran.json["exit_code"] == 7
    assert [each["what"] for each in ran.json["reasons"]] == [
        "Something else works on the server.",
        "There is no flavor 'none'.",
        "nova knows no host 'nowhere'.",
    ]
    assert (ran.json["to_host"], ran.json["to_cell"]) == (None, None)
    table = terminal.type("check", *wish)
    assert (table.code, table.err) == (7, "")
    assert "cannot be moved:" in table.out


def test_one_reason_is_one_finding(terminal: Terminal) -> None:
    ran = terminal.type("check", "--server", SERVER, "--to-host", "cmp1b", "--json")
    assert ran.code == 7
    (reason,) = ran.json["reasons"]
    assert reason["what"] == "Host cmp1b cannot be the target."


def test_a_server_that_is_not_there_is_an_error_and_no_finding(terminal: Terminal) -> None:
    ran = terminal.type("check", "--server", "web-9")
    assert (ran.code, ran.out) == (1, "")


@pytest.mark.parametrize("option", ["--flavor", "--to-host", "--to-cell"])
def test_a_wish_without_a_server_is_a_wrong_usage(terminal: Terminal, option: str) -> None:
    ran = terminal.type("check", option, "x")
    assert ran.code == 2
    assert "want --server" in ran.err


@pytest.mark.parametrize("flavor", [None, "c2"])
def test_a_move_that_the_policy_forbids_is_refused_with_all_else(
    world: World, flavor: str | None
) -> None:
    with pytest.raises(Refusals) as refused:
        intake_resize(
            world.cloud,
            SERVER,
            flavor=flavor,
            to_host="cmp1b",
            to_cell=None,
            actor=NOBODY,
            request_id=REQUEST,
        )
    policy, target = refused.value.reasons
    assert CROSS_CELL in policy.seen
    assert "cmp1b" in target.what


def test_a_flavor_beyond_the_quota_is_refused_and_the_same_flavor_is_not(world: World) -> None:
    def take(flavor: str | None) -> None:
        intake_resize(
            world.cloud,
            SERVER,
            flavor=flavor,
            to_host="cmp2a",
            to_cell=None,
            actor=POOR,
            request_id=REQUEST,
        )

    take(None)
    with pytest.raises(Refused) as refused:
        take("c2")
    assert "no quota for flavor c2" in str(refused.value)


def test_ending_a_resize_wants_an_owner_or_administrator(world: World) -> None:
    Rehearsal(world, "resize")
    stranger = PolicyFile({"user_id": "u", "project_id": "p", "roles": ["member"]})
    for take in (intake_confirm, intake_revert):
        with pytest.raises(Refused, match="policy does not allow"):
            take(world.cloud, SERVER, actor=replace(ACTOR, policy=stranger), request_id=REQUEST)
        take(world.cloud, SERVER, actor=NOBODY, request_id=REQUEST)


def test_reverting_to_a_larger_flavor_needs_quota(world: World) -> None:
    Rehearsal(world, "resize")
    with world.cells[CELL1.uuid].write() as rows:
        extra = rows.all("instance_extra", instance_uuid=SERVER)[0]
        larger = extra["flavor"].replace('"memory_mb": 128', '"memory_mb": 999')
        assert larger != extra["flavor"]
        rows.change("instance_extra", {"flavor": larger}, expect=None, instance_uuid=SERVER)
    with pytest.raises(Refused, match="no quota for flavor c1"):
        intake_revert(world.cloud, SERVER, actor=POOR, request_id=REQUEST)
    intake_confirm(world.cloud, SERVER, actor=POOR, request_id=REQUEST)
