"""Moves that fail, are killed or are stopped: taken back, or finished, with nothing left over."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import host_run
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, traces
from tests.lab.kit.trouble import room_taken, rows_held, sudo_denied

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
WISH = ("--flavor", "c2", "--to-host", TARGET)


@dataclass(frozen=True, slots=True)
class Home:
    """A running server at home, and what there was of it before anything was tried."""

    nova: Nova
    guest: GuestWatch
    shown: dict[str, Any]
    traces: list[str]

    @property
    def server(self) -> str:
        return self.guest.server

    def require(self) -> None:
        """All is as it was."""
        self.nova.wait_port(self.server, SOURCE)
        now = self.nova.show(self.server)
        changed = {key: (self.shown[key], now[key]) for key in now if now[key] != self.shown[key]}
        assert changed.keys() <= {"updated"}
        assert traces(self.server) == self.traces


@pytest.fixture(scope="module")
def home(admin_nova: Nova) -> Iterator[Home]:
    with admin_nova.lent("failures", SOURCE, metadata={"fill_mib": "32"}) as server:
        guest = GuestWatch.of(admin_nova, server)
        admin_nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        guest.wait_told(SOURCE, "fill done")
        yield Home(admin_nova, guest, admin_nova.show(server), traces(server))


def test_a_claim_that_finds_no_room_is_taken_back_and_not_felt(
    home: Home, cellmove: Cellmove
) -> None:
    begun = time.time()
    with ExitStack() as room:
        with _server_held(home):
            moving = cellmove.start("resize", home.server, *WISH)
            cellmove.reached("guard-server", "begun")
            room.enter_context(room_taken(lab_session(), TARGET))
        failed = cellmove.wait(moving)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    assert "DISK_GB" in failed.stderr
    home.require()
    assert home.guest.heard_from(begun) == {SOURCE}
    assert len({beat.boot for beat in home.guest.heartbeats(begun)}) == 1


def test_a_copy_that_breaks_while_the_guest_runs_is_taken_back_and_not_felt(
    home: Home, cellmove: Cellmove
) -> None:
    begun = time.time()
    with sudo_denied(TARGET, "/usr/bin/qemu-nbd", home.server):
        failed = cellmove("resize", home.server, *WISH, check=False)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    home.require()
    assert len({beat.boot for beat in home.guest.heartbeats(begun)}) == 1
    (move,) = cellmove("moves", "--json").json()["moves"]
    assert move["state"] == "taken back"


def test_a_copy_that_breaks_when_the_guest_is_off_is_taken_back_and_it_runs_on_at_home(
    home: Home, cellmove: Cellmove
) -> None:
    begun = time.time()
    with sudo_denied(TARGET, "/usr/bin/qemu-nbd", home.server):
        failed = cellmove("resize", home.server, *WISH, "--cold", check=False)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    _runs_at_home(home, begun)


def test_a_move_killed_in_the_copy_is_told_by_the_journal_and_undone(
    home: Home, cellmove: Cellmove
) -> None:
    begun = time.time()
    _kill_in_copy(home, cellmove, cellmove.start("resize", home.server, *WISH))

    (move,) = cellmove("moves", "--json").json()["moves"]
    assert (move["server"], move["state"]) == (home.server, "open")
    shown = cellmove("show", "1", "--json").json()
    assert {step["name"]: step["mark"] for step in shown["steps"]}["copy-disks"] == "begun"
    assert shown["next"] == ["cellmove resume 1", "cellmove undo 1"]
    again = cellmove("resize", home.server, *WISH, check=False)
    assert again.code == 1
    assert "cellmove resume 1" in again.stderr

    cellmove("undo", "1")
    _runs_at_home(home, begun)


def test_a_move_killed_after_the_switch_is_undone(
    home: Home, customer: Nova, cellmove: Cellmove
) -> None:
    begun = time.time()
    _kill_after_switch(home, cellmove, cellmove.start("resize", home.server, *WISH))
    assert len(customer.listed(home.server)) == 1

    cellmove("undo", "1")
    _runs_at_home(home, begun)


def test_a_move_killed_and_stopped_and_killed_is_finished_and_nova_confirms_it(
    home: Home, cellmove: Cellmove
) -> None:
    begun = time.time()
    _kill_in_copy(home, cellmove, cellmove.start("resize", home.server, *WISH))

    going_on = cellmove.start("resume")
    assert going_on.stderr
    assert next(line for line in going_on.stderr if "copy-disks: " in line)
    going_on.send_signal(signal.SIGINT)
    stopped = cellmove.wait(going_on)
    assert stopped.code == 5, stopped
    assert "cellmove resume 1" in stopped.stderr

    _kill_after_switch(home, cellmove, cellmove.start("resume"))
    cellmove("resume")
    home.guest.wait_ready(TARGET, begun)
    assert home.guest.filled(TARGET)
    assert home.nova.status(home.server) == "VERIFY_RESIZE"
    (move,) = cellmove("moves", "--json").json()["moves"]
    assert move["state"] == "finished"

    home.nova.confirm(home.server)
    assert (home.nova.status(home.server), home.nova.host(home.server)) == ("ACTIVE", TARGET)
    home.nova.delete(home.server)
    nothing_left(home.server)


def _server_held(home: Home) -> Any:
    return rows_held("cell1.nova_cell1", "instances", f"uuid = '{home.server}'")


def _half_there(home: Home) -> None:
    """Wait until the copy on the target has begun."""
    half = INSTANCES / home.server / "disk.cellmove"
    host_run(TARGET, ["timeout", "60", "sh", "-c", f"until [ -s {half} ]; do sleep 0.02; done"])


def _kill_in_copy(home: Home, cellmove: Cellmove, moving: subprocess.Popen[str]) -> None:
    cellmove.reached("copy-disks", "begun")
    _half_there(home)
    moving.kill()
    assert cellmove.wait(moving).code == -signal.SIGKILL
    assert cellmove.marks()[-1] == ("copy-disks", "begun")


def _kill_after_switch(home: Home, cellmove: Cellmove, moving: subprocess.Popen[str]) -> None:
    """The mapping points at the target cell, and both cells show the server."""
    cellmove.reached("begin-at-target", "begun")
    with _server_held(home):
        cellmove.reached("hide-source", "begun")
        moving.kill()
        assert cellmove.wait(moving).code == -signal.SIGKILL
    marks = cellmove.marks()  # Other lanes may have begun, too.
    assert ("hide-source", "begun") in marks[marks.index(("point-mapping", "done")) :]
    assert ("hide-source", "done") not in marks


def _runs_at_home(home: Home, begun: float) -> None:
    """The guest was stopped and runs again, with all it had; nothing is left of the try."""
    boots = {beat.boot for beat in home.guest.heartbeats(begun) if beat.host == SOURCE}
    first = next(home.guest.heartbeats(begun))
    deadline = time.monotonic() + 90
    while boots <= {first.boot} and time.monotonic() < deadline:
        time.sleep(0.5)
        boots = {beat.boot for beat in home.guest.heartbeats(begun) if beat.host == SOURCE}
    assert len(boots) == 2
    home.guest.wait_told(SOURCE, "GUEST ready")
    assert home.guest.filled(SOURCE)
    home.require()
