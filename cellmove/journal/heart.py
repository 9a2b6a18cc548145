"""The heartbeat: as long as a process holds anything, its row in the journal is kept fresh."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import sqlalchemy as sa

from cellmove.journal.leases import held_by, keep_fresh, taken_over


class Heart:
    """Beats in a thread of its own, for all that one Journal holds, while it holds something."""

    def __init__(self, engine: sa.Engine, holder: str, lease_seconds: float) -> None:
        """It is still."""
        self._engine = engine
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._lost: set[str] = set()
        self._fresh_at = _clock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.beaten = False
        """Whether it ever held anything."""

    def hold(self, what: str) -> None:
        """Beat for this move's or turn's sake; it was written down a moment ago."""
        with self._lock:
            if not self._held:
                self._fresh_at = _clock()
            self._held.add(what)
            self.beaten = True
            self._lost.discard(what)
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
                self._thread.start()

    def release(self, what: str) -> None:
        """No longer for its sake; the last one stills the heart."""
        with self._lock:
            self._held.discard(what)
            self._lost.discard(what)

    def holds(self, what: str) -> bool:
        """Whether it was taken here and not yet released, lost or not."""
        with self._lock:
            return what in self._held

    def lost(self, what: str) -> bool:
        """Whether somebody else may have it by now, as far as the last beat could tell."""
        with self._lock:
            return what in self._lost or _clock() - self._fresh_at >= self._lease_seconds

    def stop(self) -> None:
        """End the thread, for good."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=self._lease_seconds)

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(self._lease_seconds / 6):
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
            self.beat()

    def beat(self) -> None:
        """Keep the row fresh, and see what is still ours; what cannot be seen counts by time."""
        with self._lock:
            held = set(self._held)
        at = _clock()
        with suppress(sa.exc.SQLAlchemyError), self._engine.begin() as db:
            keep_fresh(db, self._holder, self._lease_seconds)
            still = held_by(db, self._holder)
            with self._lock:
                self._lost |= (held & self._held) - still
                self._fresh_at = at


class Lease:
    """A move's, while it is held: for those who work for hours between two events."""

    def __init__(self, heart: Heart, move: str) -> None:
        """It was taken a moment ago."""
        self._heart = heart
        self._move = move

    @property
    def lost(self) -> bool:
        """Whether another process may work on the move by now; asks nobody, so ask often."""
        return self._heart.lost(self._move)

    def require(self) -> None:
        """Stop when it is lost.

        Raises:
            TakenOver: another process may work on the move by now.
        """
        if self.lost:
            raise taken_over("the move")


def _clock() -> float:
    """Seconds; goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
