"""A move that fails before anybody felt it goes on at the next best host of the same cell."""

from __future__ import annotations

from typing import Any

import pytest

from cellmove.errors import StepFailed
from cellmove.steps.base import Step
from cellmove.steps.disks import CopyDisks, MakeTargetDirectory
from tests.fakes.world import SERVER
from tests.unit.conftest import Terminal

RESIZE = ("resize", "web-1", "--flavor", "c2", "--to-cell", "cell2")


def fail_on(monkeypatch: pytest.MonkeyPatch, step: type[Step], *hosts: str) -> None:
    """Let a step do its work and then fail, on these hosts."""
    real: Any = step.execute

    def broken(self: Any, cloud: Any) -> None:
        real(self, cloud)
        if self.move.target.name in hosts:
            raise StepFailed(f"{self.move.target.name} is broken.", "It smokes.")

    monkeypatch.setattr(step, "execute", broken)


def test_a_host_that_fails_is_followed_by_the_next_best(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, MakeTargetDirectory, "cmp2a")
    ran = terminal.type(*RESIZE)
    assert ran.code == 0
    assert "on cmp2b" in ran.out
    assert "Now trying cmp2b." in ran.err
    assert not terminal.world.hosts.reach("cmp2a").has_directory(SERVER)


def test_where_all_hosts_fail_every_reason_is_told_and_nothing_is_left(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = terminal.world.snapshot()
    fail_on(monkeypatch, MakeTargetDirectory, "cmp2a", "cmp2b")
    ran = terminal.type(*RESIZE)
    assert ran.code == 3
    assert "All of 2 hosts failed" in ran.err
    assert "cmp2a: cmp2a is broken." in ran.err
    assert "cmp2b: cmp2b is broken." in ran.err
    assert terminal.world.snapshot() == before


def test_once_the_guest_was_stopped_no_other_host_is_tried(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, CopyDisks, "cmp2a")
    ran = terminal.type(*RESIZE)
    assert ran.code == 3
    assert "trying" not in ran.err
    assert not terminal.world.hosts.reach("cmp2b").has_directory(SERVER)


@pytest.mark.parametrize("more", [("--to-host", "cmp2a"), ("--on-failure", "stop")])
def test_no_other_host_is_tried_when_the_operator_decides(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    fail_on(monkeypatch, MakeTargetDirectory, "cmp2a")
    ran = terminal.type(*RESIZE, *more)
    assert ran.code == (3 if "--to-host" in more else 4)
    assert "trying" not in ran.err
