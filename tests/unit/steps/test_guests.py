"""A guest's ports are its own again, whatever the layer-2 agent does late."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellmove.model import Port
from cellmove.plan import plan
from cellmove.steps import guests
from cellmove.steps.guests import StopSourceGuest
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.world import SERVER, World, perform

HOME = "cmp1a"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(guests, "WIRING_PAUSE_SECONDS", 0)
    monkeypatch.setattr(guests, "PLUGS_PAUSE_SECONDS", 0)
    return World(tmp_path)


def taken_back(world: World) -> None:
    """The guest was stopped, and starts again."""
    for step in plan("resize", world.move("resize")):
        _did, saved = perform(step, world)
        if isinstance(step, StopSourceGuest):
            return step.undo(world.cloud, saved)
    raise AssertionError("nothing stops the guest")


def test_a_port_that_the_agent_unplugs_behind_the_start_is_plugged_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = world.hosts.by_name[HOME]
    (port,) = world.network.ports(SERVER)
    wired = FakeHypervisor.wired
    seen: list[Port] = []

    def agent_comes_by(here: FakeHypervisor, asked: Port) -> bool:
        if not seen:
            here.unplug(asked)
        seen.append(asked)
        return wired(here, asked)

    monkeypatch.setattr(FakeHypervisor, "wired", agent_comes_by)
    taken_back(world)
    assert home.plugged(port)
    assert home.domains[SERVER].state == "running"


def test_an_agent_that_is_away_does_not_keep_the_guest_from_being_home(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "HOME_TIMEOUT_SECONDS", 0)
    home = world.hosts.by_name[HOME]
    monkeypatch.setattr(FakeHypervisor, "wired", lambda _here, _port: False)
    taken_back(world)
    assert home.domains[SERVER].state == "running"
