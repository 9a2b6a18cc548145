"""A plan as a file: done exactly, or refused by the name of what has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellmove.intake import planfile
from cellmove.model import Cell
from cellmove.steps.disks import MakeTargetDirectory
from tests.fakes.databases import CELL1, CELL2
from tests.fakes.world import SERVER
from tests.unit.conftest import Terminal
from tests.unit.test_alternates import fail_on

PLANNING = ("resize", "web-1", "--flavor", "c2", "--to-cell", "cell2", "--dry-run")


@pytest.fixture
def plan(terminal: Terminal, tmp_path: Path) -> Path:
    """A plan of web-1 into cell2."""
    path = tmp_path / "plan.json"
    ran = terminal.type(*PLANNING, "--out", str(path))
    assert ran.code == 0, ran.err
    assert f"cellmove resize --plan {path}" in ran.out
    return path


def change(terminal: Terminal, table: str, values: dict[str, Any], **where: Any) -> None:
    with terminal.world.cells[CELL1.uuid].write() as rows:
        rows.change(table, values, **where)


def test_a_plan_is_for_its_owner_alone_and_changes_nothing(
    terminal: Terminal, tmp_path: Path
) -> None:
    before = terminal.world.snapshot()
    path = tmp_path / "plan.json"
    assert terminal.type(*PLANNING, "--out", str(path)).code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.glob("*plan*")] == ["plan.json"]
    assert terminal.world.snapshot() == before
    assert not terminal.journal.exists()


def test_a_plan_is_written_over_nothing(terminal: Terminal, plan: Path) -> None:
    was = plan.read_bytes()
    ran = terminal.type(*PLANNING, "--out", str(plan))
    assert ran.code == 1
    assert "something of this name already" in ran.err
    assert plan.read_bytes() == was


def test_a_plan_is_done_exactly(terminal: Terminal, plan: Path) -> None:
    planned = json.loads(plan.read_text())["move"]
    ran = terminal.type("resize", "--plan", str(plan), "--json")
    assert ran.code == 0, ran.out
    (result,) = ran.json["results"]
    assert (result["server"], result["host"]) == (SERVER, planned["target"]["name"])
    (entry,) = terminal.type("moves", "--json").json["moves"]
    assert (entry["id"], entry["migration"]) == (planned["id"], planned["migration"])
    rows = terminal.world.query(
        CELL2.uuid, "SELECT uuid FROM migrations WHERE instance_uuid = ?", SERVER
    )
    assert planned["migration"] in [row["uuid"] for row in rows]


def test_a_plan_is_not_done_twice(terminal: Terminal, plan: Path) -> None:
    assert terminal.type("resize", "--plan", str(plan)).code == 0
    ran = terminal.type("resize", "--plan", str(plan))
    assert ran.code == 1
    assert "move 1, which is finished" in ran.err


def test_a_plan_that_was_taken_back_may_be_tried_again(
    terminal: Terminal, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        fail_on(broken, MakeTargetDirectory, "cmp2a", "cmp2b")
        failed = terminal.type("resize", "--plan", str(plan))
    assert failed.code == 3
    assert "trying" not in failed.err
    again = terminal.type("resize", "--plan", str(plan))
    assert again.code == 0, again.err


def _metadata(terminal: Terminal) -> None:
    change(terminal, "instance_metadata", {"value": "other"}, instance_uuid=SERVER, key="role")


def _renamed(terminal: Terminal) -> None:
    change(terminal, "instances", {"display_name": "web-2"}, uuid=SERVER)


def _rebound(terminal: Terminal) -> None:
    port = terminal.world.network.ports(SERVER)[0]
    terminal.world.network.bind(port.id, "cmp2b", "normal", {})


def _attached(terminal: Terminal) -> None:
    terminal.world.attach(terminal.world.volumes.add_volume("nfs"), "/dev/vdx")


def _disabled(terminal: Terminal) -> None:
    with terminal.world.cells[CELL2.uuid].write() as rows:
        rows.change("services", {"disabled": True}, expect=None, binary="nova-compute")


def _busy(terminal: Terminal) -> None:
    change(terminal, "instances", {"task_state": "rebooting"}, uuid=SERVER)


def _shut_down(terminal: Terminal) -> None:
    terminal.world.hosts.reach("cmp1a").shutdown(SERVER, 1)
    change(terminal, "instances", {"vm_state": "stopped", "power_state": 4}, uuid=SERVER)


def _respecified(terminal: Terminal) -> None:
    (row,) = terminal.world.query(
        "api", "SELECT spec FROM request_specs WHERE instance_uuid = ?", SERVER
    )
    with terminal.world.api.write() as rows:
        spec = row["spec"].replace("{", "{ ", 1)
        rows.change("request_specs", {"spec": spec}, instance_uuid=SERVER)


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (_metadata, ["Metadata role is not as planned. The plan has sha256"]),
        (_renamed, ["Server's display_name is not as planned", "web-1; now it is web-2"]),
        (_rebound, ["at cmp2b is not as planned", "The plan has nothing; now it is inactive"]),
        (_attached, ["Mapping of volume", "The plan has nothing; now it is /dev/vdx"]),
        (_disabled, ["Target host's nova-compute", "enabled, version", "is disabled."]),
        (_busy, ["Server's task_state is not as planned", "null; now it is rebooting"]),
        (_shut_down, ["Vm state is not as planned. The plan has active; now it is stopped."]),
        (_respecified, ["Request spec is not as planned"]),
    ],
)
def test_a_drifted_cloud_is_refused_by_the_name_of_what_changed(
    terminal: Terminal, plan: Path, happens: Callable[[Terminal], None], told: list[str]
) -> None:
    happens(terminal)
    before = terminal.world.snapshot()
    ran = terminal.type("resize", "--plan", str(plan))
    assert ran.code == 1
    for words in ("The cloud has changed since web-1 was planned.", *told):
        assert words in ran.err
    assert terminal.world.snapshot() == before


def test_every_change_is_a_reason_of_its_own(terminal: Terminal, plan: Path) -> None:
    _renamed(terminal)
    _rebound(terminal)
    error = terminal.type("resize", "--plan", str(plan), "--json").json["error"]
    assert len(error["reasons"]) == len({each["what"] for each in error["reasons"]}) >= 2
    assert "--dry-run --out" in error["do"]


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _edited(text: str) -> str:
    return text.replace("cmp2", "cmp3")


def _newer(text: str) -> str:
    return json.dumps(json.loads(text) | {"format": 99, "made_by": "9.9"})


def _foreign(_text: str) -> str:
    return json.dumps({"plan": ["terraform"]})


SPOILED: dict[str, tuple[Callable[[str], str], str]] = {
    "cut": (_cut, "was it cut?"),
    "edited": (_edited, "its digest is not that of its content"),
    "newer": (_newer, "its format is 99, of cellmove 9.9"),
    "foreign": (_foreign, "it is no plan of cellmove"),
    "no text": (lambda _: "\x00\xff", "was it cut?"),
    "empty": (lambda _: "", "was it cut?"),
}


def test_a_file_that_is_no_whole_plan_is_one_error_and_no_touch(
    terminal: Terminal, plan: Path
) -> None:
    whole = plan.read_text()
    before, asked = terminal.world.snapshot(), len(terminal.requests)
    for spoil, told in SPOILED.values():
        plan.write_text(spoil(whole))
        ran = terminal.type("resize", "--plan", str(plan))
        assert ran.code == 1
        assert ran.err.startswith("Error: The plan cannot be used.")
        assert told in ran.err
    assert len(terminal.requests) == asked
    assert terminal.world.snapshot() == before


def test_a_plan_that_is_not_there_is_one_error(terminal: Terminal, tmp_path: Path) -> None:
    ran = terminal.type("resize", "--plan", str(tmp_path / "none.json"))
    assert ran.code == 1
    assert "No such file" in ran.err


def test_a_plan_of_another_cloud_is_refused(terminal: Terminal, plan: Path, tmp_path: Path) -> None:
    other = planfile.read(plan)
    cell = Cell(7, "99999999-0000-4000-8000-000000000000", "far")
    foreign = replace(other, move=replace(other.move, source=replace(other.move.source, cell=cell)))
    planfile.write(foreign, tmp_path / "foreign.json")
    ran = terminal.type("resize", "--plan", str(tmp_path / "foreign.json"))
    assert ran.code == 1
    assert "The plan is of another cloud." in ran.err


def test_nothing_can_be_wished_beside_a_plan(terminal: Terminal, plan: Path) -> None:
    for more in (["--flavor", "c2"], ["--to-host", "cmp2a"], ["--cold"], ["web-9"], ["--out", "x"]):
        assert terminal.type("resize", "--plan", str(plan), *more).code == 2, more


def test_a_plan_holds_nothing_that_an_owner_wrote_at_will(
    terminal: Terminal, tmp_path: Path
) -> None:
    """Nor how a volume is reached: of such things there is a digest, or nothing."""
    change(terminal, "instances", {"user_data": "aHVudGVyMg=="}, uuid=SERVER)
    change(terminal, "instance_metadata", {"value": "hunter3"}, instance_uuid=SERVER, key="role")
    path = tmp_path / "plan.json"
    assert terminal.type(*PLANNING, "--out", str(path)).code == 0
    text = path.read_text()
    assert "metadata role" in text
    assert all(each not in text for each in ("aHVudGVyMg", "hunter3", "connection_info", "auth_"))


def test_without_a_journal_a_plan_says_that_nothing_was_measured(terminal: Terminal) -> None:
    (plan,) = terminal.type(*PLANNING, "--json").json["plans"]
    assert plan["estimate"]["measured"] == 0
    assert plan["estimate"]["seconds"] > plan["estimate"]["downtime_seconds"] > 0


def test_a_plan_learns_from_moves_that_went_the_same_way(terminal: Terminal) -> None:
    assert terminal.type(*PLANNING[:-1]).code == 0
    assert terminal.type("revert", "web-1", "--yes").code == 0
    (plan,) = terminal.type(*PLANNING, "--json").json["plans"]
    assert plan["estimate"]["measured"] == 1
    assert 0 < plan["estimate"]["downtime_seconds"] < 20
