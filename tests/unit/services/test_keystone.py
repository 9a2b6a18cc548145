"""A project is found by its id or by a name that only one bears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cellmove.errors import Refused
from cellmove.services.keystone import Projects
from cellmove.services.service import Answer

NAMES = {"id-1": "shop", "id-2": "twin", "id-3": "twin", "id/4": "a b"}


class Keystone:
    """Knows some projects."""

    def get(self, path: str, **query: str) -> Answer:
        if query:
            assert path == "/projects"
            found = [{"id": key} for key, name in NAMES.items() if name == query["name"]]
            return Answer(200, {"projects": found})
        asked = path.removeprefix("/projects/").replace("%2F", "/").replace("%20", " ")
        if asked not in NAMES:
            return Answer(404, {"error": {"message": "Could not find project"}})
        return Answer(200, {"project": {"id": asked}})

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        raise AssertionError(path)


@pytest.mark.parametrize(
    ("asked", "found"), [("id-1", "id-1"), ("shop", "id-1"), ("id/4", "id/4"), ("a b", "id/4")]
)
def test_a_project_is_found_by_id_or_name(asked: str, found: str) -> None:
    assert Projects(Keystone()).id_of(asked) == found


@pytest.mark.parametrize(("asked", "seen"), [("twin", "id-2, id-3"), ("none", "knows none")])
def test_none_or_several_are_refused(asked: str, seen: str) -> None:
    with pytest.raises(Refused, match=asked) as refused:
        Projects(Keystone()).id_of(asked)
    assert seen in refused.value.seen
    assert refused.value.do
