"""What several files share: a terminal before the fake cloud, and each verb run undisturbed."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cellmove.cli import desk
from cellmove.cli.commands import run
from cellmove.cloud import Cloud
from cellmove.config import Config
from cellmove.journal import Verb
from cellmove.model import Transfer
from cellmove.opening import OpenCloud
from cellmove.services.session import Identity
from tests.crash.sweep import Play, rehearsal
from tests.fakes.permission import Everybody
from tests.fakes.world import World


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """Types commands."""

    def __init__(self, world: World, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = world
        self.journal = journal
        self.requests: list[str] = []
        self._capsys = capsys

    def type(self, *argv: str) -> Ran:
        """Run a command."""
        self._capsys.readouterr()
        code = run(argv)
        heard = self._capsys.readouterr()
        return Ran(code, heard.out, heard.err)

    @contextmanager
    def open_cloud(
        self, _config: Config, *, request_id: str, progress: Callable[[Transfer], None], **_: object
    ) -> Iterator[OpenCloud]:
        """In place of the real one."""
        self.requests.append(request_id)
        cloud: Cloud = replace(self.world.cloud, progress=progress)
        who = Identity("admin-user", "admin-project", frozenset({"admin"}))
        yield OpenCloud(cloud, who, request_id, Everybody(), lambda project: project)


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    """A terminal whose cloud is a fresh fake one."""
    (tmp_path / "cloud").mkdir()
    journal = tmp_path / "state" / "cellmove" / "journal.db"
    terminal = Terminal(World(tmp_path / "cloud"), journal, capsys)
    for name in ("CELLMOVE_CONFIG", "XDG_CONFIG_HOME", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CELLMOVE_DATABASE_URL", "mysql+pymysql://nobody@nowhere/nova_api")
    monkeypatch.setattr(desk, "open_cloud", terminal.open_cloud)
    monkeypatch.setattr("cellmove.cli.early.begin", lambda _config: None)
    return terminal


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes standard input a terminal on which somebody types this."""

    class Keyboard:
        def __init__(self, text: str) -> None:
            self._lines = iter(text.splitlines(keepends=True))

        def isatty(self) -> bool:
            return True

        def readline(self, *_size: int) -> str:
            return next(self._lines, "")

    return lambda text: monkeypatch.setattr(sys, "stdin", Keyboard(text))


Played = Callable[[Verb], Play]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The verb run undisturbed, once: what the sweeps kill and spoil."""

    @functools.cache
    def made(verb: Verb) -> Play:
        return rehearsal(tmp_path_factory.mktemp(verb), verb)

    return made
