"""Every call of every step meets every fault: it is not felt, or the move stands and can go on.

What comes after is `resume`, `undo`, or what the command itself does when a step fails. Where two
faults leave the same world and journal, they are recovered from once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

from cellmove.errors import CellmoveError, StepFailed, TakenBack, UndoIncomplete, Unknown
from cellmove.errors import Unreachable as Away
from cellmove.journal import Mark
from tests.crash.sweep import (
    Lost,
    Play,
    Tally,
    finish_step,
    home_again,
    left_by,
    reversible,
    tried,
    watched,
    way_back,
)
from tests.fakes.trap import Trap, When
from tests.faults.databases import DbFault, Spoilt, spoiling
from tests.unit.rehearsal import Rehearsal

CALLS: tuple[tuple[str, When, type[CellmoveError]], ...] = (
    ("cannot be reached", "before", Away),
    ("is turned down", "before", StepFailed),
    ("times out, not done", "before", Unknown),
    ("is cut off", "inside", Away),
    ("is done, its answer lost", "after", Unknown),
)
"""What an outside call (service, host, transaction) may raise, and when."""
STATEMENTS = (DbFault.LOST, DbFault.GONE, DbFault.DEADLOCK, DbFault.LOCKED)
COMMITS = (*STATEMENTS, DbFault.ANSWER_LOST)
THREE = ("Seen at the call.", "Try again.")


class Outage(Trap):
    """A trap that stays sprung: from the call on nothing can be reached any more."""

    def spring(self, when: When) -> None:
        if self.at and self.calls >= self.at and when == "before":
            raise Away("Nothing can be reached.", *THREE)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault at one call."""

    name: str
    arm: Callable[[], object]


def sweep(play: Play, index: int, *, share: int = 1, first: int = 0) -> Tally:
    """All faults inside the step at this place, or every so-manieth of them, from `first` on."""
    tally = Tally()
    it = play.it
    known: set[tuple[str, str]] = set()
    trap = it.world.trap
    databases = (it.world.api, *it.world.cells.values())
    engines = [each._engine for each in databases]
    pauses = patch("cellmove.dbcopy.database.RETRY_PAUSES_SECONDS", (0.0, 0.0))
    with pauses, watched(it) as harm, spoiling(engines) as spoilt:
        for number, fault in enumerate(_faults(it, index, trap, spoilt)):
            if (number + index) % share != first % share:
                continue
            name = f"{it.verb}, {it.steps[index].name}, {fault.name}"
            tally.cases += 1
            one = partial(_met, play, index, fault, number // share, known, trap, spoilt)
            tried(tally, name, one)
            tally.lost += [f"{name}: {each}" for each in dict.fromkeys(harm)]
            harm.clear()
            _mend(it, trap, spoilt)
    return tally


def _faults(it: Rehearsal, index: int, trap: Trap, spoilt: Spoilt) -> Iterator[Fault]:
    it.back_to(it.moments[index])
    _mend(it, trap, spoilt)
    _go(it, index, take_back=False)
    calls, statements = trap.calls, spoilt.count
    commits, connects = set(spoilt.commits), set(spoilt.connects)
    for at in range(1, calls + 1):
        for what, when, kind in CALLS:
            yield Fault(f"call {at} {what}", partial(_arm, trap, at, when, kind))
        yield Fault(f"from call {at} on nothing can be reached", partial(_cut, it, trap, at))
    for at in range(1, statements + 1):
        kinds = COMMITS if at in commits else STATEMENTS
        for fault in (DbFault.FULL,) if at in connects else kinds:
            yield Fault(f"statement {at}: {fault.name}", partial(spoilt.arm, fault, at))
        away = partial(spoilt.arm, DbFault.GONE, at, for_ever=True)
        yield Fault(f"from statement {at} on: {DbFault.GONE.name}", away)
    for at, when in ((1, "before"), (1, "after"), (2, "before"), (2, "after")):
        yield Fault(f"the journal goes away {when} writing {at}", partial(_lose, it, at, when))


def _met(
    play: Play,
    index: int,
    fault: Fault,
    number: int,
    known: set[tuple[str, str]],
    trap: Trap,
    spoilt: Spoilt,
) -> None:
    it = play.it
    it.back_to(it.moments[index])
    _mend(it, trap, spoilt)
    fault.arm()
    take_back = number % 3 == 2
    if take_back and reversible(it):
        came_home = True
        with home_again(play) as watch:
            ended = _go(it, index, take_back=True, watch=watch)
            came_home = isinstance(ended, TakenBack)
        if came_home:
            return
    else:
        ended = _go(it, index, take_back=False)
    _mend(it, trap, spoilt)
    if isinstance(ended, TakenBack):
        raise Lost(f"taken back, though nothing was to be: {ended}")
    back = number % 3 == 1 or it.entry.state.value == "undoing"
    recovery = "undo" if back and reversible(it) else "resume"
    here = left_by(it), recovery
    if here in known or not it.entry.is_open:
        return
    known.add(here)
    if recovery == "undo":
        way_back(play)
    else:
        finish_step(play, index)


def _go(
    it: Rehearsal,
    index: int,
    *,
    take_back: bool,
    watch: Callable[..., None] = lambda step, mark: None,
) -> CellmoveError | None:
    """One step of a fresh process; how it ended. What is not an error of ours goes up."""
    name = it.steps[index].name
    conductor = it.conductor(watch, lambda: it.entry.last(name) in (Mark.DONE, Mark.FOUND))
    try:
        conductor.conduct(it.number, it.steps, take_back=take_back)
    except CellmoveError as error:
        _require_clear(error)
        return error
    return None


def _require_clear(error: CellmoveError) -> None:
    """Three sentences, and one of the ends that a command may have."""
    if not all(part.endswith((".", "?", "!")) for part in (error.what, error.seen, error.do)):
        raise Lost(f"no three sentences: {error.args}")
    if int(error.exit_code) == 4 and not isinstance(error, UndoIncomplete):
        raise Lost(f"another error with exit code 4: {error!r}")


def _arm(trap: Trap, at: int, when: When, kind: type[CellmoveError]) -> None:
    def made(what: str) -> CellmoveError:
        return kind(f"{what[:1].upper()}{what[1:]}.", *THREE)

    trap.arm(at, when, made)  # type: ignore[arg-type]


def _cut(it: Rehearsal, trap: Trap, at: int) -> None:
    it.world.trap = Outage(at=at, watch=trap.watch)


def _lose(it: Rehearsal, at: int, when: str) -> None:
    """The journal takes one writing less, or takes it and does not say so; then none any more."""
    real = type(it.journal).write
    written = 0

    def write(*args: object, **more: object) -> None:
        nonlocal written
        written += 1
        if written < at or (written == at and when == "after"):
            real(it.journal, *args, **more)  # type: ignore[arg-type]
        if written >= at:
            raise Away("The journal did not take it.", *THREE)

    it.journal.write = write  # type: ignore[method-assign]


def _mend(it: Rehearsal, trap: Trap, spoilt: Spoilt) -> None:
    """All is as it should be again."""
    it.world.trap = trap
    trap.arm(0, "before")
    spoilt.disarm()
    vars(it.journal).pop("write", None)
