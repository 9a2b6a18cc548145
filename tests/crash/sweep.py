"""Every death of a verb, and what the next process makes of it.

Death is blown at each outside call of each step (before it, inside its transaction or copy, after
it) and at each event of the journal; and each call may be made while its answer is lost. What the
next process finds is the world and the journal: where two deaths leave the same of both, they are
recovered from once. For the same reason a way back is gone to its end once: another one that comes
to where it was, with the same to take back, has the same way before it. A case is one death with
one recovery:

resume           the move goes on, and ends as the undisturbed one
undo             it gives back the very first world, or refuses and touches nothing
undo and again   after that undo the verb is run once more, to its end
resume killed    the resume dies too, somewhere in its step; the next undo or resume ends it
undo killed      the undo dies too, somewhere in its first step; the next undo ends it
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cellmove.errors import Refused, Stopped, Unknown
from cellmove.journal import Mark, State, Verb
from cellmove.plan import SCORES
from cellmove.steps.base import Step
from tests.fakes.databases import CELLS
from tests.fakes.invariants import foreign, unsafe, unsound
from tests.fakes.trap import When
from tests.unit.rehearsal import Moment, Rehearsal, rehearsed, timeless

WHENS: tuple[When, ...] = ("before", "inside", "after")
RECOVERIES = ("resume", "undo", "undo and again", "resume killed", "undo killed")


class Killed(BaseException):
    """The process is gone: nobody handles it, nothing is written down."""


class _Known(BaseException):
    """From here on the way back has been gone before."""


@dataclass
class Tally:
    """What came of it; `lost` and `left_over` say what is wrong, case by case."""

    deaths: int = 0
    different: int = 0
    """Deaths that leave another world or another journal than the ones before."""
    cases: int = 0
    """Deaths with each recovery."""
    lost: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """This and the other together."""
        self.deaths += other.deaths
        self.different += other.different
        self.cases += other.cases
        self.lost += other.lost
        self.left_over += other.left_over
        self.failed += other.failed

    @property
    def clean(self) -> bool:
        return not (self.lost or self.left_over or self.failed)

    def document(self) -> dict[str, int]:
        """As JSON has it."""
        return {
            "cases": self.cases,
            "deaths": self.deaths,
            "different": self.different,
            "lost": len(self.lost),
            "left_over": len(self.left_over),
            "failed": len(self.failed),
        }


@dataclass
class Play:
    """A verb run undisturbed once, and what is known of its ways back."""

    it: Rehearsal
    home: set[str] = field(default_factory=set)
    """Places from which a way back has come home."""
    repeated: set[str] = field(default_factory=set)
    """Homes from which the verb was run once more."""


def places() -> list[tuple[Verb, int]]:
    """Each step of each verb, by its place in the score."""
    return [(verb, index) for verb, score in SCORES.items() for index in range(len(score))]


def rehearsal(folder: Path, verb: Verb) -> Play:
    """A verb run undisturbed once, with every moment between two steps kept."""
    return Play(rehearsed(folder, verb))


def sweep(play: Play, index: int, *, share: int = 1) -> Tally:
    """All deaths inside the step at this place, each with every recovery.

    With a larger share only each so-manieth answer is lost, and recovery killed.
    """
    tally = Tally()
    step = play.it.steps[index].name
    for number, (how, wreck, alike) in enumerate(_wrecks(play.it, index, share)):
        again = (number + index) % share == 0
        tally.deaths += alike
        tally.different += 1
        tally.cases += alike * (len(RECOVERIES) - 2 * (not again))
        name = f"{play.it.verb}, {step}, {how}"
        with watched(play.it) as harm:
            tried(tally, f"{name}: resume", partial(_resumed, play, index, wreck))
            tried(tally, f"{name}: undo, and again", partial(_undone, play, wreck))
            if again:
                killed = partial(_resume_killed, play, index, wreck, number)
                tried(tally, f"{name}: resume killed", killed)
                killed = partial(_undo_killed, play, wreck, number)
                tried(tally, f"{name}: undo killed", killed)
        tally.lost += [f"{name}: {each}" for each in dict.fromkeys(harm)]
    return tally


class Lost(AssertionError):
    """The world is not what it must be."""


class LeftOver(AssertionError):
    """Something of the move is left."""


def tried(tally: Tally, name: str, recovery: Callable[[], None]) -> None:
    try:
        recovery()
    except Lost as error:
        tally.lost.append(f"{name}: {error}")
    except LeftOver as error:
        tally.left_over.append(f"{name}: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        tally.failed.append(f"{name}: {type(error).__name__}: {error}")


def _wrecks(it: Rehearsal, index: int, share: int) -> Iterator[tuple[str, Moment, int]]:
    """What each death inside this step leaves, each different one once, and how many leave it."""
    it.back_to(it.moments[index])
    advance(it)
    calls = it.world.trap.calls
    found: dict[str, tuple[str, Moment]] = {}
    alike: dict[str, int] = {}
    for how in _deaths(it, index, calls, share):
        left = left_by(it)
        alike[left] = alike.get(left, 0) + 1
        if left not in found:
            moment = Moment(it.world.save(), it.journal.content(), it.world.snapshot())
            found[left] = how, moment
    for left, (how, moment) in found.items():
        yield how, moment, alike[left]


def _deaths(it: Rehearsal, index: int, calls: int, share: int) -> Iterator[str]:
    """Each death in turn; the world is left as it leaves it."""
    for at in range(1, calls + 1):
        for when in WHENS:
            it.back_to(it.moments[index])
            it.world.trap.arm(at, when, Killed)
            with suppress(Killed):
                advance(it)
                continue  # not a call that has such a moment
            yield f"killed {when} call {at}"
        if (at + index) % share:
            continue
        it.back_to(it.moments[index])
        it.world.trap.arm(at, "after", Unknown)
        with suppress(Exception):
            advance(it)
        yield f"answer of call {at} lost"


def advance(it: Rehearsal) -> None:
    """A fresh conductor goes on, for one step."""
    answers = iter([False, True])
    with suppress(Stopped):
        conductor = it.conductor(should_stop=lambda: next(answers))
        conductor.conduct(it.number, it.steps, take_back=False)


def _resumed(play: Play, index: int, wreck: Moment) -> None:
    play.it.back_to(wreck)
    finish_step(play, index)


def finish_step(play: Play, index: int) -> None:
    """The step ends as if undisturbed: the next one begins there, and so on to the end."""
    it = play.it
    step = it.steps[index].name
    if it.entry.last(step) not in (Mark.DONE, Mark.FOUND):
        advance(it)  # else the answer was lost, and a look has settled it
    if timeless(it.world.snapshot()) != timeless(it.moments[index + 1].snapshot):
        raise Lost("the step ended otherwise than undisturbed")
    if it.entry.last(step) not in (Mark.DONE, Mark.FOUND):
        raise Lost("the step is not done")


def _undone(play: Play, wreck: Moment) -> None:
    it = play.it
    it.back_to(wreck)
    if not it.entry.is_open:
        return  # an answer was lost, and a look has settled it
    if reversible(it):
        way_back(play)
        _once_more(play)
        return
    with suppress(Refused):
        it.conductor().undo(it.entry, it.steps)
        raise Lost("the undo of what cannot be undone was not refused")
    if it.world.snapshot() != wreck.snapshot:
        raise Lost("a refused undo has touched something")


def way_back(play: Play) -> None:
    """Take it back, up to where an earlier way back has been that came home from there."""
    with home_again(play) as watch:
        play.it.conductor(watch).undo(play.it.entry, play.it.steps)


@contextmanager
def home_again(play: Play) -> Iterator[Callable[[Step, Mark], None]]:
    """For a conductor that takes all back in the block, or stops there, to go on later.

    Once it comes to where an earlier way back has been that came home, the block is left.
    """
    it = play.it
    passed: list[str] = []

    def watch(step: Step, mark: Mark) -> None:
        if mark is not Mark.UNDOING:
            return
        place = f"{step.name} {left_by(it)}"
        if place in play.home:
            raise _Known
        passed.append(place)

    with suppress(_Known):
        yield watch
        if it.entry.state is not State.TAKEN_BACK:
            return
        require_home(it)
    play.home.update(passed)


def _once_more(play: Play) -> None:
    """Go on with the world that the undo has left: the verb again, to its end."""
    it = play.it
    if it.entry.state is not State.TAKEN_BACK:
        return  # the rest of its way back is known, and so is the home that it leads to
    home = left_by(it, ids_only=True)
    if home in play.repeated:
        return
    # Taken in anew, as a second command does: Cinder has given the volumes other attachments.
    again = Rehearsal(it.world, it.verb, it.flavor)
    if again.entry.state is not State.FINISHED:
        raise Lost("it could not be done again")
    _require_sound(it)
    play.repeated.add(home)


def _resume_killed(play: Play, index: int, wreck: Moment, number: int) -> None:
    """The resume dies as well; what it leaves is taken back, or else brought to its end."""
    it = play.it
    it.back_to(wreck)
    if it.entry.last(it.steps[index].name) in (Mark.DONE, Mark.FOUND):
        return
    _die(it, number, partial(advance, it))
    if it.entry.is_open and reversible(it):
        way_back(play)
    else:
        finish_step(play, index)


def _undo_killed(play: Play, wreck: Moment, number: int) -> None:
    """The undo dies as well; the next one ends it."""
    it = play.it
    it.back_to(wreck)
    if not it.entry.is_open or not reversible(it):
        return
    _die(it, number, lambda: it.conductor().undo(it.entry, it.steps))
    if it.entry.is_open:
        way_back(play)
    else:
        require_home(it)


def _die(it: Rehearsal, number: int, recovery: Callable[[], object]) -> None:
    """Let the recovery die at a place that differs from death to death, mostly in its first step.

    One that needs fewer calls ends.
    """
    it.world.trap.arm(1 + number * 5 % 11, WHENS[number % len(WHENS)], Killed)
    with suppress(Killed):
        recovery()
    it.world.trap.arm(0, "before")


def reversible(it: Rehearsal) -> bool:
    begun = {event.step for event in it.entry.events}
    return all(step.reversible for step in it.steps if step.name in begun)


def require_home(it: Rehearsal) -> None:
    if it.world.snapshot() != it.moments[0].snapshot:
        raise Lost("undo has not given back what was")
    _require_sound(it)


def _require_sound(it: Rehearsal) -> None:
    if left := unsound(it.world):
        raise LeftOver("; ".join(left))


def left_by(it: Rehearsal, *, ids_only: bool = False) -> str:
    """The same for worlds and journals that a process cannot tell apart, but for times."""
    chosen = [
        it.world.query(cell.uuid, "SELECT id, attachment_id FROM block_device_mapping")
        for cell in CELLS
    ]
    ids = chosen, sorted(it.world.volumes._attachments)
    if ids_only:
        return repr(ids)
    tools = [host.tools() for host in it.world.hosts.by_name.values()]
    entry = it.entry
    marks = [
        (step.name, last, entry.saved(step.name))
        for step in it.steps
        if (last := entry.last(step.name)) not in (None, Mark.UNDONE)
    ]
    everything = repr((timeless([it.world.snapshot(), tools, marks]), entry.state, ids))
    return hashlib.sha256(everything.encode()).hexdigest()


@contextmanager
def watched(it: Rehearsal) -> Iterator[list[str]]:
    """What is unsafe after any outside call of the block."""
    harm: list[str] = []
    it.world.trap.watch = lambda: harm.extend(unsafe(it.world))
    yield harm
    it.world.trap.watch = lambda: None


def neighbours_are_untouched(play: Play) -> bool:
    """No move changes anything of another server."""
    it = play.it
    it.back_to(it.moments[0])
    before = foreign(it.world)
    it.back_to(it.end)
    return foreign(it.world) == before
