"""The best host and its alternates: a move that fails unfelt is tried on the next host.

nova chooses alternates too, but a cross-cell resize of nova's never uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cellmove.errors import CellmoveError, TakenBack
from cellmove.journal import Entry, Journal, Verb
from cellmove.model import Move

FELT = "stop-source-guest"
"""From this step on a move is felt by the server's users: it is not tried again elsewhere."""


@dataclass(frozen=True, slots=True)
class Try:
    """One move, and how it ended; without an error it arrived."""

    move: Move
    number: int | None = None
    error: CellmoveError | None = None


@dataclass(frozen=True, slots=True)
class Tries:
    """How one server is brought to the first host that takes it."""

    journal: Journal
    verb: Verb
    conduct: Callable[[Entry], None]
    """Runs a move of the journal from where it is."""
    another: Callable[[Collection[str]], Move]
    """Takes the server in once more, without the hosts of these names."""
    most: int
    """Hosts that are tried, at most."""
    remark: Callable[[str], None]

    def of(self, first: Move) -> Try:
        """The last try's end; when all failed, with the reasons of all."""
        return self.after(self._new(first))

    def going_on(self, entry: Entry) -> Try:
        """The same, when the first try is in the journal already."""
        return self.after(self._conducted(Try(entry.move, entry.number), entry))

    def after(self, first: Try) -> Try:
        """The same, when the first try is over."""
        tried = [first]
        while following := self._alternate(tried):
            tried.append(self._new(following))
        return _told(tried)

    def _new(self, move: Move) -> Try:
        try:
            number = self.journal.open_move(self.verb, move)
            entry = self.journal.entry(str(number))
        except CellmoveError as error:
            return Try(move, error=error)
        return self._conducted(Try(move, number), entry)

    def _conducted(self, begun: Try, entry: Entry) -> Try:
        try:
            self.conduct(entry)
        except CellmoveError as error:
            return replace(begun, error=error)
        return begun

    def _alternate(self, tried: Sequence[Try]) -> Move | None:
        """The same move to the next best host of the same cell, if that is worth a try."""
        last = tried[-1]
        if len(tried) >= self.most or not self._unfelt(last):
            return None
        gone = [each.move.target for each in tried]
        move: Move | None = None
        with suppress(CellmoveError):  # why the first one failed is what matters
            move = self.another([host.name for host in gone])
        if move is None or move.target.cell != gone[0].cell:
            return None
        self.remark(f"{last.error} Now trying {move.target.name}.")
        return move

    def _unfelt(self, last: Try) -> bool:
        """Whether it failed, is wholly taken back, and the guest was never stopped for it."""
        if not isinstance(last.error, TakenBack):
            return False
        entry = self.journal.entry(str(last.number))
        return all(event.step != FELT for event in entry.events)


def _told(tried: Sequence[Try]) -> Try:
    last = tried[-1]
    if len(tried) == 1 or not isinstance(last.error, TakenBack):
        return last
    reasons = [f"{each.move.target.name}: {each.error.seen}" for each in tried if each.error]
    error = TakenBack(
        f"All of {len(tried)} hosts failed, and each try is wholly taken back.",
        " ".join(reasons),
        last.error.do,
    )
    return replace(last, error=error)
