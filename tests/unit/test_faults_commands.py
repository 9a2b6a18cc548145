"""Whatever fails under a command: it is told clearly, with the documented exit code.

Commands that only look touch nothing; one that moves leaves a cloud that is as before (exit 1 or
3), moved (0), or brought to either end by what it names itself (4).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cellmove.errors import Exit, StepFailed, Unreachable
from tests.fakes.invariants import unsound
from tests.fakes.trap import When
from tests.fakes.world import SERVER, State
from tests.faults.databases import DbFault, Spoilt, spoiling
from tests.faults.rules import UUID
from tests.unit.conftest import Ran, Terminal

RESIZE = ("resize", SERVER, "--flavor", "c2", "--to-host", "cmp2a")
HOME = {
    "list": ("list",),
    "check": ("check", "--server", SERVER, "--flavor", "c2"),
    "audit": ("audit",),
    "resize": (*RESIZE, "--dry-run"),
    "drain": ("drain", "--cell", "cell1", "--dry-run"),
}
AWAY = {
    "compare": ("compare", SERVER),
    "confirm": ("confirm", SERVER, "--dry-run"),
    "revert": ("revert", SERVER, "--dry-run"),
}
THREE = ("Seen at the call.", "Try again.")
CALLS: tuple[tuple[When, type[Exception]], ...] = (
    ("before", Unreachable),
    ("before", StepFailed),
    ("after", Unreachable),
)
STATEMENTS = (DbFault.LOST, DbFault.GONE, DbFault.DEADLOCK, DbFault.LOCKED)
MOST = 3
"""So many calls and statements of each looking command are spoilt, evenly over all of it."""
MOVED = 2
"""The same for commands that move."""


@dataclass
class Stage:
    """A terminal before a fake cloud that can be put back, and whose calls can be spoilt."""

    terminal: Terminal
    spoilt: Spoilt
    home: State = field(init=False)
    away: State = field(init=False)
    journal: bytes = b""

    def __post_init__(self) -> None:
        self.home = self.terminal.world.save()
        ran = self.terminal.type(*RESIZE)
        assert ran.code == 0, ran
        self.away = self.terminal.world.save()
        self.journal = self.terminal.journal.read_bytes()

    def back_to(self, state: State) -> None:
        """As it was then, the journal too."""
        self.mend()
        self.terminal.world.load(state)
        self.terminal.world._report_services()
        for path in self.terminal.journal.parent.glob("journal.db*"):
            path.unlink()
        if state is self.away:
            self.terminal.journal.write_bytes(self.journal)

    def mend(self) -> None:
        """Nothing is spoilt any more."""
        self.terminal.world.trap.arm(0, "before")
        self.spoilt.disarm()

    def lengths(self, state: State, argv: tuple[str, ...]) -> tuple[int, int]:
        """How many calls and statements the command makes when nothing is spoilt."""
        self.back_to(state)
        ran = self.terminal.type(*argv)
        assert ran.code in (0, Exit.FINDINGS), ran
        return self.terminal.world.trap.calls, self.spoilt.count

    def spoils(self, calls: int, statements: int, most: int) -> Iterator[tuple[str, Any]]:
        """What may be spoilt: a name, and what to do beforehand."""
        trap = self.terminal.world.trap
        for at, (when, kind) in zip(_spread(calls, most), itertools.cycle(CALLS), strict=False):
            yield f"call {at} {when}: {kind.__name__}", _armed(trap.arm, at, when, kind)
        for at, fault in zip(_spread(statements, most), itertools.cycle(STATEMENTS), strict=False):
            yield f"statement {at}: {fault.name}", _arming(self.spoilt.arm, fault, at, False)
            yield f"from statement {at} on", _arming(self.spoilt.arm, DbFault.GONE, at, True)


@pytest.fixture
def stage(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr("cellmove.dbcopy.database.RETRY_PAUSES_SECONDS", (0.0, 0.0))
    world = terminal.world
    with spoiling([each._engine for each in (world.api, *world.cells.values())]) as spoilt:
        yield Stage(terminal, spoilt)


def require_clear(ran: Ran, why: str) -> None:
    """One error or answer; nothing that nobody foresaw."""
    assert ran.code in set(Exit), (why, ran)
    assert "defect" not in ran.err + ran.out, (why, ran)
    assert "Traceback" not in ran.err, (why, ran)
    assert not re.search(r"sqlalchemy|pymysql|OperationalError", ran.err + ran.out), (why, ran)
    assert ran.code == 0 or ran.err or ran.out, (why, ran)


def test_a_look_that_is_spoilt_says_so_and_touches_nothing(stage: Stage) -> None:
    for name, argv in {**HOME, **AWAY}.items():
        state = stage.home if name in HOME else stage.away
        lengths = stage.lengths(state, argv)
        clean = stage.terminal.type(*argv)
        before = stage.terminal.world.snapshot()
        for why, arm in stage.spoils(*lengths, MOST):
            stage.mend()
            arm()
            ran = stage.terminal.type(*argv)
            require_clear(ran, f"{name}, {why}")
            # A drain goes to another host when one cannot be asked.
            felt = ran.code != 0 or name == "drain"
            assert felt or _nameless(ran.out) == _nameless(clean.out), (name, why, ran)
            assert stage.terminal.world.snapshot() == before, (name, why)


def test_a_move_that_is_spoilt_ends_as_it_says_and_is_brought_to_an_end(stage: Stage) -> None:
    codes = set()
    for verb in ("resize", "confirm", "revert"):
        argv = RESIZE if verb == "resize" else (verb, SERVER, "--yes")
        state = stage.home if verb == "resize" else stage.away
        for why, arm in stage.spoils(*stage.lengths(state, argv), MOVED):
            stage.back_to(state)
            before = stage.terminal.world.snapshot()
            arm()
            ran = stage.terminal.type(*argv)
            stage.mend()
            require_clear(ran, f"{verb}, {why}")
            assert ran.code in (0, Exit.REFUSED, Exit.TAKEN_BACK, Exit.NOT_TAKEN_BACK), (why, ran)
            codes.add(ran.code)
            if ran.code in (Exit.REFUSED, Exit.TAKEN_BACK):
                assert stage.terminal.world.snapshot() == before, (why, ran)
            if ran.code == Exit.NOT_TAKEN_BACK:
                _go_on(stage, ran)
            assert unsound(stage.terminal.world) == [], (why, ran)
    assert codes >= {Exit.TAKEN_BACK, Exit.NOT_TAKEN_BACK}


def _nameless(text: str) -> str:
    """Without what each run chooses anew."""
    return UUID.sub("*", text)


def _go_on(stage: Stage, ran: Ran) -> None:
    """What the command names itself ends it."""
    named = re.findall(r"cellmove (resume|undo) (\d+)", " ".join(ran.err.split()))
    assert named, ran
    again = stage.terminal.type(*named[-1])
    assert again.code == 0, (ran, again)


def _spread(count: int, most: int) -> Iterator[int]:
    """At most so many numbers from 1 to the count, the last among them."""
    step = max(1, -(-count // most))
    yield from range(count, 0, -step)


def _armed(arm: Any, at: int, when: When, kind: Any) -> Callable[[], object]:
    return lambda: arm(at, when, lambda what: kind(f"A fault: {what}.", *THREE))


def _arming(arm: Any, fault: DbFault, at: int, for_ever: bool) -> Callable[[], object]:
    return lambda: arm(fault, at, for_ever=for_ever)
