"""A running guest's disks cross in rounds: all of them once, then what was written meanwhile.

Each round is one point in time of all disks, and is proved by its hashes before the next begins.
The checkpoints tell how far it got, so that nothing else need be remembered: with the first alone
the full copy is not proved and begins anew; the oldest of later ones is where the copy stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cellmove.hosts.backup import Checkpoint, ours
from cellmove.hosts.transfer import End
from cellmove.model import Disk, Transfer

ROUNDS: Final = 12
"""Rounds after the full one, at most."""
SMALL_BYTES: Final = 8 << 20
"""What is left for the stopped guest need not be smaller than this."""
SHRINKS: Final = 0.7
"""A round that leaves more than this part of the one before is the last: it will not shrink."""


class Source(Protocol):
    """The running guest's side."""

    def begin(
        self,
        server: str,
        warm: Sequence[Disk],
        checkpoint: Checkpoint,
        since: Checkpoint | None,
    ) -> None: ...

    def end(self, server: str) -> None: ...

    def reading_end(self, server: str, disk: Disk, since: Checkpoint | None) -> End: ...

    def checkpoints(self, server: str) -> tuple[str, ...]: ...

    def drop(self, server: str, checkpoint: Checkpoint) -> None: ...


Copy = Callable[[Disk, End, Callable[[int, int], None]], None]
"""Copies what an end reads into the disk's half at the target."""


@dataclass(frozen=True, slots=True)
class Precopy:
    """The rounds of one server's disks."""

    source: Source
    copy: Copy
    begin_anew: Callable[[], None]
    """Make the empty images at the target, and copy there what the guest cannot write to."""
    progress: Callable[[Transfer], None]

    def run(self, server: str, warm: Sequence[Disk], move: str) -> None:
        """Copy until little is left; twice is once, and what was proved is not copied again.

        Raises:
            StepFailed: the guest went off, libvirt refuses, or a copy broke.
        """
        self.source.end(server)
        made = [each for each in ours(self.source.checkpoints(server)) if each.move == move[:8]]
        if len(made) < 2 and (not made or made[0].number == 0):
            since = self._all(server, warm, move, made)
        else:
            since = made[0]
            for later in made[1:]:
                self.source.drop(server, later)
        self._rounds(server, warm, move, since)

    def _all(
        self, server: str, warm: Sequence[Disk], move: str, made: Sequence[Checkpoint]
    ) -> Checkpoint:
        for stale in made:
            self.source.drop(server, stale)
        first = Checkpoint.of(move, 0)
        self.begin_anew()
        self._round(server, warm, first, None, 0)
        return first

    def _rounds(self, server: str, warm: Sequence[Disk], move: str, since: Checkpoint) -> None:
        before = float("inf")
        for number in range(1, ROUNDS + 1):
            following = Checkpoint.of(move, since.number + 1)
            sent = self._round(server, warm, following, since, number)
            self.source.drop(server, since)
            since = following
            if sent <= SMALL_BYTES or sent > before * SHRINKS:
                return
            before = sent

    def _round(
        self,
        server: str,
        warm: Sequence[Disk],
        checkpoint: Checkpoint,
        since: Checkpoint | None,
        number: int,
    ) -> int:
        """One round; answers how many bytes it sent."""
        sent = {disk.name: 0 for disk in warm}
        begun = time.monotonic()
        self.source.begin(server, warm, checkpoint, since)
        try:
            for disk in warm:

                def told(done: int, total: int, name: str = disk.name) -> None:
                    sent[name] = done
                    seconds = time.monotonic() - begun
                    self.progress(Transfer(name, done, total, number, seconds))

                self.copy(disk, self.source.reading_end(server, disk, since), told)
        finally:
            self.source.end(server)
        return sum(sent.values())
