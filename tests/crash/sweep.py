"""Every death of a verb, and what the next process makes of it.

Death is blown at each outside call of each step (before it, inside its transaction or copy, after
it) and at each event of the journal; and each call may be made while its answer is lost. What the
next process finds is the world and the journal: where two deaths leave the same of both, they are
recovered from once. A case is one death with one recovery:

resume          the move goes on, and ends as the undisturbed one
undo            it gives back the very first world, or refuses and touches nothing
undo and again  after that undo the verb is run once more, to its end
killed again    the undo dies too, somewhere; the next one ends it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cellmove.errors import Refused, Stopped, TakenBack, Unknown
from cellmove.journal import Mark, State, Verb
from cellmove.plan import SCORES
from tests.fakes.invariants import foreign, unsafe, unsound
from tests.fakes.trap import When
from tests.unit.rehearsal import Moment, Rehearsal, rehearsed, timeless

WHENS: tuple[When, ...] = ("before", "inside", "after")
RECOVERIES = ("resume", "undo", "undo and again", "killed again")


class Killed(BaseException):
    """The process is gone: nobody handles it, nothing is written down."""


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


def places() -> list[tuple[Verb, int]]:
    """Each step of each verb, by its place in the score."""
    return [(verb, index) for verb, score in SCORES.items() for index in range(len(score))]


def rehearsal(folder: Path, verb: Verb) -> Rehearsal:
    """A verb run undisturbed once, with every moment between two steps kept."""
    return rehearsed(folder, verb)


def sweep(play: Rehearsal, index: int, *, killed_again: int = 1, lost_answers: int = 1) -> Tally:
    """All deaths inside the step at this place, each with every recovery.

    With larger numbers only each so-manieth recovery is killed too, and answer is lost.
    """
    tally = Tally()
    for number, (how, wreck, alike) in enumerate(_wrecks(play, index, lost_answers)):
        again = (number + index) % killed_again == 0
        tally.deaths += alike
        tally.different += 1
        # "Undo and again" is one with "undo": all end in the very same world.
        tally.cases += alike * (len(RECOVERIES) - (not again))
        name = f"{play.verb}, {play.steps[index].name}, {how}"
        with _watched(play) as harm:
            _tried(tally, f"{name}: resume", partial(_resumed, play, index, wreck))
            _tried(tally, f"{name}: undo", partial(_undone, play, wreck))
            if number == 0 and index % killed_again == 0:
                # The first death's undo ends where all others' do: in the very first world.
                _tried(tally, f"{name}: undo and again", partial(_once_more, play))
            if again:
                _tried(tally, f"{name}: killed again", partial(_killed_again, play, wreck, number))
        tally.lost += [f"{name}: {each}" for each in dict.fromkeys(harm)]
    return tally


class _Lost(AssertionError):
    """The world is not what it must be."""


class _LeftOver(AssertionError):
    """Something of the move is left."""


def _tried(tally: Tally, name: str, recovery: Callable[[], None]) -> None:
    try:
        recovery()
    except _Lost as error:
        tally.lost.append(f"{name}: {error}")
    except _LeftOver as error:
        tally.left_over.append(f"{name}: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        tally.failed.append(f"{name}: {type(error).__name__}: {error}")


def _wrecks(play: Rehearsal, index: int, lost_answers: int) -> Iterator[tuple[str, Moment, int]]:
    """What each death inside this step leaves, each different one once, and how many leave it."""
    play.back_to(play.moments[index])
    advance(play)
    calls = play.world.trap.calls
    found: list[tuple[str, Moment, Any]] = []
    alike: list[int] = []
    for how in _deaths(play, index, calls, lost_answers):
        events = [(event.step, event.mark, event.saved) for event in play.entry.events]
        left = timeless(play.world.snapshot()), _tools(play), events
        known = next((n for n, (_, _, seen) in enumerate(found) if seen == left), None)
        if known is not None:
            alike[known] += 1
            continue
        moment = Moment(play.world.save(), play.journal.content(), play.world.snapshot())
        found.append((how, moment, left))
        alike.append(1)
    for (how, moment, _), count in zip(found, alike, strict=True):
        yield how, moment, count


def _deaths(play: Rehearsal, index: int, calls: int, lost_answers: int) -> Iterator[str]:
    """Each death in turn; the world is left as it leaves it."""
    for at in range(1, calls + 1):
        for when in WHENS:
            play.back_to(play.moments[index])
            play.world.trap.arm(at, when, Killed)
            with suppress(Killed):
                advance(play)
                continue  # not a call that has such a moment
            yield f"killed {when} call {at}"
        if (at + index) % lost_answers:
            continue
        play.back_to(play.moments[index])
        play.world.trap.arm(at, "after", Unknown)
        with suppress(Exception):
            advance(play)
        yield f"answer of call {at} lost"


def advance(play: Rehearsal) -> None:
    """A fresh conductor goes on, for one step."""
    answers = iter([False, True])
    with suppress(Stopped):
        conductor = play.conductor(should_stop=lambda: next(answers))
        conductor.conduct(play.number, play.steps, take_back=False)


def _resumed(play: Rehearsal, index: int, wreck: Moment) -> None:
    """The step ends as if undisturbed: the next one begins there, and so on to the end."""
    play.back_to(wreck)
    if play.entry.last(play.steps[index].name) not in (Mark.DONE, Mark.FOUND):
        advance(play)  # else the answer was lost, and a look has settled it
    expected = timeless(play.moments[index + 1].snapshot)
    if timeless(play.world.snapshot()) != expected:
        raise _Lost("the step ended otherwise than undisturbed")
    if play.entry.last(play.steps[index].name) not in (Mark.DONE, Mark.FOUND):
        raise _Lost("the step is not done")


def _undone(play: Rehearsal, wreck: Moment) -> None:
    play.back_to(wreck)
    if not play.entry.is_open:
        return  # an answer was lost, and a look has settled it
    if not _reversible(play):
        try:
            play.conductor().undo(play.entry, play.steps)
        except Refused:
            if play.world.snapshot() != wreck.snapshot:
                raise _Lost("a refused undo has touched something") from None
            return
        raise _Lost("the undo of what cannot be undone was not refused")
    play.conductor().undo(play.entry, play.steps)
    _require_home(play)


def _once_more(play: Rehearsal) -> None:
    """Go on with the world that the undo has left: the verb again, to its end."""
    if play.entry.state is not State.TAKEN_BACK:
        return  # it could only go forward
    # Taken in anew, as a second command does: Cinder has given the volumes other attachments.
    again = Rehearsal(play.world, play.verb, play.flavor)
    if again.entry.state is not State.FINISHED:
        raise _Lost("it could not be done again")
    _require_sound(play)


def _killed_again(play: Rehearsal, wreck: Moment, number: int) -> None:
    """The recovery dies as well, at a place that differs from death to death."""
    play.back_to(wreck)
    if not play.entry.is_open:
        return
    reversible = _reversible(play)
    at, when = 1 + number * 7 % 31, WHENS[number % len(WHENS)]
    play.world.trap.arm(at, when, Killed)
    with suppress(Killed):
        _recover(play, reversible=reversible)
    play.world.trap.arm(0, "before")
    if play.entry.is_open:
        _recover(play, reversible=reversible)
    if reversible:
        _require_home(play)
    else:
        _require_end(play)


def _recover(play: Rehearsal, *, reversible: bool) -> None:
    if reversible:
        play.conductor().undo(play.entry, play.steps)
    else:
        with suppress(TakenBack):
            play.conductor().conduct(play.number, play.steps, take_back=False)


def _reversible(play: Rehearsal) -> bool:
    begun = {event.step for event in play.entry.events}
    return all(step.reversible for step in play.steps if step.name in begun)


def _require_home(play: Rehearsal) -> None:
    if play.world.snapshot() != play.moments[0].snapshot:
        raise _Lost("undo has not given back what was")
    _require_sound(play)


def _require_end(play: Rehearsal) -> None:
    if timeless(play.world.snapshot()) != timeless(play.end.snapshot):
        raise _Lost("it ended otherwise than undisturbed")
    _require_sound(play)


def _require_sound(play: Rehearsal) -> None:
    if left := unsound(play.world):
        raise _LeftOver("; ".join(left))


def _tools(play: Rehearsal) -> list[dict[str, Any]]:
    return [host.tools() for host in play.world.hosts.by_name.values()]


@contextmanager
def _watched(play: Rehearsal) -> Iterator[list[str]]:
    """What is unsafe after any outside call of the block."""
    harm: list[str] = []
    play.world.trap.watch = lambda: harm.extend(unsafe(play.world))
    yield harm
    play.world.trap.watch = lambda: None


def neighbours_are_untouched(play: Rehearsal) -> bool:
    """No move changes anything of another server."""
    play.back_to(play.moments[0])
    before = foreign(play.world)
    play.back_to(play.end)
    return foreign(play.world) == before
