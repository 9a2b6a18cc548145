"""How long a resize will take, about: from what earlier ones took, or from a rate to begin with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cellmove.journal import Entry, Mark, State
from cellmove.model import Disk, Move

MOST_MOVES = 5
"""How many earlier moves are looked at, newest first."""
LEAST_BYTES = 64 * 1024**2
"""Of less the copy's time says more of its beginning and end than of the rate."""
FIRST_RATE = 100 * 1024**2
"""Bytes a second, while nothing was measured: a link of 1 Gbit/s, nearly."""
FIRST_STILL_SECONDS = 20.0
"""Down without any copy, while nothing was measured: shut down, wire, start."""
FIRST_REST_SECONDS = 10.0
"""Every other step together, while nothing was measured."""
FELT, BACK = "stop-source-guest", "start-target-guest"
PRECOPY, COPY = "precopy-disks", "copy-disks"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to expect of one resize."""

    copy_bytes: int
    """What has to cross between the hosts, but for what the guest writes meanwhile."""
    bytes_per_second: float
    seconds: float
    """From the beginning to VERIFY_RESIZE."""
    downtime_seconds: float
    """Of these, how long the guest is off; 0 for a guest that is off anyway."""
    rate_measured: bool
    """Whether an earlier move has copied enough to tell the rate."""
    measured: int
    """Of how many earlier moves the rest was made; 0: of none, but of times to begin with."""


def estimate(move: Move, history: Iterable[Entry], limit: int = 0) -> Estimate:
    """What this resize takes, by the newest moves from host to host, else from cell to cell.

    `limit`: bytes a second of each copy at the most; 0: none. docs/choosing.rst has the formula.
    """
    known = _like(move, history)
    rates = [_rate(entry) for entry in known]
    rate = _median(rates, FIRST_RATE)
    rate = min(rate, limit) if limit else rate
    still = _median(map(_still_seconds, known), FIRST_STILL_SECONDS)
    rest = _median(map(_rest_seconds, known), FIRST_REST_SECONDS)
    cold = _bytes(move.disks, lambda disk: not disk.warm)
    all_bytes = _bytes(move.disks, lambda _: True)
    runs = move.vm_state == "active"
    return Estimate(
        copy_bytes=all_bytes,
        bytes_per_second=rate,
        seconds=all_bytes / rate + rest + (still if runs else 0),
        downtime_seconds=cold / rate + still if runs else 0.0,
        rate_measured=any(rates),
        measured=len(known),
    )


def _like(move: Move, history: Iterable[Entry]) -> Sequence[Entry]:
    done = [entry for entry in history if entry.verb == "resize" and _went_through(entry)][::-1]
    ways: tuple[Callable[[Move], object], ...] = (
        lambda each: (each.source.name, each.target.name),
        lambda each: (each.source.cell.uuid, each.target.cell.uuid),
    )
    for way in ways:
        if found := [entry for entry in done if way(entry.move) == way(move)]:
            return found[:MOST_MOVES]
    return ()


def _went_through(entry: Entry) -> bool:
    """Whether it was finished in one go: resumed moves took as long as somebody thought."""
    begun = [event.step for event in entry.events if event.mark is Mark.BEGUN]
    failed = any(event.mark is Mark.FAILED for event in entry.events)
    return entry.state is State.FINISHED and not failed and len(begun) == len(set(begun))


def _rate(entry: Entry) -> float | None:
    copied, seconds = _bytes(entry.move.disks, lambda _: True), _copy_seconds(entry)
    return copied / seconds if copied >= LEAST_BYTES and seconds else None


def _copy_seconds(entry: Entry) -> float:
    return _seconds(entry, PRECOPY) + _cold_seconds(entry)


def _cold_seconds(entry: Entry) -> float:
    """Of what crosses while the guest is off because it must; the rest of a warm copy is not it."""
    cold = any(not disk.warm for disk in entry.move.disks)
    return _seconds(entry, COPY) if cold else 0.0


def _still_seconds(entry: Entry) -> float | None:
    """How long the guest was off, without the copy of what crosses only then."""
    off, on = _at(entry, FELT, Mark.BEGUN), _at(entry, BACK, Mark.DONE)
    if off is None or on is None or entry.move.vm_state != "active":
        return None
    return (on - off).total_seconds() - _cold_seconds(entry)


def _rest_seconds(entry: Entry) -> float:
    begun, ended = (datetime.fromisoformat(entry.events[at].at) for at in (0, -1))
    whole = (ended - begun).total_seconds() - _copy_seconds(entry)
    return max(0.0, whole - (_still_seconds(entry) or 0))


def _seconds(entry: Entry, step: str) -> float:
    begun, done = _at(entry, step, Mark.BEGUN), _at(entry, step, Mark.DONE)
    return (done - begun).total_seconds() if begun and done else 0.0


def _at(entry: Entry, step: str, mark: Mark) -> datetime | None:
    """When it was so for the last time."""
    times = [event.at for event in entry.events if (event.step, event.mark) == (step, mark)]
    return datetime.fromisoformat(times[-1]) if times else None


def _bytes(disks: Iterable[Disk], which: Callable[[Disk], bool]) -> int:
    return sum(disk.allocated_bytes for disk in disks if which(disk))


def _median(found: Iterable[float | None], otherwise: float) -> float:
    known = [each for each in found if each is not None]
    return statistics.median(known) if known else otherwise
