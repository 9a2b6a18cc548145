"""The conductor: runs a score forward or back, and writes down each step before and after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.errors import (
    CellmoveError,
    Refused,
    StepFailed,
    Stopped,
    TakenBack,
    UndoIncomplete,
    Unknown,
    Unreachable,
)
from cellmove.journal import Entry, Journal, Mark, State
from cellmove.plan import clearing, stretches
from cellmove.steps import byhand
from cellmove.steps.base import Status, Step
from cellmove.steps.deletion import Deletion, deletion_of, settled

Watch = Callable[[Step, Mark], None]
"""Told of each step's marks as they happen; must not raise."""


@dataclass(frozen=True, slots=True)
class Conductor:
    """Runs the steps of one move; all it knows of the past is in the journal."""

    journal: Journal
    cloud: Cloud
    watch: Watch
    should_stop: Callable[[], bool] = lambda: False
    abreast: bool = False
    """Whether the plan's lanes are walked at the same time; `watch` is told from their threads."""

    def conduct(self, number: int, steps: Sequence[Step], *, take_back: bool) -> None:
        """Run a move; when it fails, take back what was begun, if asked and if that is possible.

        Raises:
            Refused: it is over, on its way back, or of another version, or its server was deleted
                meanwhile; nothing was touched.
            TakenBack: it failed and is wholly taken back.
            UndoIncomplete: it failed and something remains.
            Stopped: the operator asked for it.
        """
        entry = self.journal.entry(str(number))
        _require(entry, State.OPEN)
        _require_known(entry, steps)
        if entry.events:
            self._require_there(entry)
        try:
            self.run(entry, steps)
        except Stopped:
            raise
        except KeyboardInterrupt:
            raise Stopped(
                f"Stopped inside {self._under_way(entry)}, as asked.",
                "The journal covers what it began.",
                _either(entry),
            ) from None
        except Exception as error:
            raise self._after_failure(entry, steps, error, take_back=take_back) from error

    def _under_way(self, entry: Entry) -> str:
        events = self.journal.entry(entry.move.id).events
        return events[-1].step if events else "the first step"

    def _after_failure(
        self, entry: Entry, steps: Sequence[Step], failure: Exception, *, take_back: bool
    ) -> CellmoveError:
        """Take a failed move back, or not; the answer says how it stands."""
        stands = UndoIncomplete(
            f"Move {entry.number} failed and stands as it is.",
            _said(failure),
            f"When that is mended, run `cellmove resume {entry.number}`.",
        )
        try:
            failed = self.journal.entry(str(entry.number))
            if not take_back or not (can_undo(failed, steps) or self._deletion(failed)):
                return stands
            left = self.undo(failed, steps)
        except Stopped as stopped:
            return stopped
        except UndoIncomplete as resists:
            return UndoIncomplete(
                f"Move {entry.number} failed: {_said(failure)} {resists.what}",
                resists.seen,
                resists.do,
                resists.remains,
            )
        except Exception as error:
            return UndoIncomplete(stands.what, f"{stands.seen} {_said(error)}", stands.do)
        return TakenBack(
            f"Move {entry.number} failed and is wholly taken back.",
            _said(failure),
            left or "The server is as it was before.",
        )

    def run(self, entry: Entry, steps: Sequence[Step]) -> None:
        """Run what is not done yet. Finished steps are not looked at again: later ones use them.

        Raises:
            StepFailed: a step failed, is blocked, or left no effect.
            Stopped: the operator asked for it; the step under way was finished first.
        """
        _require_known(entry, steps)
        for lanes in stretches(entry.verb, steps) if self.abreast else [[steps]]:
            if len(lanes) == 1:
                self._walk(entry, lanes[0], self.should_stop)
            else:
                self._walk_abreast(entry, lanes)
        if self._deletion(entry):
            raise StepFailed("The server was deleted while it was moved.")
        self.journal.write(entry.move.id, "", Mark.FINISHED)

    def _walk_abreast(self, entry: Entry, lanes: Sequence[Sequence[Step]]) -> None:
        """Walk all lanes at the same time; when one fails, the others end after their step."""
        halted = threading.Event()
        failures: list[Exception] = []

        def walk(lane: Sequence[Step]) -> None:
            try:
                self._walk(entry, lane, lambda: halted.is_set() or self.should_stop())
            except Exception as error:
                halted.set()
                failures.append(error)

        threads = [threading.Thread(target=walk, args=(lane,), daemon=True) for lane in lanes]
        interrupted = _all_ended(threads, halted)
        if failures:
            raise min(failures, key=lambda error: isinstance(error, Stopped))
        if interrupted:
            raise KeyboardInterrupt

    def _walk(self, entry: Entry, lane: Sequence[Step], should_stop: Callable[[], bool]) -> None:
        for step in lane:
            if entry.last(step.name) in (Mark.DONE, Mark.FOUND):
                continue
            if should_stop():
                raise Stopped(
                    f"Stopped before {step.name}, as asked.",
                    "All that was done is in the journal.",
                    _either(entry),
                )
            try:
                self._advance(entry, step)
            except Exception as error:
                self._note_failure(entry, step, error)
                raise

    def _advance(self, entry: Entry, step: Step) -> None:
        begun = entry.last(step.name) is Mark.BEGUN
        look = step.inspect(self.cloud)
        if look.status is Status.BLOCKED:
            raise StepFailed(f"{step.name} is blocked.", look.why)
        if look.status is Status.DONE and not begun:
            self._write(entry, step, Mark.FOUND)
            return
        if not begun:
            self.journal.write(entry.move.id, step.name, Mark.BEGUN, look.saved)
        self.watch(step, Mark.BEGUN)
        if look.status is Status.TODO:
            self._execute(step)
        self._write(entry, step, Mark.DONE)

    def _execute(self, step: Step) -> None:
        """Touch, and look whether it took: an outcome that is not known is settled by that look."""
        lost: Unknown | None = None
        try:
            step.execute(self.cloud)
        except Unknown as error:
            lost = error
        after = step.inspect(self.cloud)
        if after.status is not Status.DONE:
            raise lost or StepFailed(f"{step.name} had no effect.", after.why)

    def undo(self, entry: Entry, steps: Sequence[Step]) -> str:
        """Take back what was begun, newest first; stops at the first thing that resists.

        A server that was deleted meanwhile is not brought back: all of the move is cleared away,
        even after the point of no return; the answer says so. It is empty otherwise.

        Raises:
            Refused: the move is over, or an irreversible step was begun; nothing was touched.
            UndoIncomplete: a step resists; the ones after it are as they were.
        """
        _require(entry, State.OPEN, State.UNDOING)
        _require_known(entry, steps)
        if found := self._deletion(entry):
            return self._clear(entry, found)
        _require_reversible(entry, steps)
        begun = _begun(entry, steps)
        for step in reversed(begun):
            try:
                self._write(entry, step, Mark.UNDOING)
                step.undo(self.cloud, entry.saved(step.name))
                self._write(entry, step, Mark.UNDONE)
            except Stopped:  # Another process has the move: what remains is its to say.
                raise
            except Exception as error:
                self._note_failure(entry, step, error)
                if found := self._deletion(entry):
                    return self._clear(entry, found)
                raise _incomplete(entry, step, begun, error) from error
        if found := self._deletion(entry):
            return self._clear(entry, found)
        self._close(entry, "")
        return ""

    def _close(self, entry: Entry, note: str) -> None:
        try:
            self.journal.write(entry.move.id, "", Mark.TAKEN_BACK, note=note)
        except CellmoveError as error:
            raise UndoIncomplete(
                f"All of move {entry.number} is taken back, but the journal does not know it.",
                str(error),
                f"When that is mended, run `cellmove undo {entry.number}`.",
            ) from error

    def _clear(self, entry: Entry, found: Deletion) -> str:
        """Clear a deleted server's move away: each step looks first, so all are tried each time.

        Nothing of it is in the journal but that it began: what there is, is seen.
        """
        found = settled(self.cloud, entry.move, found)
        sentence = found.sentence(entry.move)
        self.journal.write(entry.move.id, "", Mark.UNDOING, note=sentence)
        for step in clearing(entry.move, found):
            try:
                if step.inspect(self.cloud).status is Status.TODO:
                    self.watch(step, Mark.BEGUN)
                    self._execute(step)
                    self.watch(step, Mark.DONE)
            except Exception as error:
                self.watch(step, Mark.FAILED)
                raise UndoIncomplete(
                    f"The server of move {entry.number} was deleted; clearing away what is left of "
                    f"the move stopped at {step.name}.",
                    _said(error),
                    f"When that is mended, run `cellmove undo {entry.number}`.",
                ) from error
        self._close(entry, sentence)
        return sentence

    def _deletion(self, entry: Entry) -> Deletion | None:
        # A database that cannot be reached is the next step's to say.
        with suppress(Unreachable):
            return deletion_of(self.cloud, entry.move)
        return None

    def _require_there(self, entry: Entry) -> None:
        if self._deletion(entry):
            raise Refused(
                f"Move {entry.number} cannot go on.",
                f"Server {entry.move.server} was deleted meanwhile, or is being deleted.",
                f"Run `cellmove undo {entry.number}`: it clears away what is left of the move.",
            )

    def _write(self, entry: Entry, step: Step, mark: Mark) -> None:
        self.journal.write(entry.move.id, step.name, mark)
        self.watch(step, mark)

    def _note_failure(self, entry: Entry, step: Step, error: Exception) -> None:
        # What failed may be the journal itself: that must not hide the failure.
        with suppress(CellmoveError):
            self.journal.write(entry.move.id, step.name, Mark.FAILED, note=_said(error))
        self.watch(step, Mark.FAILED)


def _all_ended(threads: Sequence[threading.Thread], halted: threading.Event) -> bool:
    """Start the lanes and wait for them, come what may; whether we were interrupted: that halts.

    Nobody may leave while a lane touches something: another process could take the move over.
    """
    interrupted = False
    while True:
        try:
            for thread in threads:
                if not (interrupted or thread.ident):
                    thread.start()
            for thread in threads:
                if thread.ident:
                    thread.join()
        except KeyboardInterrupt:
            halted.set()
            interrupted = True
            time.sleep(0.05)  # for one that was interrupted in its start to be seen as started
        else:
            return interrupted


def can_undo(entry: Entry, steps: Sequence[Step]) -> bool:
    """Whether nothing irreversible was begun."""
    return all(step.reversible for step in _begun(entry, steps))


def remains(entry: Entry, steps: Sequence[Step]) -> tuple[str, ...]:
    """Commands that take back by hand what an undo under way has not; else empty."""
    if entry.state is not State.UNDOING:
        return ()
    return _by_hand(entry, list(reversed(_begun(entry, steps))))


def _by_hand(entry: Entry, left: Sequence[Step]) -> tuple[str, ...]:
    told = [line for step in left for line in byhand.commands(step, entry.saved(step.name))]
    return tuple(dict.fromkeys(told))


def _begun(entry: Entry, steps: Sequence[Step]) -> list[Step]:
    return [s for s in steps if entry.last(s.name) in (Mark.BEGUN, Mark.DONE, Mark.UNDOING)]


def _require(entry: Entry, *states: State) -> None:
    if entry.state not in states:
        raise Refused(
            f"Move {entry.number} cannot be taken further that way.",
            f"It is {entry.state.value}.",
            f"See `cellmove show {entry.number}`.",
        )


def _require_known(entry: Entry, steps: Sequence[Step]) -> None:
    """Refuse a journal with steps that this version does not have, rather than guess."""
    unknown = {event.step for event in entry.events if event.step} - {step.name for step in steps}
    if unknown:
        raise Refused(
            f"Move {entry.number} was begun by another version of cellmove.",
            f"Its steps {', '.join(sorted(unknown))} are not known here.",
            "Finish it with the version that began it.",
        )


def _require_reversible(entry: Entry, steps: Sequence[Step]) -> None:
    if can_undo(entry, steps):
        return
    final = next(step for step in _begun(entry, steps) if not step.reversible)
    raise Refused(
        f"Move {entry.number} can only go forward.",
        f"{final.name} was begun and cannot be taken back.",
        f"Run `cellmove resume {entry.number}`.",
    )


def _incomplete(
    entry: Entry, step: Step, begun: Sequence[Step], error: Exception
) -> UndoIncomplete:
    left = list(reversed(begun[: begun.index(step) + 1]))
    return UndoIncomplete(
        f"Undo stopped at {step.name}; not taken back: {', '.join(s.name for s in left)}.",
        _said(error),
        f"When that is mended, run `cellmove undo {entry.number}`.",
        _by_hand(entry, left),
    )


def _either(entry: Entry) -> str:
    return f"Run `cellmove resume {entry.number}` or `cellmove undo {entry.number}`."


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, CellmoveError) else f"{type(error).__name__}: {error}"
