"""Whatever users, administrators, commands, faults and deaths do, in any order: invariants hold."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cellmove.conductor import Conductor
from cellmove.errors import CellmoveError, StepFailed, Unknown, Unreachable
from cellmove.journal import Entry, State, Verb
from cellmove.plan import plan
from tests.fakes import others
from tests.fakes.invariants import foreign, home_cell, instances, unsafe, unsound
from tests.fakes.trap import When
from tests.fakes.world import SERVER, World
from tests.unit.rehearsal import MemoryJournal

pytestmark = pytest.mark.no_cover  # slower by half with it, and nothing new is covered

FAULTS: dict[str, type[BaseException]] = {
    "refused": StepFailed,
    "answer lost": Unknown,
    "unreachable": Unreachable,
    "bug": RuntimeError,
    "killed": KeyboardInterrupt,
}
CALLS = st.integers(1, 160)
WHEN: st.SearchStrategy[When] = st.sampled_from(["before", "inside", "after"])


class Meanwhile(RuleBasedStateMachine):
    """One server, its owner, an administrator, and commands that fail or are killed anywhere."""

    @initialize(vm_state=st.sampled_from(["active", "stopped"]))
    def born(self, vm_state: str) -> None:
        """A server at home, and neighbours."""
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name), vm_state)
        self.journal = MemoryJournal()
        self.neighbours: dict[str, Any] = foreign(self.world)
        self.deleted = self.meddled = False

    def teardown(self) -> None:
        """Whatever happened, one more undo or resume without faults ends it whole."""
        if not hasattr(self, "world"):
            return
        if self._open:
            with suppress(CellmoveError):
                self._go_on()
        if self._open:
            self._finish()
        assert not self._open
        self.over()
        self.journal.close()
        self.folder.cleanup()

    @property
    def _open(self) -> Entry | None:
        return next((each for each in self.journal.entries() if each.is_open), None)

    @rule(verb=st.sampled_from(["resize", "confirm", "revert"]), at=CALLS, when=WHEN,
          fault=st.sampled_from([*FAULTS, "none"]))  # fmt: skip
    def command(self, verb: Verb, at: int, when: When, fault: str) -> None:
        """A verb, with one fault somewhere on its way; it may be refused."""
        with suppress(CellmoveError):
            move = self.world.move(verb, "c2")
            number = self.journal.open_move(verb, move)
            self._arm(at, when, fault)
            self._conducted(lambda it: it.conduct(number, plan(verb, move), take_back=at % 2 == 0))

    @precondition(lambda self: self._open is not None)
    @rule(back=st.booleans(), at=CALLS, when=WHEN, fault=st.sampled_from([*FAULTS, "none"]))
    def recover(self, *, back: bool, at: int, when: When, fault: str) -> None:
        """`undo` or `resume`, with one fault on its way as well."""
        entry = self._open
        assert entry is not None
        steps = plan(entry.verb, entry.move)
        self._arm(at, when, fault)
        if back:
            self._conducted(lambda it: it.undo(entry, steps))
        else:
            self._conducted(lambda it: it.conduct(entry.number, steps, take_back=False))

    @precondition(lambda self: not self.deleted)
    @rule(name=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9))
    def rename(self, name: str) -> None:
        """The owner renames the server: nova-api writes to the mapped cell."""
        cell, _host = others._home(self.world)
        with self.world.cells[cell].write() as rows:
            rows.change("instances", {"display_name": name}, uuid=SERVER, deleted=0)

    @precondition(lambda self: not self.deleted)
    @rule(state=st.sampled_from(["active", "error"]))
    def reset(self, state: str) -> None:
        """An administrator resets the server's state."""
        others.resets(self.world, state)
        self.meddled = True

    @precondition(lambda self: not self.deleted and not self.meddled and self._open is not None)
    @rule()
    def restart(self) -> None:
        """nova-compute of the source is restarted."""
        before = {cell: row["task_state"] for cell, row in instances(self.world).items()}
        with suppress(StepFailed):
            others.restarts_compute(self.world)
        after = {cell: row["task_state"] for cell, row in instances(self.world).items()}
        self.meddled |= before != after

    @precondition(lambda self: not self.deleted)
    @rule()
    def delete(self) -> None:
        """The owner deletes the server."""
        self.deleted = True
        others.deletes(self.world)

    @invariant()
    def safe(self) -> None:
        """Never two guests, never no disk, never a mapping into nothing; the neighbours rest."""
        if hasattr(self, "world"):
            assert self.deleted or unsafe(self.world) == []
            assert foreign(self.world) == self.neighbours

    @invariant()
    def over(self) -> None:
        """With no command under way nothing is left over."""
        if not hasattr(self, "world") or self._open:
            return
        tools = [host.tools() for host in self.world.hosts.by_name.values()]
        assert not any(any(each.values()) for each in tools)
        if self.deleted:
            self._gone()
        elif not self.meddled:
            assert unsound(self.world) == []
        else:
            rows = instances(self.world)
            shown = [cell for cell, row in rows.items() if not row["hidden"]]
            assert shown == [home_cell(self.world)]

    def _gone(self) -> None:
        if any(not row["deleted"] for row in instances(self.world).values()):
            others.deletes(self.world)  # nova's first try met a checkpoint
        if len(instances(self.world)) == 1:  # else it was resized: nova's own confirm is next
            assert others.left_of_the_deleted(self.world) == []

    def _arm(self, at: int, when: When, fault: str) -> None:
        self.world.trap.arm(at if fault != "none" else 0, when, FAULTS.get(fault, StepFailed))

    def _conducted(self, use: Any) -> None:
        """By a new process; only our own errors and death may come out of it."""
        with suppress(CellmoveError, KeyboardInterrupt):
            use(Conductor(self.journal, self.world.cloud, lambda _step, _mark: None))
        self.world.trap.arm(0, "before")

    def _go_on(self) -> None:
        entry = self._open
        assert entry is not None
        Conductor(self.journal, self.world.cloud, lambda _step, _mark: None).undo(
            entry, plan(entry.verb, entry.move)
        )

    def _finish(self) -> None:
        """It can only go forward."""
        entry = self._open
        assert entry is not None
        assert entry.state is State.OPEN
        Conductor(self.journal, self.world.cloud, lambda _step, _mark: None).conduct(
            entry.number, plan(entry.verb, entry.move), take_back=False
        )


Meanwhile.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestWhateverHappens = Meanwhile.TestCase
