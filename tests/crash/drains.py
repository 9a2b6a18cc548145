"""A drain that dies anywhere: the next one ends it, at once, after an undo, or after another death.

One server is drained and confirmed. What a death leaves is written down in one undisturbed run: at
each moment all that is committed, in the world as in the journal, which is what the next process
finds. Moments that leave the same of both are one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import sqlalchemy as sa

from cellmove.conductor import Conductor
from cellmove.draining import tools
from cellmove.draining.happenings import Outcome
from cellmove.draining.run import Drain
from cellmove.draining.scope import look, scope_of
from cellmove.draining.tools import Holds, Tools
from cellmove.draining.wishes import Terms, Wishes
from cellmove.draining.work import Work
from cellmove.errors import Refused
from cellmove.interrupts import Interrupts
from cellmove.journal import Entry, Journal
from cellmove.model import Transfer
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.services.session import Identity
from tests.crash.sweep import Killed, LeftOver, Lost, Tally, tried
from tests.fakes.invariants import foreign, unsafe, unsound
from tests.fakes.permission import Everybody
from tests.fakes.world import ACTOR, State, World, _File
from tests.unit.rehearsal import timeless

WISHES = Wishes(cell="cell1", only=Terms(names=("web-*",)), parallel=1, confirm_after_seconds=0.0)
RECOVERIES = ("drain", "undo and drain", "killed again and drain")
IDS = range(690, 1000)
"""What the fake target cell numbers its rows with; no number is given twice, even after an undo."""
GUEST = re.compile(r"instance-[0-9a-f]{8}")

T = TypeVar("T")


class Dying(Journal):
    """A journal whose every writing is one of the calls at which a process may die."""

    around: Callable[[Callable[[], Any]], Any] = staticmethod(lambda call: call())

    def _do(
        self,
        what: str,
        work: Callable[[sa.Connection], T],
        patience_seconds: float | None = None,
    ) -> T:
        made: T = self.around(partial(super()._do, what, work, patience_seconds))
        return made


@dataclass(frozen=True, slots=True)
class Death:
    """What a process that dies at this moment leaves."""

    after: int
    """Outside calls and writings of the journal."""
    world: State
    journal: bytes


@dataclass
class Drained:
    """One server, its drain, and all that a death in it leaves."""

    folder: Path
    deaths: list[Death] = field(default_factory=list)
    alike: list[int] = field(default_factory=list)
    """How many moments leave the same as this death."""
    calls: int = 0
    killed_after: int = 0
    """The process dies after so many calls; 0: it lives."""
    repeated: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        (self.folder / "cloud").mkdir()
        self.world = World(self.folder / "cloud")
        self.neighbours = foreign(self.world)
        self.path = self.folder / "journal.db"
        Journal(self.path).close()
        self.file = _File(str(self.path))
        self.world.trap.watch = self._called
        self.world.hosts.midway = self._keep
        self.note = True
        self._keep()
        self.start = self.deaths[0]
        self.drain()
        self.note = False
        self.end = self._seen()

    def drain(self) -> None:
        """The whole command, in this thread."""
        self.world._report_services()
        with self._journal() as journal, patch.object(tools, "Conductor", _one_by_one):
            scope = scope_of(self.world.cloud, WISHES)
            found = look(self.world.cloud, scope, WISHES, journal.entries())
            holds = Holds(Interrupts(lambda _text: None))
            number = journal.open_drain(scope.key)
            shared = Tools(journal, self._open, lambda _: ACTOR, _nobody, lambda _happening: None)
            drain = Drain(Work(shared, scope, WISHES, number, holds), found)
            drain._worker()
            journal.close_drain(number)
        if drain.broken:
            raise drain.broken
        _require_done(drain.outcomes)

    def undo(self) -> None:
        """Take back what is open, if it can be; by another process."""
        with self._journal() as journal:
            for entry in journal.entries(only_open=True):
                steps = plan(entry.verb, entry.move)
                with suppress(Refused), journal.lease(entry.move.id):  # it can only go forward
                    self._conductor(journal).undo(entry, steps)

    def back_to(self, death: Death) -> None:
        """What it left is there, and its process is no more."""
        self.world.load(death.world)
        self.file.put_back(death.journal)
        self.bury()

    def bury(self) -> None:
        """Nobody who wrote to the journal lives."""
        self.calls = self.killed_after = 0
        self.file._raw.execute("DELETE FROM holders")

    def require_end(self) -> None:
        """It ended as undisturbed; nobody is left in the journal.

        Only the dead may be: one who died when its move was over, before it gave back the lease,
        leaves it behind, and it hinders nobody.
        """
        if self._seen() != self.end:
            raise Lost("it ended otherwise than undisturbed")
        if left := unsound(self.world):
            raise LeftOver("; ".join(left))
        if foreign(self.world) != self.neighbours:
            raise Lost("a neighbour was touched")
        living = "leases WHERE holder IN (SELECT id FROM holders)"
        for table in (living, "drains WHERE closed_at IS NULL"):
            if self.file.query(f"SELECT * FROM {table}"):
                raise LeftOver(f"the journal has {table}")

    def _seen(self) -> Any:
        """The world, but for times and for what each move chooses itself."""
        with self._journal() as journal:
            entries = journal.entries()
        if any(each.is_open for each in entries):
            raise LeftOver("a move is open")
        return timeless(_renamed(self.world.snapshot(), _names(entries)))

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        journal = Dying(self.path)
        journal.around = self._around
        try:
            yield journal
        finally:
            journal._heart.stop()  # the dead give nothing back, and the living have
            journal._engine.dispose()

    @contextmanager
    def _open(self, request_id: str, progress: Callable[[Transfer], None]) -> Iterator[OpenCloud]:
        who = Identity("admin-user", "admin-project", frozenset({"admin"}))
        cloud = replace(self.world.cloud, progress=progress)
        yield OpenCloud(cloud, who, request_id, Everybody(), lambda project: project)

    def _conductor(self, journal: Journal) -> Conductor:
        return Conductor(journal, self.world.cloud, lambda _step, _mark: None)

    def _around(self, call: Callable[[], Any]) -> Any:
        self._die()
        answer = call()
        self._called()
        return answer

    def _called(self) -> None:
        self.calls += 1
        if self.note:
            self._keep()
        self._die()

    def _die(self) -> None:
        """Once it is dead, it makes no other call."""
        if self.killed_after and self.calls >= self.killed_after:
            raise Killed

    def _keep(self) -> None:
        if not self.note:
            return
        death = Death(self.calls, self.world.save(), self.file.content())
        if self.deaths and _same(death, self.deaths[-1]):
            self.alike[-1] += 1
            return
        self.deaths.append(death)
        self.alike.append(1)


def sweep(play: Drained, index: int) -> Tally:
    """One death with one recovery: one after the other, from death to death."""
    death, recovery = play.deaths[index], RECOVERIES[index % len(RECOVERIES)]
    tally = Tally(play.alike[index], 1, play.alike[index])
    harm: list[str] = []
    called = play.world.trap.watch
    name = f"drain, killed after call {death.after}: {recovery}"

    def watch() -> None:
        harm.extend(unsafe(play.world))
        called()

    play.back_to(death)
    play.world.trap.watch = watch
    tried(tally, name, partial(_recover, play, index, recovery))
    play.world.trap.watch = called
    tally.lost += [f"{name}: {each}" for each in dict.fromkeys(harm)]
    return tally


def _recover(play: Drained, index: int, recovery: str) -> None:
    if recovery == "killed again and drain":
        play.killed_after = 1 + index * 7 % 37
        with suppress(Killed):
            play.drain()
        play.bury()
    if recovery == "undo and drain":
        play.undo()
    play.drain()
    play.require_end()


def _same(one: Death, other: Death) -> bool:
    return (one.world, one.journal) == (other.world, other.journal)


def _names(entries: list[Entry]) -> Mapping[str, str]:
    """What a move chooses itself -> a name for it that is the same for each."""
    return {
        chosen: f"{name} of the {entry.verb}"
        for entry in entries
        for name, chosen in (
            ("move", entry.move.id),
            ("migration", entry.move.migration),
            ("request", entry.move.request_id),
        )
    }


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, int):
        return "of the target cell" if value in IDS else value
    if isinstance(value, str):
        for chosen, name in names.items():
            value = value.replace(chosen, name)
        return GUEST.sub("instance-ID", value)
    if isinstance(value, dict):
        return {_renamed(key, names): _renamed(each, names) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(each, names) for each in value]
    return value


def _require_done(outcomes: list[Outcome]) -> None:
    bad = [f"{each.kind}: {each.error}" for each in outcomes if each.error]
    if bad:
        raise AssertionError("; ".join(bad))


def _one_by_one(*args: Any, abreast: bool, **more: Any) -> Conductor:
    """Lanes in threads would die one by one; what they do in any order is tested elsewhere."""
    del abreast
    return Conductor(*args, **more)


def _nobody(_cloud: Any, _entry: Any) -> Any:
    return nullcontext([])
