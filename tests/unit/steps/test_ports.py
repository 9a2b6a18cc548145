"""Ports and allocations that the plain fake cloud does not have: several, guaranteed, left over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellmove.errors import StepFailed
from cellmove.model import Move
from cellmove.plan import plan
from cellmove.steps.allocations import ClaimTarget, HoldSourceAllocation, ReturnAllocation
from cellmove.steps.base import Step
from cellmove.steps.network import (
    ActivateSourceBindings,
    ActivateTargetBindings,
    BindPorts,
    DeleteSourceBindings,
    DeleteTargetBindings,
    profile_there,
)
from tests.fakes.databases import CELL1, CELL2
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.placement import Inventory
from tests.fakes.trap import Blown, When
from tests.fakes.world import SERVER, World, perform

RATE = {"NET_BW_EGR_KILOBIT_PER_SEC": 1000}
SWITCHES = {"cmp1a": "switch-1a", "cmp2a": "switch-2a"}
STORE = "store"
WHENS: tuple[When, ...] = ("before", "inside", "after")
MAC = "fa:16:3e:00:00:02"


def node(world: World, host: str) -> str:
    cell = CELL1 if host == "cmp1a" else CELL2
    (row,) = world.query(cell.uuid, "SELECT uuid FROM compute_nodes WHERE host = ?", host)
    return str(row["uuid"])


def hold(world: World, **more: dict[str, int]) -> None:
    """Let the server hold this too, provider by provider."""
    held = world.placement.allocations(SERVER)
    world.placement.replace([replace(held, resources={**held.resources, **more})])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The server has a second port, and its first one has a guaranteed rate, held on a switch."""
    world = World(tmp_path)
    (first,) = world.network.ports(SERVER)
    group = world.network.add_group(first.id, RATE, "FAST")
    bindings = world.network._ports[first.id].bindings
    profile = {"allocation": {group.id: SWITCHES["cmp1a"]}, "trusted": "true"}
    bindings["cmp1a"] = replace(bindings["cmp1a"], profile=profile)
    for host, switch in SWITCHES.items():
        room = {name: Inventory(10 * rate) for name, rate in RATE.items()}
        world.placement.add_provider(switch, room, root=node(world, host), traits=("FAST",))
    hold(world, **{SWITCHES["cmp1a"]: RATE})
    second = world.network.add_port(SERVER, "cmp1a", {"pci_slot": "0"}, mac=MAC)
    home = world.hosts.by_name["cmp1a"]
    home.plug(SERVER, second)
    _add_interface(home, second.device)
    return world


def _add_interface(home: FakeHypervisor, device: str) -> None:
    known = home.domains[SERVER]
    interface = (
        f"<interface type='ethernet'><mac address='{MAC}'/><target dev='{device}'/>"
        "<model type='virtio'/></interface></devices>"
    )
    home.domains[SERVER] = replace(known, xml=known.xml.replace("</devices>", interface))


def of_services(world: World) -> tuple[Any, Any]:
    return world.network.snapshot(), world.placement.snapshot()


def run(world: World, verb: Any) -> Move:
    """A whole verb, undisturbed."""
    move = world.move(verb)
    for step in plan(verb, move):
        perform(step, world)
    return move


def before(world: World, kind: type[Step], verb: Any = "resize") -> Step:
    """The step of this kind, with all before it done."""
    for step in plan(verb, world.move(verb)):
        if isinstance(step, kind):
            return step
        perform(step, world)
    raise AssertionError(kind)


def halves(world: World, step: Step, run: Callable[[Step], None]) -> Iterator[str]:
    """`run` cut off at each of its outside calls in each way."""
    state = world.save()
    run(step)
    for at in range(1, world.trap.calls + 1):
        for when in WHENS:
            world.load(state)
            world.trap.arm(at, when)
            with contextlib.suppress(Blown):
                run(step)
            world.trap.arm(0, "before")
            yield f"call {at}, {when}"


def test_resized_the_server_takes_room_of_the_targets_switch_and_its_port_says_so(
    world: World,
) -> None:
    held = world.placement.allocations(SERVER).resources
    move = run(world, "resize")
    assert world.placement.allocations(move.migration).resources == held
    claim = world.placement.allocations(SERVER).resources
    assert claim == {
        node(world, "cmp2a"): {"VCPU": 1, "MEMORY_MB": 160, "DISK_GB": 3},
        SWITCHES["cmp2a"]: RATE,
    }
    profiles = {
        b.profile.get("trusted"): b.profile
        for port in world.network.ports(SERVER)
        for b in world.network.bindings(port.id)
        if b.host == "cmp2a"
    }
    (group,) = world.network.resource_groups(SERVER)
    assert profiles["true"] == {"trusted": "true", "allocation": {group.id: SWITCHES["cmp2a"]}}
    assert profiles[None] == {}


def test_reverted_all_ports_and_allocations_are_as_they_were(world: World) -> None:
    was = of_services(world)
    run(world, "resize")
    run(world, "revert")
    assert of_services(world) == was


def test_confirmed_nothing_is_held_or_bound_at_the_source(world: World) -> None:
    run(world, "resize")
    move = run(world, "confirm")
    assert world.placement.allocations(move.migration).resources == {}
    assert set(world.placement.allocations(SERVER).resources) == {
        node(world, "cmp2a"),
        SWITCHES["cmp2a"],
    }
    for port in world.network.ports(SERVER):
        assert [b.host for b in world.network.bindings(port.id)] == ["cmp2a"]


def test_taken_back_all_ports_and_allocations_are_as_they_were(world: World) -> None:
    was = world.snapshot()
    done = []
    for step in plan("resize", world.move("resize")):
        ours, saved = perform(step, world)
        done += [(step, saved)] * ours
    for step, saved in reversed(done):
        step.undo(world.cloud, saved)
    assert world.snapshot() == was


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("resize", HoldSourceAllocation),
        ("resize", ClaimTarget),
        ("resize", BindPorts),
        ("resize", ActivateTargetBindings),
        ("revert", ActivateSourceBindings),
        ("revert", ReturnAllocation),
    ],
)
def test_half_done_or_half_undone_it_is_taken_back_to_what_was(
    world: World, verb: Any, kind: type[Step]
) -> None:
    if verb == "revert":
        run(world, "resize")
    step = before(world, kind, verb)
    look, was = step.inspect(world.cloud), world.snapshot()
    world.trap.arm(0, "before")
    for how in halves(world, step, lambda step: step.execute(world.cloud)):
        step.undo(world.cloud, look.saved)
        assert world.snapshot() == was, how
    step.execute(world.cloud)
    world.trap.arm(0, "before")
    for how in halves(world, step, lambda step: step.undo(world.cloud, look.saved)):
        step.undo(world.cloud, look.saved)
        assert world.snapshot() == was, how


@pytest.mark.parametrize("profile", [{}, {"pci_slot": "0000:00:01.0"}])
def test_what_an_earlier_failure_left_bound_is_replaced_and_given_back(
    world: World, profile: dict[str, object]
) -> None:
    _, second = sorted(world.network.ports(SERVER), key=lambda port: port.mac != MAC)[::-1]
    world.network.bind(second.id, "cmp2a", "normal", profile)
    step = before(world, BindPorts)
    look, was = step.inspect(world.cloud), world.snapshot()
    step.execute(world.cloud)
    there = {b.host: b.profile for b in world.network.bindings(second.id)}
    assert there["cmp2a"] == {}
    for _ in range(2):
        step.undo(world.cloud, look.saved)
        assert world.snapshot() == was
    world.trap.arm(0, "before")
    for how in halves(world, step, lambda step: step.execute(world.cloud)):
        step.undo(world.cloud, look.saved)
        assert world.snapshot() == was, how


def test_a_binding_left_without_a_switch_is_replaced_by_one_that_names_it(world: World) -> None:
    for port in world.network.ports(SERVER):
        world.network.bind(port.id, "cmp2a", "normal", {"trusted": "true"})
    step = before(world, BindPorts)
    perform(step, world)
    (group,) = world.network.resource_groups(SERVER)
    there = {b.host: b.profile for b in world.network.bindings(group.port)}
    assert there["cmp2a"]["allocation"] == {group.id: SWITCHES["cmp2a"]}


def test_the_targets_binding_is_kept_until_the_sources_is_seen_to_be_active(world: World) -> None:
    step = before(world, BindPorts)
    _, saved = perform(step, world)
    port = world.network.ports(SERVER)[-1]
    bindings = world.network._ports[port.id].bindings
    bindings["cmp1a"] = replace(bindings["cmp1a"], active=False, vif_type="unbound")
    with pytest.raises(StepFailed, match=f"{port.id}/bindings/cmp1a/activate"):
        step.undo(world.cloud, saved)
    assert "cmp2a" in bindings


@pytest.mark.parametrize(
    ("verb", "kind", "other"),
    [("confirm", DeleteSourceBindings, "cmp2a"), ("revert", DeleteTargetBindings, "cmp1a")],
)
def test_no_binding_is_deleted_while_the_other_is_not_active(
    world: World, verb: Any, kind: type[Step], other: str
) -> None:
    run(world, "resize")
    step = before(world, kind, verb)
    port = world.network.ports(SERVER)[0]
    bindings = world.network._ports[port.id].bindings
    bindings[other] = replace(bindings[other], vif_type="binding_failed")
    with pytest.raises(StepFailed, match="left without any"):
        step.execute(world.cloud)
    assert len(bindings) == 2


def test_a_target_that_plugs_another_way_is_found_before_the_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = before(world, BindPorts)
    look, was = step.inspect(world.cloud), world.snapshot()
    monkeypatch.setattr("tests.fakes.network.DETAILS", {"ovs_hybrid_plug": True})
    with pytest.raises(StepFailed, match="hybrid plug"):
        step.execute(world.cloud)
    step.undo(world.cloud, look.saved)
    assert world.snapshot() == was


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_a_port_deleted_while_resized_hinders_neither_end(world: World, verb: Any) -> None:
    run(world, "resize")
    gone, left = sorted(world.network.ports(SERVER), key=lambda port: port.mac != MAC)
    world.network.delete_port(gone.id)
    run(world, verb)
    host = "cmp2a" if verb == "confirm" else "cmp1a"
    (found,) = world.network.ports(SERVER)
    assert (found.id, found.host, found.vif_type) == (left.id, host, "ovs")


@pytest.mark.parametrize("verb", ["resize", "confirm", "revert"])
def test_a_port_deleted_in_the_middle_hinders_no_step_on_bindings(world: World, verb: Any) -> None:
    if verb != "resize":
        run(world, "resize")
    move = world.move(verb)
    steps = plan(verb, move)
    of_bindings = [step for step in steps if step.name.endswith("-bindings")]
    assert of_bindings
    if verb == "resize":
        perform(before(world, BindPorts), world)
    for port in move.ports[1:]:
        world.network.delete_port(port.id)
    for step in of_bindings:
        perform(step, world)


def test_a_disk_of_a_shared_store_is_held_and_returned_with_the_rest(world: World) -> None:
    roots = [node(world, host) for host in SWITCHES]
    world.placement.add_provider(STORE, {"DISK_GB": Inventory(100)}, shared_by=roots)
    for root in roots:
        room = {name: Inventory(4096) for name in ("VCPU", "MEMORY_MB")}
        world.placement.add_provider(root, room)
    held = world.placement.allocations(SERVER)
    plain = {name: amount for name, amount in held.resources[roots[0]].items() if name != "DISK_GB"}
    shared = {roots[0]: plain, SWITCHES["cmp1a"]: RATE, STORE: {"DISK_GB": 2}}
    world.placement.replace([replace(held, resources=shared)])
    was = of_services(world)
    move = run(world, "resize")
    assert world.placement.allocations(move.migration).resources == shared
    assert world.placement.allocations(SERVER).resources == {
        roots[1]: {"VCPU": 1, "MEMORY_MB": 160},
        SWITCHES["cmp2a"]: RATE,
        STORE: {"DISK_GB": 3},
    }
    run(world, "revert")
    assert of_services(world) == was


def test_only_what_the_user_set_goes_along_in_a_profile() -> None:
    found = {"trusted": "true", "tag": 7, "pci_slot": "0", "allocation": {"g": "p"}, "vf_num": 1}
    assert profile_there(found) == {"trusted": "true", "tag": 7}
    assert profile_there(found, {"g": "q"}) == {
        "trusted": "true",
        "tag": 7,
        "allocation": {"g": "q"},
    }
