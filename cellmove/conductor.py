"""The conductor: runs a score forward or back, and writes down each step before and after."""

from __future__ import annotations

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
)
from cellmove.journal import Entry, Journal, Mark, State
from cellmove.steps.base import Status, Step

Watch = Callable[[Step, Mark], None]
"""Told of each step's marks as they happen; must not raise."""


@dataclass(frozen=True, slots=True)
class Conductor:
    """Runs the steps of one move; all it knows of the past is in the journal."""

    journal: Journal
    cloud: Cloud
    watch: Watch
    should_stop: Callable[[], bool] = lambda: False

    def conduct(self, number: int, steps: Sequence[Step], *, take_back: bool) -> None:
        """Run a move; when it fails, take back what was begun, if asked and if that is possible.

        Raises:
            Refused: it is over, on its way back, or of another version; nothing was touched.
            TakenBack: it failed and is wholly taken back.
            UndoIncomplete: it failed and something remains.
            Stopped: the operator asked for it.
        """
        entry = self.journal.entry(str(number))
        _require(entry, State.OPEN)
        _require_known(entry, steps)
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
            if not take_back or not can_undo(failed, steps):
                return stands
            self.undo(failed, steps)
        except UndoIncomplete as resists:
            return UndoIncomplete(
                f"Move {entry.number} failed: {_said(failure)} {resists.what}",
                resists.seen,
                resists.do,
            )
        except Exception as error:
            return UndoIncomplete(stands.what, f"{stands.seen} {_said(error)}", stands.do)
        return TakenBack(
            f"Move {entry.number} failed and is wholly taken back.",
            _said(failure),
            "The server is as it was before.",
        )

    def run(self, entry: Entry, steps: Sequence[Step]) -> None:
        """Run what is not done yet. Finished steps are not looked at again: later ones use them.

        Raises:
            StepFailed: a step failed, is blocked, or left no effect.
            Stopped: the operator asked for it; the step under way was finished first.
        """
        _require_known(entry, steps)
        for step in steps:
            if entry.last(step.name) in (Mark.DONE, Mark.FOUND):
                continue
            if self.should_stop():
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
        self.journal.write(entry.move.id, "", Mark.FINISHED)

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

    def undo(self, entry: Entry, steps: Sequence[Step]) -> None:
        """Take back what was begun, newest first; stops at the first thing that resists.

        Raises:
            Refused: the move is over, or an irreversible step was begun; nothing was touched.
            UndoIncomplete: a step resists; the ones after it are as they were.
        """
        _require(entry, State.OPEN, State.UNDOING)
        _require_known(entry, steps)
        begun = _begun(entry, steps)
        if not can_undo(entry, steps):
            final = next(step for step in begun if not step.reversible)
            raise Refused(
                f"Move {entry.number} can only go forward.",
                f"{final.name} was begun and cannot be taken back.",
                f"Run `cellmove resume {entry.number}`.",
            )
        for step in reversed(begun):
            try:
                self._write(entry, step, Mark.UNDOING)
                step.undo(self.cloud, entry.saved(step.name))
                self._write(entry, step, Mark.UNDONE)
            except Exception as error:
                self._note_failure(entry, step, error)
                raise _incomplete(entry, step, begun, error) from error
        try:
            self.journal.write(entry.move.id, "", Mark.TAKEN_BACK)
        except CellmoveError as error:
            raise UndoIncomplete(
                f"All of move {entry.number} is taken back, but the journal does not know it.",
                str(error),
                f"When that is mended, run `cellmove undo {entry.number}`.",
            ) from error

    def _write(self, entry: Entry, step: Step, mark: Mark) -> None:
        self.journal.write(entry.move.id, step.name, mark)
        self.watch(step, mark)

    def _note_failure(self, entry: Entry, step: Step, error: Exception) -> None:
        # What failed may be the journal itself: that must not hide the failure.
        with suppress(CellmoveError):
            self.journal.write(entry.move.id, step.name, Mark.FAILED, note=_said(error))
        self.watch(step, Mark.FAILED)


def can_undo(entry: Entry, steps: Sequence[Step]) -> bool:
    """Whether nothing irreversible was begun."""
    return all(step.reversible for step in _begun(entry, steps))


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


def _incomplete(
    entry: Entry, step: Step, begun: Sequence[Step], error: Exception
) -> UndoIncomplete:
    remaining = [s.name for s in begun[: begun.index(step) + 1]]
    return UndoIncomplete(
        f"Undo stopped at {step.name}; not taken back: {', '.join(reversed(remaining))}.",
        _said(error),
        f"When that is mended, run `cellmove undo {entry.number}`.",
    )


def _either(entry: Entry) -> str:
    return f"Run `cellmove resume {entry.number}` or `cellmove undo {entry.number}`."


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, CellmoveError) else f"{type(error).__name__}: {error}"
