"""A policy that allows everything: what the real one says is tested by itself."""

from __future__ import annotations

from collections.abc import Iterator

from cellmove.errors import Refused


class Everybody:
    """`policy.Policy` of a cloud without rules."""

    def refusals(self, rule: str, project_id: str, user_id: str) -> Iterator[Refused]:
        yield from ()
