"""What only a scripted Cinder shows: old ones, errors, and information that leads nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cellmove.errors import StepFailed
from cellmove.services.cinder import Cinder
from cellmove.services.service import Answer

FORBIDDEN = Answer(409, {"conflictingRequest": {"message": "ConflictNovaUsingAttachment"}})


class Script:
    """A service that gives this answer to everything."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def get(self, path: str, **query: str) -> Answer:
        return self._answer

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        return self._answer


def shown(connection_info: Mapping[str, Any] | None) -> Cinder:
    attachment = {
        "id": "a",
        "volume_id": "v",
        "instance": "s",
        "status": "attaching",
        "connection_info": connection_info,
    }
    return Cinder(Script(Answer(200, {"attachment": attachment})))


@pytest.mark.parametrize("status", [404, 406])
def test_a_cinder_without_attachments_is_told(status: int) -> None:
    assert not Cinder(Script(Answer(status, {}))).has_attachments()
    assert Cinder(Script(Answer(200, {"attachments": []}))).has_attachments()


@pytest.mark.parametrize("told", [None, {}, {"format": "raw"}])
def test_a_format_alone_is_no_way_to_a_volume(told: Mapping[str, Any] | None) -> None:
    assert shown(told).connection_info("a") == {}


def test_the_flat_form_of_the_api_becomes_the_one_that_nova_stores() -> None:
    flat = {"driver_volume_type": "rbd", "name": "pool/v", "attachment_id": "a"}
    info = shown(flat).connection_info("a")
    assert info["driver_volume_type"] == "rbd"
    assert info["data"] == {"name": "pool/v"}
    assert (info["serial"], info["volume_id"], info["instance"]) == ("v", "v", "s")


def test_a_refused_delete_tells_of_the_service_token() -> None:
    with pytest.raises(StepFailed, match="service token"):
        Cinder(Script(FORBIDDEN)).delete("a")


def test_an_error_is_told_with_what_cinder_says() -> None:
    with pytest.raises(StepFailed, match="ConflictNovaUsingAttachment"):
        Cinder(Script(FORBIDDEN)).reserve("v", "s")
    with pytest.raises(StepFailed, match="could not be read"):
        Cinder(Script(Answer(409, {}))).attachments("s")


def test_an_attachment_of_another_server_is_left_out() -> None:
    found = [
        {"id": "a", "volume_id": "v", "status": "attached", "instance": "s"},
        {"id": "b", "volume_id": "v", "status": "attached", "instance": "another"},
    ]
    mine = Cinder(Script(Answer(200, {"attachments": found}))).attachments("s")
    assert [each.id for each in mine] == ["a"]
