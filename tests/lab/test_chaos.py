"""Links, services, a disk and guests break in mid-move on the lab: nothing is lost or left over.

One server goes through it all: what was broken, where, and how it ended is printed, and one JSON
object. A choice of the cases in CI; all of them with CELLMOVE_LONG set.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from cellmove.journal import Verb
from tests.lab.kit import breaks, computes
from tests.lab.kit.breaks import RESET, SILENT
from tests.lab.kit.clean import assert_whole
from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.images import empty_image
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.ordeal import Ordeal
from tests.lab.kit.places import host_run
from tests.lab.kit.program import Cellmove, Completed
from tests.lab.kit.traces import nothing_left, traces

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1a", "cmp2a"
WISH = ("--flavor", "c2", "--to-host", TARGET)
SLOWLY = ("--bwlimit", "4M")
LONG = bool(os.environ.get("CELLMOVE_LONG"))
MOST_RUNS = 4
"""Commands that it may take to bring a move to an end once all is mended."""
SECONDS = 5
"""How long a link is silent that comes back by itself."""
ENDED = float("inf")
"""Trouble that lasts until the command has ended."""
Trouble = Callable[[str], AbstractContextManager[None]]
"""Made for the server of this id, and mended when the block ends."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that breaks at one step."""

    what: str
    verb: Verb
    at: str
    trouble: Trouble
    seconds: float = 0
    """How long the trouble lasts."""
    more: tuple[str, ...] = ()
    recovery: str = "resume"
    codes: tuple[int, ...] = (0, 3, 4)
    """How the command may end."""
    quick: bool = False
    """Whether CI has the time for it."""
    starts: str = ""
    """Host whose nova-compute starts: it plugs the ports of all servers that it has read before,
    be they gone meanwhile."""

    def __str__(self) -> str:
        return f"{self.what}, {self.verb} at {self.at}"


def cut(place: str, how: tuple[str, ...] = RESET) -> Trouble:
    return lambda _server: breaks.conductor_cut_from(place, how)


def hop_cut(host: str, how: tuple[str, ...] = SILENT) -> Trouble:
    return lambda _server: breaks.bastion_cut_from(host, how)


def at_once(action: Callable[[], None]) -> Trouble:
    """Something that is over when it is done."""

    def trouble(_server: str) -> AbstractContextManager[None]:
        action()
        return nullcontext()

    return trouble


def restarted(host: str, daemon: str) -> Trouble:
    return at_once(partial(breaks.restart, host, daemon))


def database(cell: str) -> Trouble:
    return at_once(partial(breaks.restart_database, cell))


def full_disk(server: str) -> AbstractContextManager[None]:
    return breaks.disk_full(TARGET, server)


long_only = pytest.mark.skipif(not LONG, reason="make crash-lab-long")
STAY = ("--on-failure", "stop")
CASES = (
    Case("bastion cut off for good", "resize", "stop-source-guest", cut("bastion"), ENDED,
         codes=(4,), quick=True),
    Case("database of cell 1 away", "revert", "begin-revert", cut("cell1"), ENDED, codes=(3, 4)),
    Case("hypervisor silent for a while", "revert", "start-source-guest", hop_cut(SOURCE),
         SECONDS, codes=(0,)),
    Case("API away", "resize", "activate-target-bindings", cut("api"), ENDED, codes=(4,),
         recovery="undo"),
    Case("target disk full", "resize", "precopy-disks", full_disk, ENDED, (*STAY, *SLOWLY),
         codes=(4,), quick=True),
    Case("bastion cut off for good", "revert", "stop-target-guest", cut("bastion"), ENDED,
         codes=(4,), quick=True),
    Case("libvirtd restarted at the source", "resize", "precopy-disks",
         restarted(SOURCE, "libvirtd"), more=SLOWLY),
    Case("API away", "revert", "activate-source-bindings", cut("api"), ENDED, codes=(4,)),
    Case("database of cell 2 away", "resize", "finish-at-target", cut("cell2"), ENDED,
         codes=(4,)),
    Case("libvirtd restarted at the target", "revert", "stop-target-guest",
         restarted(TARGET, "libvirtd")),
    Case("MariaDB of cell 2 restarted", "resize", "stop-source-guest", database("cell2")),
    Case("MariaDB of cell 1 restarted", "revert", "stop-target-guest", database("cell1")),
    Case("nova-compute restarted at the source", "resize", "precopy-disks",
         restarted(SOURCE, "nova-compute"), more=SLOWLY, starts=SOURCE),
    Case("nova-compute restarted at the target", "revert", "stop-target-guest",
         restarted(TARGET, "nova-compute"), starts=TARGET),
    Case("bastion silent for a while", "resize", "precopy-disks", cut("bastion", SILENT),
         SECONDS, SLOWLY, codes=(0,)),
    Case("database of cell 1 silent", "revert", "point-mapping-home", cut("cell1", SILENT),
         SECONDS, codes=(0,)),
    Case("hypervisor silent for a while", "resize", "precopy-disks", hop_cut(TARGET), SECONDS,
         SLOWLY, codes=(0,)),
    Case("API silent", "revert", "activate-source-bindings", cut("api", SILENT), SECONDS,
         codes=(0,)),
    Case("hypervisor cut off for good", "resize", "copy-disks", hop_cut(TARGET, RESET), ENDED,
         codes=(3, 4)),
    Case("hypervisor cut off for good", "revert", "start-source-guest", hop_cut(SOURCE, RESET),
         ENDED, codes=(3, 4)),
    Case("libvirtd restarted at the target", "resize", "start-target-guest",
         restarted(TARGET, "libvirtd")),
    Case("libvirtd restarted at the source", "revert", "start-source-guest",
         restarted(SOURCE, "libvirtd")),
    Case("API database away", "resize", "point-mapping", cut("database"), ENDED, codes=(3, 4)),
    Case("nova-compute restarted at the target", "resize", "finish-at-target",
         restarted(TARGET, "nova-compute"), starts=TARGET),
)  # fmt: skip


@dataclass
class Chaos(Ordeal):
    """The server under which all breaks."""

    since: float = 0
    """When the last command began."""

    def cellmove(self) -> Cellmove:
        """The program with a journal of this case alone, its packets to be told from others'."""
        return Cellmove(self.new_folder(), group=breaks.GROUP)

    def start(self, program: Cellmove, verb: Verb, *more: str) -> subprocess.Popen[str]:
        self.since = time.time()
        wish = WISH if verb == "resize" else ("--yes",)
        return program.start(verb, self.server, *wish, *more)

    def make_ready(self, verb: Verb) -> None:
        """The server is where this verb begins, and nova has got over what broke before."""
        self.nova.wait_enabled(SOURCE, TARGET)
        away = self.nova.status(self.server) == "VERIFY_RESIZE"
        if away == (verb != "resize"):
            return
        program = self.cellmove()
        before: Verb = "revert" if away else "resize"
        done = program.wait(self.start(program, before))
        assert done.code == 0, done
        self.settle(SOURCE if away else TARGET)

    def settle(self, host: str) -> None:
        """Wait until the guest is up on this host, and obeys the power button."""
        self.nova.wait_port(self.server, host)
        self.guest.wait_heartbeat(host, time.time())
        self.guest.wait_told(host, "GUEST ready")

    def carry_out(self, case: Case) -> None:
        """Let it break, mend it, bring the move to its end, and see that all is whole."""
        self.make_ready(case.verb)
        with self.counting(str(case)) as told:
            program = self.cellmove()
            moving = self.start(program, case.verb, *case.more)
            try:
                ended = self.trouble(case, program, moving)
                told.append(f"exit {ended.code}")
                assert ended.code in case.codes, ended
                assert "cellmove has a defect" not in ended.stderr, ended
                forward = self.brought_to_an_end(case, program, ended, told)
            finally:
                if moving.poll() is None:
                    moving.kill()
            if case.starts:
                computes.wait_reported({case.starts: computes.clock(case.starts)})
                program("audit", "--server", self.server, "--mend", "--yes")
            self.require(self.place(case.verb, forward=forward), program)

    def trouble(self, case: Case, program: Cellmove, moving: subprocess.Popen[str]) -> Completed:
        """Break it while the program stands still at the step, so that it meets it there."""
        program.reached(case.at, "begun", moving=moving)
        moving.send_signal(signal.SIGSTOP)
        try:
            trouble = case.trouble(self.server)
        finally:
            if case.seconds != ENDED:
                moving.send_signal(signal.SIGCONT)
        with trouble:
            moving.send_signal(signal.SIGCONT)
            if case.seconds == ENDED:
                return program.wait(moving)
            time.sleep(case.seconds)
        return program.wait(moving)

    def brought_to_an_end(
        self, case: Case, program: Cellmove, ended: Completed, told: list[str]
    ) -> bool:
        """By the case's recovery, or what cellmove says; whether the verb was done in the end."""
        if ended.code == 0:
            return True
        if ended.code == 3:
            return False
        verb = case.recovery
        for _ in range(MOST_RUNS):
            said = re.findall(r"`cellmove (undo|resume) \d+`", ended.stderr)
            verb = verb if verb in said else (said or [verb])[-1]
            ended = program(verb, "1", check=False)
            told.append(f"{verb} {ended.code}")
            if ended.code in (0, 3):
                return ended.code == 0 and verb == "resume"
        raise AssertionError(f"it has no end: {told}, {ended}")

    @staticmethod
    def place(verb: Verb, *, forward: bool) -> str:
        return TARGET if (verb == "resize") == forward else SOURCE

    def require(self, host: str, program: Cellmove) -> None:
        """One visible server on this host, its guest up with its data there and only there."""
        (status,) = self.nova.listed(self.server)
        expected = "ACTIVE" if host == SOURCE else "VERIFY_RESIZE"
        assert (status, self.nova.host(self.server)) == (expected, host)
        assert self.runs_on(SOURCE, TARGET) == [host]
        self.settle(host)
        boots = {beat.boot for beat in self.guest.heartbeats(self.since)}
        assert len(boots) == 1 or self.guest.filled(host)
        (move,) = program("moves", "--json").json()["moves"]
        assert move["state"] in ("finished", "taken back")
        assert_whole(program, self.server)
        assert self.half_done(SOURCE, TARGET) == []
        assert host == TARGET or traces(self.server) == self.home

    @contextmanager
    def counting(self, case: str) -> Iterator[list[str]]:
        """One case; what is added to the list yielded is how it went."""
        told: list[str] = []
        self.counted.update(cases=1, lost=0, left_over=0, failed=0)
        begun = time.monotonic()
        try:
            yield told
        except BaseException:
            told.append("FAILED")
            self.counted["failed"] += 1
            self.counted["lost"] += len(self.nova.listed(self.server)) != 1
            self.counted["left_over"] += bool(self.half_done(SOURCE, TARGET))
            raise
        finally:
            seconds = time.monotonic() - begun
            self.lines.append(f"{case:66} {', '.join(told):26} {seconds:4.0f} s")


@pytest.fixture(scope="module")
def chaos(admin_nova: Nova, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with admin_nova.lent("chaos", SOURCE, metadata={"fill_mib": "8"}) as server:
        guest = GuestWatch.of(admin_nova, server)
        admin_nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, 0)
        guest.wait_told(SOURCE, "fill done")
        it = Chaos(admin_nova, guest, tmp_path_factory.mktemp("chaos"), traces(server))
        yield it
        it.tell()


@pytest.mark.parametrize("case", [case for case in CASES if LONG or case.quick], ids=str)
def test_what_breaks_in_mid_move_loses_nothing(chaos: Chaos, case: Case) -> None:
    chaos.carry_out(case)


@long_only
def test_a_second_conductor_is_refused_by_name_and_the_first_one_ends_its_move(
    chaos: Chaos,
) -> None:
    chaos.make_ready("resize")
    with chaos.counting("two conductors, resize at precopy-disks") as told:
        program, stranger = chaos.cellmove(), chaos.cellmove()
        moving = chaos.start(program, "resize", *SLOWLY)
        program.reached("precopy-disks", "begun", moving=moving)
        for argv in (("resume", "1"), ("undo", "1"), ("resize", chaos.server, *WISH)):
            refused = program(*argv, check=False)
            assert refused.code == 1, refused
            assert f"Process {moving.pid} on " in refused.stderr, (argv, refused)
        other = stranger("resize", chaos.server, *WISH, check=False)
        assert other.code == 1, other
        assert stranger.marks() == []
        done = program.wait(moving)
        told.append(f"refused, exit {done.code}")
        assert done.code == 0, done
        chaos.require(TARGET, program)


def test_a_guest_that_crashes_in_mid_copy_is_off_at_home_and_starts_with_its_data(
    chaos: Chaos,
) -> None:
    chaos.make_ready("resize")
    with chaos.counting("QEMU crashed, resize at precopy-disks") as told:
        program = chaos.cellmove()
        moving = chaos.start(program, "resize", *SLOWLY)
        program.reached("precopy-disks", "begun", moving=moving)
        breaks.wait_there(TARGET, INSTANCES / chaos.server / "disk.cellmove")
        breaks.crash_guest(SOURCE, chaos.server)
        done = program.wait(moving)
        told.append(f"exit {done.code}")
        assert done.code == 3, done
        assert chaos.half_done(SOURCE, TARGET) == []
        assert chaos.runs_on(SOURCE, TARGET) == []
        # Whether nova has seen by now that it is off or not:
        chaos.nova.reboot(chaos.server, "HARD")
        told.append("hard reboot")
        chaos.require(SOURCE, program)


@long_only
def test_a_guest_that_ignores_the_power_button_is_plugged_off_when_its_time_is_over(
    admin_nova: Nova, chaos: Chaos, tmp_path: Path
) -> None:
    content = os.urandom(1 << 20)
    seconds, session = 4, lab_session(project="demo")
    with (
        empty_image(session, content, os_shutdown_timeout=str(seconds)) as image,
        admin_nova.lent("deaf", SOURCE, config_drive=False, more={"imageRef": image}) as server,
        chaos.counting("guest ignores the power button, resize") as told,
    ):
        cellmove = Cellmove(tmp_path)
        answer = cellmove("resize", server, *WISH, "--json").json()
        took = stopping_seconds(cellmove)
        told.append(f"forced after {took:.1f} s")
        assert seconds <= took < seconds + 5, answer
        disk = str(INSTANCES / server / "disk")
        first = ["qemu-img", "dd", "-U", "-O", "raw", "bs=1M", "count=1", f"if={disk}"]
        host_run(TARGET, [*first, f"of=/tmp/{server}"])
        told_hash = host_run(TARGET, ["sha256sum", f"/tmp/{server}"]).split()[0]
        host_run(TARGET, ["rm", f"/tmp/{server}"])
        assert told_hash == hashlib.sha256(content).hexdigest()
        assert_whole(cellmove, server)
        cellmove("revert", server, "--yes")
        assert admin_nova.status(server) == "ACTIVE"
        assert_whole(cellmove, server)


@long_only
def test_a_confirm_that_is_killed_goes_forward_only_and_leaves_one_server(chaos: Chaos) -> None:
    chaos.make_ready("confirm")
    with chaos.counting("confirm killed at remove-source-disks") as told:
        program = chaos.cellmove()
        moving = chaos.start(program, "confirm")
        program.reached("remove-source-disks", "begun", moving=moving)
        moving.kill()
        assert program.wait(moving).code == -signal.SIGKILL
        refused = program("undo", "1", check=False)
        assert refused.code == 1, refused
        program("resume", "1")
        told.append("exit -9, undo refused, resume 0")
        (status,) = chaos.nova.listed(chaos.server)
        assert (status, chaos.nova.host(chaos.server)) == ("ACTIVE", TARGET)
        chaos.settle(TARGET)
        assert chaos.guest.filled(TARGET)
        assert_whole(program, chaos.server)
        left = [each for each in traces(chaos.server) if "cell1" in each or SOURCE in each]
        assert left == []
        chaos.nova.delete(chaos.server)
        nothing_left(chaos.server)


def stopping_seconds(cellmove: Cellmove) -> float:
    """From the beginning of the step that stops the guest to its end, by the journal."""
    steps = cellmove("show", "1", "--json").json()["steps"]
    (found,) = (step for step in steps if step["name"] == "stop-source-guest")
    return float(found["seconds"])
