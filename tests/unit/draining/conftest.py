"""What tests of drains share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellmove.journal import Journal
from tests.unit.draining.town import Town


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal in a file."""
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Callable[[int], Town]]:
    """Makes a fake cloud with so many servers."""

    def made(servers: int) -> Town:
        (tmp_path / "cloud").mkdir()
        return Town(tmp_path / "cloud", servers)

    yield made
    # A worker of a later test must not be who collects it: its files are this thread's.
    gc.collect()
