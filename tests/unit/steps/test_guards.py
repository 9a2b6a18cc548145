"""Where the cloud is not as a step expects it, the step refuses and touches nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cellmove.errors import Conflict, StepFailed
from cellmove.journal import Verb
from cellmove.model import Allocations, Cell
from cellmove.steps import guests
from cellmove.steps.base import Status, Step
from tests.fakes.databases import CELL1, CELL2
from tests.fakes.world import SERVER, World
from tests.unit.rehearsal import Rehearsal, rehearsed

At = Callable[[Verb, str], tuple[World, Step]]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Verb], Rehearsal]:
    @functools.cache
    def made(verb: Verb) -> Rehearsal:
        return rehearsed(tmp_path_factory.mktemp(verb), verb)

    return made


@pytest.fixture
def before(rehearsal: Callable[[Verb], Rehearsal]) -> At:
    """The world just before a step of a verb, and the step."""

    def at(verb: Verb, name: str, offset: int = 0) -> tuple[World, Step]:
        play = rehearsal(verb)
        index = [step.name for step in play.steps].index(name)
        play.back_to(play.moments[index + offset])
        return play.world, play.steps[index]

    return at


@pytest.fixture
def after(before: Callable[[Verb, str, int], tuple[World, Step]]) -> At:
    """The world just after a step of a verb, and the step."""
    return lambda verb, name: before(verb, name, 1)


def change(
    world: World, cell: Cell | None, table: str, values: dict[str, Any], **where: Any
) -> None:
    with (world.api if cell is None else world.cells[cell.uuid]).write() as rows:
        rows.change(table, values, expect=None, **where)


def start(world: World, host: str, like: str) -> None:
    """Somebody starts a guest on a host, defined as on another one."""
    there = world.hosts.by_name[like].domain(SERVER)
    assert there is not None
    domains = world.hosts.by_name[host].domains
    domains[SERVER] = replace(domains.get(SERVER, there), state="running")


def refused(
    world: World, act: Callable[[], None], kind: type[StepFailed] = StepFailed
) -> StepFailed:
    """The refusal; nothing was touched."""
    was = world.snapshot()
    with pytest.raises(kind) as caught:
        act()
    assert world.snapshot() == was
    return caught.value


def test_a_busy_server_is_not_locked(before: At) -> None:
    world, step = before("resize", "guard-server")
    change(world, CELL1, "instances", {"task_state": "rebooting"}, uuid=SERVER)
    found = step.inspect(world.cloud)
    assert found.status is Status.BLOCKED
    assert "rebooting" in found.why
    refused(world, lambda: step.execute(world.cloud), Conflict)


@pytest.mark.parametrize("values", [{"vm_state": "error"}, {"host": "cmp1b"}])
def test_a_server_that_changed_since_it_was_planned_is_not_locked(
    before: At, values: dict[str, str]
) -> None:
    world, step = before("resize", "guard-server")
    change(world, CELL1, "instances", values, uuid=SERVER)
    refused(world, lambda: step.execute(world.cloud), Conflict)


def test_a_server_that_is_gone_is_not_locked(before: At) -> None:
    world, step = before("resize", "guard-server")
    change(world, CELL1, "instances", {"deleted": 9}, uuid=SERVER)
    assert step.inspect(world.cloud).status is Status.BLOCKED


def test_room_that_was_taken_meanwhile_is_not_claimed(before: At) -> None:
    world, step = before("resize", "claim-target")
    taken = {"VCPU": 1, "MEMORY_MB": 4096 - 128 - 100}
    provider = step.move.target.provider
    world.placement.replace([Allocations("rival", {provider: taken}, None)])
    refused(world, lambda: step.execute(world.cloud), Conflict)


def test_a_server_that_still_holds_the_source_claims_nothing(before: At) -> None:
    world, step = before("resize", "hold-source-allocation")
    _, claim = before("resize", "claim-target")
    world, step = before("resize", "hold-source-allocation")
    refused(world, lambda: claim.execute(world.cloud))
    assert step.move == claim.move


def test_a_port_that_cannot_be_bound_stops_the_move_before_the_guest(before: At) -> None:
    world, step = before("resize", "bind-ports")
    world.network._agents = {"cmp1a"}
    try:
        refused(world, lambda: step.execute(world.cloud))
    finally:
        world.network._agents = None


def test_a_guest_that_was_started_again_is_not_forgotten(before: At) -> None:
    world, step = before("resize", "forget-source-guest")
    start(world, "cmp1a", like="cmp1a")
    refused(world, lambda: step.execute(world.cloud))


@pytest.mark.parametrize(
    ("verb", "name", "elsewhere", "like"),
    [
        ("resize", "start-target-guest", "cmp1a", "cmp2a"),
        ("revert", "start-source-guest", "cmp2a", "cmp1a"),
    ],
)
def test_a_guest_is_never_started_twice(
    before: At, verb: Verb, name: str, elsewhere: str, like: str
) -> None:
    world, step = before(verb, name)
    start(world, elsewhere, like)
    error = refused(world, lambda: step.execute(world.cloud))
    assert elsewhere in error.seen


def test_a_guest_whose_ports_are_never_wired_is_not_let_run(
    before: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, step = before("resize", "plug-target-ports")
    _, begin = before("resize", "start-target-guest")
    world, _ = before("resize", "plug-target-ports")
    monkeypatch.setattr(guests, "WIRING_TIMEOUT_SECONDS", 0)
    monkeypatch.setattr(guests, "WIRING_PAUSE_SECONDS", 0)
    with pytest.raises(StepFailed, match="not wired"):
        begin.execute(world.cloud)
    guest = world.hosts.by_name["cmp2a"].domain(SERVER)
    assert guest is not None
    assert guest.state == "paused", "it has not run one instruction"
    assert step.move == begin.move


@pytest.mark.parametrize("name", ["define-target-guest", "copy-disks"])
def test_what_a_running_guest_uses_is_not_taken_back(after: At, name: str) -> None:
    world, step = after("resize", name)
    start(world, "cmp2a", like="cmp2a")
    refused(world, lambda: step.undo(world.cloud, {}))


def test_a_directory_of_a_defined_guest_is_not_deleted(after: At) -> None:
    _, step = after("resize", "make-target-directory")
    world, _ = after("resize", "define-target-guest")
    refused(world, lambda: step.undo(world.cloud, {}))


def test_a_copy_that_is_shown_is_not_deleted(after: At) -> None:
    world, step = after("resize", "copy-records")
    change(world, CELL2, "instances", {"hidden": False}, uuid=SERVER)
    refused(world, lambda: step.undo(world.cloud, {}))


def test_a_mapping_that_somebody_moved_is_not_overwritten(before: At) -> None:
    world, step = before("resize", "point-mapping")
    change(world, None, "instance_mappings", {"cell_id": 1}, instance_uuid=SERVER)
    refused(world, lambda: step.execute(world.cloud), Conflict)


def test_a_server_whose_delete_has_begun_is_not_finished(before: At) -> None:
    world, step = before("resize", "finish-at-target")
    change(world, CELL2, "instances", {"task_state": "deleting"}, uuid=SERVER)
    refused(world, lambda: step.execute(world.cloud), Conflict)


@pytest.mark.parametrize(
    ("verb", "name", "theirs"),
    [
        ("resize", "guard-server", {"task_state": "resize_prep", "auto_disk_config": False}),
        ("confirm", "begin-confirm", {"status": "confirming"}),
        ("revert", "begin-revert", {"status": "reverting"}),
    ],
)
def test_a_lock_that_somebody_else_took_in_the_same_way_is_left_to_them(
    before: At, verb: Verb, name: str, theirs: dict[str, Any]
) -> None:
    world, step = before(verb, name)
    saved = step.inspect(world.cloud).saved
    if verb == "resize":
        change(world, CELL1, "instances", theirs, uuid=SERVER)
    else:
        change(world, CELL2, "migrations", theirs, uuid=step.move.migration)
    assert step.inspect(world.cloud).status is not Status.DONE
    refused(world, lambda: step.execute(world.cloud), Conflict)
    was = world.snapshot()
    step.undo(world.cloud, saved)
    assert world.snapshot() == was, "what they took is not given back by us"


@pytest.mark.parametrize("spoil", ["disk", "guest"])
def test_old_disks_are_kept_while_the_target_lacks_anything(before: At, spoil: str) -> None:
    world, step = before("confirm", "remove-source-disks")
    target = world.hosts.by_name["cmp2a"]
    if spoil == "disk":
        del target.directories[SERVER]["disk"]
    else:
        del target.domains[SERVER]
    refused(world, lambda: step.execute(world.cloud))


@pytest.mark.parametrize(
    ("verb", "name", "host", "like"),
    [
        ("confirm", "remove-source-disks", "cmp1a", "cmp2a"),
        ("revert", "remove-target-disks", "cmp2a", "cmp1a"),
    ],
)
def test_disks_of_a_guest_that_is_defined_are_not_deleted(
    before: At, verb: Verb, name: str, host: str, like: str
) -> None:
    world, step = before(verb, name)
    start(world, host, like)
    refused(world, lambda: step.execute(world.cloud))


@pytest.mark.parametrize(
    ("verb", "name", "cell"),
    [("confirm", "delete-source-records", CELL1), ("revert", "delete-target-records", CELL2)],
)
def test_records_that_are_shown_or_mapped_are_not_deleted(
    before: At, verb: Verb, name: str, cell: Cell
) -> None:
    world, step = before(verb, name)
    change(world, None, "instance_mappings", {"cell_id": cell.id}, instance_uuid=SERVER)
    refused(world, lambda: step.execute(world.cloud))
    world, step = before(verb, name)
    change(world, cell, "instances", {"hidden": False}, uuid=SERVER)
    refused(world, lambda: step.execute(world.cloud))
