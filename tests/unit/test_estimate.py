"""What a plan expects, by what earlier moves took."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cellmove.intake.estimate import FIRST_RATE, estimate
from cellmove.journal import Entry, Event, Mark
from cellmove.model import Disk
from tests.unit.samples import GIB, move

COLD = Disk("disk", "qcow2", 10 * GIB, GIB)
MOVE = replace(move(), vm_state="active", disks=(COLD,))
WARM = replace(MOVE, disks=(replace(COLD, warm=True),))
STEPS = (
    ("precopy-disks", 0, 20),
    ("stop-source-guest", 20, 25),
    ("copy-disks", 25, 35),
    ("start-target-guest", 35, 40),
)


def entry(number: int = 1, **facts: Any) -> Entry:
    """A finished resize of 50 s that sent 1 GiB."""
    wanted: dict[str, Any] = {"move": WARM, "steps": STEPS, "more": ()} | facts
    events = [event for name, *times in wanted["steps"] for event in pair(name, *times)]
    events += [*wanted["more"], Event(at(50), "", Mark.FINISHED)]
    return Entry(number, "resize", wanted["move"], at(0), tuple(events))


def pair(step: str, begun: float, done: float) -> list[Event]:
    return [Event(at(begun), step, Mark.BEGUN), Event(at(done), step, Mark.DONE)]


def at(second: float) -> str:
    return f"2026-01-02T03:04:{second:06.3f}+00:00"


def test_without_a_history_rates_to_begin_with_are_taken() -> None:
    found = estimate(MOVE, [])
    assert found.measured == 0
    assert not found.rate_measured
    assert found.copy_bytes == GIB
    assert found.downtime_seconds == pytest.approx(GIB / FIRST_RATE + 20)
    assert found.seconds == pytest.approx(GIB / FIRST_RATE + 30)


def test_a_warm_disk_does_not_keep_the_guest_off() -> None:
    assert estimate(WARM, []).downtime_seconds == pytest.approx(20)


def test_a_server_that_is_off_feels_nothing() -> None:
    assert estimate(replace(MOVE, vm_state="stopped"), []).downtime_seconds == 0


def test_an_earlier_move_is_foreseen_as_it_went() -> None:
    found = estimate(WARM, [entry()])
    assert found.rate_measured
    assert found.bytes_per_second == pytest.approx(GIB / 20)
    assert found.downtime_seconds == pytest.approx(20)
    assert found.seconds == pytest.approx(50)


def test_a_cold_copy_keeps_the_guest_off_as_long_as_it_did() -> None:
    found = estimate(MOVE, [entry(move=MOVE, steps=STEPS[1:])])
    assert found.bytes_per_second == pytest.approx(GIB / 10)
    assert found.downtime_seconds == pytest.approx(20)


def test_a_limit_of_the_rate_is_kept() -> None:
    assert estimate(WARM, [entry()], limit=1000).bytes_per_second == 1000


@pytest.mark.parametrize(
    "facts",
    [
        {"more": [Event(at(41), "two", Mark.FAILED)]},
        {"more": pair("precopy-disks", 41, 42)},
        {"move": replace(WARM, source=WARM.target, target=WARM.source)},
    ],
)
def test_moves_that_tell_nothing_are_left_out(facts: dict[str, Any]) -> None:
    assert estimate(WARM, [entry(**facts)]).measured == 0


def test_moves_between_the_same_hosts_tell_more_than_those_between_the_cells() -> None:
    other = replace(WARM, target=replace(WARM.target, name="cmp2x"))
    slow = entry(2, move=other, steps=(("precopy-disks", 0, 40),))
    assert estimate(WARM, [entry(1), slow]).bytes_per_second == pytest.approx(GIB / 20)
    assert estimate(WARM, [slow]).bytes_per_second == pytest.approx(GIB / 40)


def test_only_the_newest_moves_count() -> None:
    old = [entry(number, steps=(("precopy-disks", 0, 1),)) for number in range(20)]
    new = [entry(number) for number in range(20, 25)]
    found = estimate(WARM, old + new)
    assert found.measured == 5
    assert found.bytes_per_second == pytest.approx(GIB / 20)


def test_a_small_copy_does_not_tell_the_rate() -> None:
    small = replace(WARM, disks=(replace(COLD, allocated_bytes=1000, warm=True),))
    found = estimate(WARM, [entry(move=small)])
    assert (found.measured, found.rate_measured) == (1, False)
