"""What a worker does with one server: its turn, its move on one host or another, its confirm."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from cellmove.cloud import Cloud
from cellmove.conductor import Conductor
from cellmove.draining.agenda import Task
from cellmove.draining.happenings import Happening, Kind, Outcome, Tell
from cellmove.draining.scope import Scope
from cellmove.draining.tries import Tries, Try
from cellmove.draining.wishes import Wishes
from cellmove.errors import CellmoveError, Refused, StepFailed, Stopped
from cellmove.intake import Actor, intake_confirm, intake_resize
from cellmove.intake.resize import MOST_HOSTS
from cellmove.interrupts import Interrupts
from cellmove.journal import (
    Busy,
    Caps,
    Entry,
    Journal,
    Mark,
    Result,
    State,
    TakenOver,
    Turn,
    Verb,
)
from cellmove.model import Move, Transfer
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.steps.base import Step

Watch = Callable[[Step, Mark], None]
Open = Callable[[str, Callable[[Transfer], None]], AbstractContextManager[OpenCloud]]
"""Opens a cloud for one move: its request id, and who is told of its copies."""


class Holds:
    """While one of several threads takes something back, signals wait for it."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self.should_stop = interrupts.should_stop

    def hold(self, number: int) -> None:
        """This move is being taken back."""
        with self._lock:
            self._held.add(number)
            self._interrupts.hold()

    def release(self, number: int) -> None:
        """No more."""
        with self._lock:
            self._held.discard(number)
            if not self._held:
                self._interrupts.release()


@dataclass(frozen=True, slots=True)
class Tools:
    """What the workers of one conductor share; all of it is safe in several threads."""

    journal: Journal
    open: Open
    actor: Callable[[OpenCloud], Actor]
    notices: Callable[[Cloud, Entry], AbstractContextManager[Sequence[Watch]]]
    """Who tells the cloud's listeners of a move's steps."""
    tell: Tell


@dataclass(frozen=True, slots=True)
class Work:
    """One conductor's work on one drain."""

    tools: Tools
    scope: Scope
    wishes: Wishes
    drain: int
    holds: Holds

    @property
    def caps(self) -> Caps:
        """Of all conductors together."""
        return Caps(self.wishes.total or _ANY, self.wishes.per_host)

    def turn(self, task: Task) -> Turn | Busy:
        """Take the server, so that no other conductor does; its target is not chosen yet."""
        return self.tools.journal.take_turn(
            self.drain,
            task.server,
            source=task.host,
            target="",
            source_cell=self.scope.cell.name,
            target_cell=self.scope.to_cell.name,
            caps=self.caps,
        )

    def moved(self, task: Task, turn: Turn) -> Outcome | Busy:
        """Move the server whose turn it is; what an earlier process began goes on.

        Busy: the only hosts that could take it are at their cap; the turn was given back.
        """
        try:
            entry = self._open_entry(task)
            if entry is not None:
                outcome = self._gone_on(task, turn, entry)
            else:
                new = self._new(task, turn)
                if isinstance(new, Busy):
                    self._give_back(turn)
                    return new
                outcome = new
        except TakenOver:
            return Busy.TAKEN
        except Exception as error:  # noqa: BLE001 - one server's defect keeps no other back
            outcome = _outcome(task, "failed", error=_as_ours(error))
        if isinstance(outcome.error, TakenOver):
            return Busy.TAKEN
        self._ended(turn, outcome)
        return outcome

    def confirmed(self, task: Task) -> Outcome | None:
        """Confirm a server that has arrived; None: somebody else has done so, or does."""
        request_id = f"req-{uuid.uuid4()}"
        try:
            with self._opened(task, request_id) as opened:
                move = intake_confirm(
                    opened.cloud,
                    task.server,
                    actor=self.tools.actor(opened),
                    request_id=request_id,
                )
                done = self._tries(opened, task, None, "confirm").of(move)
        except Refused as error:
            return None if self._ended_by_others(task) else _outcome(task, "failed", error=error)
        except Exception as error:  # noqa: BLE001 - one server's defect keeps no other back
            return _outcome(task, "failed", error=_as_ours(error))
        return _ending(task, done, "confirmed")

    def looked_at(self, task: Task) -> Outcome:
        """Take the server in and leave it at that: where it would go, or why it cannot."""
        try:
            with self._opened(task, f"req-{uuid.uuid4()}") as opened:
                return _outcome(task, "done", Try(self._intake(opened, task)))
        except Exception as error:  # noqa: BLE001 - one server's defect keeps no other back
            return _outcome(task, "left", error=_as_ours(error))

    def _new(self, task: Task, turn: Turn) -> Outcome | Busy:
        with self._opened(task, f"req-{uuid.uuid4()}") as opened:
            full: list[str] = []
            while True:
                try:
                    move = self._intake(opened, task, full)
                except Refused as error:
                    return Busy.HOST if full else _outcome(task, "left", error=error)
                aimed = self._aim(turn, move)
                if isinstance(aimed, Turn):
                    done = self._tries(opened, task, turn, "resize").of(move)
                    return _ending(task, done, "done")
                if aimed is not Busy.HOST or move.target.name in full:
                    return aimed
                full.append(move.target.name)

    def _aim(self, turn: Turn, move: Move) -> Turn | Busy:
        """The turn, now that its target is known."""
        return self.tools.journal.aim_turn(turn, target=move.target.name, caps=self.caps)

    def _gone_on(self, task: Task, turn: Turn, entry: Entry) -> Outcome:
        """An open move: forward, or back when its undo was begun."""
        with self._opened(task, entry.move.request_id) as opened:
            if entry.state is State.UNDOING or entry.verb != "resize":
                return self._settled(opened, task, entry)
            done = self._tries(opened, task, turn, "resize").going_on(entry)
            return _ending(task, done, "done")

    def _settled(self, opened: OpenCloud, task: Task, entry: Entry) -> Outcome:
        """A confirm, a revert or an undo that was begun is brought to its end."""
        done = Try(entry.move, entry.number)
        try:
            self._conduct(opened, entry)
        except CellmoveError as error:
            done = Try(entry.move, entry.number, error)
        if done.error or entry.verb == "confirm":
            return _ending(task, done, "confirmed")
        return _outcome(
            task, "left", done, note=f"Move {entry.number} was brought to its end: it is here."
        )

    def _tries(self, opened: OpenCloud, task: Task, turn: Turn | None, verb: Verb) -> Tries:
        def another(without: Collection[str]) -> Move:
            move = self._intake(opened, task, without)
            if turn is not None:
                # An alternate does not wait for its turn there: the server waits here.
                self._aim(turn, move)
            return move

        return Tries(
            self.tools.journal,
            verb,
            conduct=lambda entry: self._conduct(opened, entry),
            another=another,
            most=MOST_HOSTS if verb == "resize" else 1,
            remark=lambda text: self._note(task, text),
        )

    def _intake(self, opened: OpenCloud, task: Task, without: Collection[str] = ()) -> Move:
        return intake_resize(
            opened.cloud,
            task.server,
            flavor=None,
            to_host=None,
            to_cell=self.scope.to_cell.uuid,
            actor=self.tools.actor(opened),
            request_id=opened.request_id,
            cold=self.wishes.cold,
            without=without,
        )

    def _conduct(self, opened: OpenCloud, entry: Entry) -> None:
        """Run a move of the journal from where it is, in its own direction."""
        journal, tell = self.tools.journal, self.tools.tell
        steps = plan(entry.verb, entry.move)
        order = {step.name: at for at, step in enumerate(steps, 1)}
        move = entry.move
        begun = Happening(
            "begun",
            move.server,
            move.name,
            move.source,
            move.target,
            entry.number,
            steps=len(steps),
        )
        tell(begun)

        def watch(step: Step, mark: Mark) -> None:
            if mark in (Mark.FAILED, Mark.UNDOING):
                self.holds.hold(entry.number)
            tell(replace(begun, kind="step", step=step, mark=mark, at=order[step.name]))
            for each in notices:
                each(step, mark)

        try:
            with (
                journal.lease(entry.move.id) as lease,
                self.tools.notices(opened.cloud, entry) as notices,
            ):
                conductor = Conductor(
                    journal, opened.cloud, watch, lambda: self.holds.should_stop() or lease.lost
                )
                if entry.state is State.UNDOING:
                    conductor.undo(journal.entry(entry.move.id), steps)
                else:
                    conductor.conduct(entry.number, steps, take_back=True)
        finally:
            self.holds.release(entry.number)

    def _opened(self, task: Task, request_id: str) -> AbstractContextManager[OpenCloud]:
        tell = self.tools.tell

        def copied(transfer: Transfer) -> None:
            tell(Happening("copy", task.server, task.name, transfer=transfer))

        return self.tools.open(request_id, copied)

    def _open_entry(self, task: Task) -> Entry | None:
        """What was begun with the server and not ended, by us or by one who died."""
        found = self.tools.journal.entries(server=task.server)
        return next((entry for entry in reversed(found) if entry.is_open), None)

    def _ended_by_others(self, task: Task) -> bool:
        found = self.tools.journal.entries(server=task.server)
        return bool(found) and found[-1].verb != "resize"

    def _ended(self, turn: Turn, outcome: Outcome) -> None:
        """Write down how it ended; one that was stopped may be taken again."""
        results: dict[Kind, Result] = {"done": "done", "confirmed": "done", "failed": "failed"}
        note = str(outcome.error or outcome.note)
        with suppress(Stopped):  # somebody else has the turn by now, and tells how it ends
            self.tools.journal.end_turn(
                turn, results.get(outcome.kind, "left"), move=outcome.number, note=note
            )

    def _give_back(self, turn: Turn) -> None:
        with suppress(Stopped):
            self.tools.journal.end_turn(turn, "left", move=None, note="")

    def _note(self, task: Task, text: str) -> None:
        self.tools.tell(Happening("note", task.server, task.name, note=text))


_ANY = 1 << 30


def _ending(task: Task, done: Try, arrived: Kind) -> Outcome:
    if isinstance(done.error, Stopped):
        return _outcome(task, "stopped", done)
    return _outcome(task, "failed" if done.error else arrived, done)


def _outcome(
    task: Task,
    kind: Kind,
    done: Try | None = None,
    *,
    error: CellmoveError | None = None,
    note: str = "",
) -> Outcome:
    if done is None:
        return Outcome(kind, task.server, task.name, error=error, note=note)
    return Outcome(kind, task.server, task.name, done.move, done.number, done.error or error, note)


def _as_ours(error: Exception) -> CellmoveError:
    if isinstance(error, CellmoveError):
        return error
    return StepFailed(
        "cellmove has a defect, or met something it does not know.",
        f"{type(error).__name__}: {error}",
        "See `cellmove moves` for how the server stands.",
    )
