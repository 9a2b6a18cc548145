"""What tests of the audit share: one look at the fake cloud, with or without a journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cellmove.audit import Audit, run
from cellmove.audit.whole import scope
from cellmove.journal import Entry
from tests.fakes.world import World

Look = Callable[..., Audit]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def look(world: World) -> Look:
    """Audits the fake cloud, without the pause between the two looks."""

    def once(
        *,
        server: str | None = None,
        cell: str | None = None,
        moves: Sequence[Entry] = (),
        mend: bool = False,
    ) -> Audit:
        asked = scope(world.cloud, lambda: moves, server=server, cell=cell)
        return run(replace(asked, again_seconds=0), mend=mend)

    return once
