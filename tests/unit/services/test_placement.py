"""What only a scripted Placement shows: races between writers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cellmove.errors import Conflict, StepFailed
from cellmove.model import Allocations
from cellmove.services.placement import TRIES, Placement
from cellmove.services.service import Answer

RACE = "Another thread concurrently updated the resource provider data. Please retry your update"
CHANGE = Allocations("c", {"p": {"VCPU": 1}}, None, "project", "user")


def refusal(status: int, code: str, detail: str) -> Answer:
    return Answer(status, {"errors": [{"code": code, "detail": detail}]})


class Script:
    """A service that gives these answers to writes, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.sent: list[tuple[str, str, Mapping[str, Any] | None]] = []

    def get(self, path: str, **query: str) -> Answer:
        raise AssertionError(path)

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        self.sent.append((method, path, body))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def test_a_race_for_the_provider_is_run_again() -> None:
    script = Script(refusal(409, "placement.concurrent_update", RACE), Answer(204, {}))
    Placement(script, pause_seconds=0).replace([CHANGE])
    wanted = {
        "allocations": {"p": {"resources": {"VCPU": 1}}},
        "project_id": "project",
        "user_id": "user",
        "consumer_generation": None,
    }
    assert script.sent == 2 * [("POST", "/allocations", {"c": wanted})]


def test_a_race_without_end_is_a_conflict_in_the_end() -> None:
    script = Script(refusal(409, "placement.concurrent_update", RACE))
    with pytest.raises(Conflict, match="Somebody else"):
        Placement(script, pause_seconds=0).replace([CHANGE])
    assert len(script.sent) == TRIES


def test_another_generation_is_not_tried_again() -> None:
    detail = "consumer generation conflict - expected 3 but got 2"
    script = Script(refusal(409, "placement.concurrent_update", detail))
    with pytest.raises(Conflict, match="expected 3 but got 2"):
        Placement(script, pause_seconds=0).replace([CHANGE])
    assert len(script.sent) == 1


def test_what_placement_cannot_do_fails_the_step() -> None:
    script = Script(refusal(500, "placement.undefined_code", "no database"))
    with pytest.raises(StepFailed, match="no database") as caught:
        Placement(script, pause_seconds=0).replace([CHANGE])
    assert not isinstance(caught.value, Conflict)
