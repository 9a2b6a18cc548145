"""What a worker does with one server: its turn, its move on one host or another, its confirm."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from cellmove.draining.agenda import Task
from cellmove.draining.happenings import Happening, Kind, Outcome, kept
from cellmove.draining.scope import Scope
from cellmove.draining.tools import Holds, Remarks, Tools, conduct
from cellmove.draining.tries import Tries, Try
from cellmove.draining.wishes import Wishes
from cellmove.errors import CellmoveError, Refused, Stopped, TakenBack
from cellmove.intake import intake_confirm, intake_resize
from cellmove.intake.resize import MOST_HOSTS
from cellmove.journal import Busy, Caps, Entry, Mark, Result, State, TakenOver, Turn, Verb
from cellmove.model import Move, Transfer
from cellmove.opening import OpenCloud


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
            outcome = _outcome(task, "failed", error=error)
        if isinstance(outcome.error, TakenOver):
            return Busy.TAKEN
        self._ended(turn, outcome)
        return outcome

    def confirmed(self, task: Task) -> Outcome | None:
        """Confirm a server that has arrived; None: somebody else has done so, or does."""
        request_id = f"req-{uuid.uuid4()}"
        try:
            if task.entry is not None:  # one who died has begun it
                with self._opened(task, request_id) as opened:
                    settled = self._settled(opened, task, task.entry)
                    return None if isinstance(settled.error, Refused) else settled
            with self._opened(task, request_id) as opened:
                move = intake_confirm(
                    opened.cloud,
                    task.server,
                    actor=self.tools.actor(opened),
                    request_id=request_id,
                )
                remarks = Remarks(self.tools.tell, task)
                done = self._tries(opened, task, None, "confirm", remarks).of(move)
        except Refused as error:
            return None if self._ended_by_others(task) else _outcome(task, "failed", error=error)
        except Exception as error:  # noqa: BLE001 - one server's defect keeps no other back
            return _outcome(task, "failed", error=error)
        return _ending(task, done, "confirmed")

    def looked_at(self, task: Task) -> Outcome:
        """Take the server in and leave it at that: where it would go, or why it cannot."""
        try:
            with self._opened(task, f"req-{uuid.uuid4()}") as opened:
                remarks = Remarks(_to_nobody, task)
                move = self._intake(opened, task, (), remarks)
                return _outcome(task, "done", Try(move), note=remarks.text)
        except Exception as error:  # noqa: BLE001 - one server's defect keeps no other back
            return _outcome(task, "left", error=error)

    def _new(self, task: Task, turn: Turn) -> Outcome | Busy:
        with self._opened(task, f"req-{uuid.uuid4()}") as opened:
            full: list[str] = []
            while True:
                remarks = Remarks(self.tools.tell, task)
                try:
                    move = self._intake(opened, task, full, remarks)
                except Refused as error:
                    return Busy.HOST if full else _outcome(task, "left", error=error)
                aimed = self._aim(turn, move)
                if isinstance(aimed, Turn):
                    done = self._tries(opened, task, turn, "resize", remarks).of(move)
                    return _ending(task, done, "done", remarks)
                if aimed is not Busy.HOST or move.target.name in full:
                    return aimed
                full.append(move.target.name)

    def _aim(self, turn: Turn, move: Move) -> Turn | Busy:
        """The turn, now that its target is known."""
        return self.tools.journal.aim_turn(turn, target=move.target.name, caps=self.caps)

    def _gone_on(self, task: Task, turn: Turn, entry: Entry) -> Outcome:
        """An open move: forward, or back when its undo was begun."""
        with self._opened(task, entry.move.request_id) as opened:
            if entry.verb != "resize":
                return self._settled(opened, task, entry)
            remarks = Remarks(self.tools.tell, task)
            tries = self._tries(opened, task, turn, "resize", remarks)
            if entry.state is State.UNDOING:
                return self._taken_elsewhere(opened, task, entry, tries, remarks)
            return _ending(task, tries.going_on(entry), "done", remarks)

    def _taken_elsewhere(
        self, opened: OpenCloud, task: Task, entry: Entry, tries: Tries, remarks: Remarks
    ) -> Outcome:
        """An undo is brought to its end, and the next host tried, as who began it would have."""
        settled = self._settled(opened, task, entry)
        if settled.error:
            return settled
        reasons = [event.note for event in entry.events if event.mark is Mark.FAILED]
        seen = reasons[-1] if reasons else "Its undo was begun."
        first = Try(
            entry.move, entry.number, TakenBack(f"Move {entry.number} was taken back.", seen)
        )
        done = tries.after(first)
        return settled if done is first else _ending(task, done, "done", remarks)

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

    def _tries(
        self, opened: OpenCloud, task: Task, turn: Turn | None, verb: Verb, remarks: Remarks
    ) -> Tries:
        def another(without: Collection[str]) -> Move:
            move = self._intake(opened, task, without, remarks)
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
            remark=remarks,
        )

    def _intake(
        self, opened: OpenCloud, task: Task, without: Collection[str], remark: Callable[[str], None]
    ) -> Move:
        return intake_resize(
            opened.cloud,
            task.server,
            flavor=None,
            to_host=None,
            to_cell=self.scope.to_cell.uuid,
            actor=self.tools.actor(opened),
            request_id=opened.request_id,
            cold=self.wishes.cold,
            flatten=self.wishes.flatten,
            without=without,
            remark=remark,
        )

    def _conduct(self, opened: OpenCloud, entry: Entry) -> None:
        conduct(self.tools, self.holds, opened.cloud, entry)

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


_ANY = 1 << 30


def _to_nobody(_happening: Happening) -> None:
    """Of a look nothing is told before its end."""


def _ending(task: Task, done: Try, arrived: Kind, remarks: Remarks | None = None) -> Outcome:
    if isinstance(done.error, Stopped):
        return _outcome(task, "stopped", done)
    if done.error:
        return _outcome(task, "failed", done)
    return _outcome(task, arrived, done, note=remarks.text if remarks else "")


def _outcome(
    task: Task,
    kind: Kind,
    done: Try | None = None,
    *,
    error: Exception | None = None,
    note: str = "",
) -> Outcome:
    error = error or (done.error if done else None)
    move = done.move if done else None
    return Outcome(
        kind,
        task.server,
        task.name,
        move.source if move else None,
        move.target if move else None,
        done.number if done else None,
        kept(error) if error else None,
        note,
    )
