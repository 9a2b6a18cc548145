"""Answers that serve again for a moment, and never beyond a write of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from cellmove.errors import Unknown
from cellmove.services import service
from cellmove.services.service import RECENT_ANSWERS, RECENT_SECONDS, Answer, Recent


class Counting:
    """Answers how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.lost = False
        self.meanwhile: Callable[[], object] = int

    def get(self, path: str, **query: str) -> Answer:
        self.asked += 1
        answer = Answer(self.status, {"count": self.asked})
        self.meanwhile()
        return answer

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        if self.lost:
            raise Unknown("The answer did not come.")
        return Answer(204, {})


class Clock:
    """Time that passes when it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(service, "time", clock)
    return clock


@pytest.fixture
def far() -> Counting:
    return Counting()


@pytest.fixture
def recent(far: Counting, clock: Clock) -> Recent:
    return Recent(far, {"/ports": 0.125})


def test_a_moment_later_the_same_question_has_the_same_answer(
    recent: Recent, far: Counting, clock: Clock
) -> None:
    first = recent.get("/attachments", instance_id="one")
    clock.seconds += RECENT_SECONDS * 0.9

    assert recent.get("/attachments", instance_id="one") is first
    assert recent.get("/attachments", instance_id="two") is not first
    assert far.asked == 2


@pytest.mark.parametrize(("path", "seconds"), [("/attachments", RECENT_SECONDS), ("/ports", 0.125)])
def test_then_it_is_asked_anew(
    recent: Recent, far: Counting, clock: Clock, path: str, seconds: float
) -> None:
    recent.get(path)
    clock.seconds += seconds

    assert recent.get(path).body["count"] == 2


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_write_it_is_asked_anew_even_if_nobody_knows_whether_it_was_done(
    recent: Recent, far: Counting, lost: bool
) -> None:
    recent.get("/attachments")
    far.lost = lost
    try:
        recent.send("DELETE", "/attachments/one")
    except Unknown:
        assert lost

    assert recent.get("/attachments").body["count"] == 2


def test_an_answer_that_is_on_its_way_while_something_is_written_does_not_serve_again(
    recent: Recent, far: Counting
) -> None:
    far.meanwhile = partial(recent.send, "POST", "/attachments")
    recent.get("/attachments")

    assert recent.get("/attachments").body["count"] == 2


def test_a_refusal_does_not_serve_again(recent: Recent, far: Counting) -> None:
    far.status = 404
    assert not recent.get("/volumes/one").ok
    far.status = 200

    assert recent.get("/volumes/one").ok


def test_of_a_cloud_with_many_servers_not_all_is_kept(recent: Recent, far: Counting) -> None:
    for number in range(RECENT_ANSWERS):
        recent.get(f"/allocations/{number}")
    recent.get("/allocations/0")
    assert far.asked == RECENT_ANSWERS

    recent.get("/one-more")
    recent.get("/allocations/0")
    assert far.asked == RECENT_ANSWERS + 2
