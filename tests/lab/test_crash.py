"""The real program is killed with SIGKILL, again and again; the real services tell what is left.

One server goes through it all. In CI a choice of the journal's boundaries; with CELLMOVE_LONG set
all of them, and then random moments (`make crash-lab-long`). What was done and how it ended is
printed, and one JSON object.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cellmove.journal import Verb
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.ordeal import Ordeal
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, traces

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1a", "cmp2a"
WISH = ("--flavor", "c2", "--to-host", TARGET)
LONG = bool(os.environ.get("CELLMOVE_LONG"))
MOMENTS = int(os.environ.get("CELLMOVE_MOMENTS", "50" if LONG else "0"))
"""How many random moments."""
SEED = int(os.environ.get("CELLMOVE_SEED", time.time_ns() % 100_000))
CHOSEN: dict[Verb, tuple[str, ...]] = {
    "resize": ("copy-records", "precopy-disks", "activate-target-bindings", "point-mapping"),
    "revert": ("stop-target-guest", "point-mapping-home"),
}


class Sweep(Ordeal):
    """The server that is moved and killed."""

    def cellmove(self) -> Cellmove:
        """The program with a journal of this try alone."""
        return Cellmove(self.new_folder())

    def killed(self, program: Cellmove, *argv: str, at: str) -> bool:
        """Kill the command when it has come to this step; whether that was in time."""
        running = program.start(*argv)
        program.reached(at, "begun", "found")
        running.kill()
        code = program.wait(running).code
        assert code in (-signal.SIGKILL, 0), code
        return code != 0

    def require(self, host: str, case: str, ending: str) -> None:
        """One visible server on this host, its guest up with its data there and only there."""
        status = self.nova.status(self.server)
        self.nova.wait_port(self.server, host)
        guests = self.runs_on(SOURCE, TARGET)
        lost = guests != [host] or self.nova.host(self.server) != host or status == "ERROR"
        left = traces(self.server) != self.home if host == SOURCE else False
        notes = self.half_done(SOURCE, TARGET)
        self.counted.update(cases=1, lost=lost, left_over=left or bool(notes), failed=0)
        self.lines.append(f"{case:44} {ending:8} {status} on {','.join(guests)}")
        assert not lost, (case, status, guests)
        assert not left, (case, set(traces(self.server)) ^ set(self.home))
        assert not notes, (case, notes)


@pytest.fixture(scope="module")
def sweep(admin_nova: Nova, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with admin_nova.lent("crash", SOURCE, metadata={"fill_mib": "8"}) as server:
        guest = GuestWatch.of(admin_nova, server)
        admin_nova.wait_port(server, SOURCE)
        guest.wait_told(SOURCE, "fill done")
        it = Sweep(admin_nova, guest, tmp_path_factory.mktemp("crash"), traces(server))
        yield it
        it.tell()


def walked(sweep: Sweep, verb: Verb, *wish: str) -> tuple[str, ...]:
    """The steps that the verb's journal tells of when nobody disturbs it."""
    program = sweep.cellmove()
    program(verb, sweep.server, *wish)
    return tuple(dict.fromkeys(step for step, _mark in program.marks() if step))


def test_a_killed_resize_is_taken_back_or_finished_wherever_it_died(sweep: Sweep) -> None:
    steps = CHOSEN
    if LONG:
        steps = {"resize": walked(sweep, "resize", *WISH)}
        steps["revert"] = walked(sweep, "revert", "--yes")
    ways_home = itertools.cycle(steps["revert"])
    for number, step in enumerate(steps["resize"]):
        if LONG or number % 2 == 0:
            _taken_back(sweep, step)
        if LONG or number % 2 == 1:
            _finished_and_reverted(sweep, step, next(ways_home))
    assert sweep.guest.filled(SOURCE)


def _taken_back(sweep: Sweep, step: str) -> None:
    program = sweep.cellmove()
    killed = sweep.killed(program, "resize", sweep.server, *WISH, at=step)
    if killed:
        program("undo", "1")
    else:  # its last steps may be over before the kill
        program("revert", sweep.server, "--yes")
    sweep.require(SOURCE, f"resize killed at {step}", "undone" if killed else "reverted")


def _finished_and_reverted(sweep: Sweep, step: str, way_home: str) -> None:
    program, begun = sweep.cellmove(), time.time()
    sweep.killed(program, "resize", sweep.server, *WISH, at=step)
    program("resume", check=sweep.nova.status(sweep.server) != "VERIFY_RESIZE")
    sweep.guest.wait_ready(TARGET, begun)
    sweep.require(TARGET, f"resize killed at {step}", "resumed")
    back = sweep.cellmove()
    if sweep.killed(back, "revert", sweep.server, "--yes", at=way_home):
        back("resume")
    sweep.nova.wait_status(sweep.server, "ACTIVE")
    sweep.require(SOURCE, f"revert killed at {way_home}", "resumed")


@pytest.mark.skipif(not LONG, reason="make crash-lab-long")
def test_a_killed_confirm_is_finished_wherever_it_died(sweep: Sweep) -> None:
    """There and back in turns: after each confirm nothing is left where the server was."""
    sweep.cellmove()("resize", sweep.server, "--to-host", TARGET)
    steps = walked(sweep, "confirm", "--yes")
    ways = itertools.cycle([(TARGET, SOURCE), (SOURCE, TARGET)])
    for step, (here, there) in zip(steps, ways, strict=False):
        begun = time.time()
        sweep.cellmove()("resize", sweep.server, "--to-host", there)
        sweep.guest.wait_ready(there, begun)
        program = sweep.cellmove()
        if sweep.killed(program, "confirm", sweep.server, "--yes", at=step):
            program("resume", "1")
        sweep.require(there, f"confirm killed at {step}", "resumed")
        left = [each for each in traces(sweep.server) if f"cell{here[3]}" in each or here in each]
        assert (left, sweep.nova.status(sweep.server)) == ([], "ACTIVE")
    if there == TARGET:
        sweep.cellmove()("resize", sweep.server, "--to-host", SOURCE)
        sweep.cellmove()("confirm", sweep.server, "--yes")
        sweep.nova.wait_port(sweep.server, SOURCE)


@pytest.mark.skipif(not MOMENTS, reason="make crash-lab-long")
def test_a_move_killed_at_any_moment_is_finished_or_taken_back(sweep: Sweep) -> None:
    """Resize and revert in turns, each killed once; how long one takes is learnt on the way."""
    chance = random.Random(SEED)
    sweep.lines.append(f"random moments of seed {SEED}")
    seconds: dict[Verb, float] = {"resize": 8.0, "revert": 6.0}
    for number in range(MOMENTS):
        away = sweep.nova.status(sweep.server) == "VERIFY_RESIZE"
        verb: Verb = "revert" if away else "resize"
        wish = ("--yes",) if away else WISH
        program, begun = sweep.cellmove(), time.time()
        running = program.start(verb, sweep.server, *wish)
        moment = chance.uniform(0, seconds[verb])
        with suppress(subprocess.TimeoutExpired):
            running.wait(moment)
        running.kill()
        code = program.wait(running).code
        step, mark = (program.marks() or [("nothing", "")])[-1]
        if code == 0:
            seconds[verb] = time.time() - begun
        assert code in (-signal.SIGKILL, 0), code
        ending, forward = _ended(program, "resume" if number % 2 else "undo", done=code == 0)
        host = TARGET if forward != away else SOURCE
        if host == TARGET or len(set(_boots(sweep, begun))) > 1:
            sweep.guest.wait_told(host, "GUEST ready")
        sweep.require(host, f"{verb} killed after {moment:4.1f} s, {step} {mark}", ending)
    if sweep.nova.status(sweep.server) == "VERIFY_RESIZE":
        sweep.cellmove()("revert", sweep.server, "--yes")
        sweep.require(SOURCE, "revert", "finished")
    assert sweep.counted["lost"] == sweep.counted["left_over"] == 0


def _ended(program: Cellmove, recovery: str, *, done: bool) -> tuple[str, bool]:
    """Bring what was killed to its end: how, and whether the verb was carried out."""
    if done:
        return "finished", True
    if not program.marks():
        return "nothing", False
    if program.marks()[-1][1] == "finished":  # killed when all was done
        return "finished", True
    ended = program(recovery, "1", check=False)
    if ended.code == 1 and recovery == "undo":  # it can only go forward
        assert "cellmove resume 1" in ended.stderr, ended
        recovery = "resume"
        ended = program(recovery, "1", check=False)
    assert ended.code == 0, ended
    return f"{recovery}d".replace("undod", "undone"), recovery == "resume"


def _boots(sweep: Sweep, since: float) -> Iterator[str]:
    return (beat.boot for beat in sweep.guest.heartbeats(since))


def test_a_server_deleted_under_a_killed_move_leaves_nothing(sweep: Sweep) -> None:
    """libvirt does not let nova forget a guest with our checkpoints: undo makes it possible."""
    program = sweep.cellmove()
    moving = program.start("resize", sweep.server, *WISH)
    _checkpoint_there(sweep, moving)
    moving.kill()
    assert program.wait(moving).code == -signal.SIGKILL
    _delete_and_wait(sweep)

    refused = program("resume", "1", check=False)
    assert refused.code == 1, refused
    assert "cellmove undo 1" in refused.stderr
    done = program("undo", "1")

    if sweep.nova.status(sweep.server) != "GONE":
        assert "openstack server delete" in done.stdout
        sweep.nova.delete(sweep.server)
    nothing_left(sweep.server)
    assert not sweep.half_done(SOURCE, TARGET)
    sweep.counted.update(cases=1, lost=0, left_over=0, failed=0)
    sweep.lines.append(f"{'deleted by its owner in precopy-disks':44} undone   GONE")


def _checkpoint_there(sweep: Sweep, moving: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not any(note.startswith("cellmove-") for note in sweep.half_done(SOURCE)):
        assert moving.poll() is None, Cellmove.wait(moving)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _delete_and_wait(sweep: Sweep) -> None:
    """Until nova has deleted it, or given up."""
    sweep.nova._compute.send("DELETE", f"/servers/{sweep.server}")
    deadline = time.monotonic() + 120
    while True:
        shown = sweep.nova.show(sweep.server)
        over = not shown or (shown["status"] == "ERROR" and not shown["OS-EXT-STS:task_state"])
        if over or time.monotonic() > deadline:
            return
        time.sleep(0.3)
