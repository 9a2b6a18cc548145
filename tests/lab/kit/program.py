"""Running cellmove as an operator would, on the conductor's side of the lab."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from openstack.config import OpenStackConfig

from tests.lab.kit.places import OUTPUTS


@dataclass(frozen=True, slots=True)
class Completed:
    """What a run of cellmove left."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.stdout)


class Cellmove:
    """The installed program with the lab's configuration, and a journal of its own."""

    program: tuple[str, ...] = (str(OUTPUTS / "cellmove"),)
    started: ClassVar[list[subprocess.Popen[str]]] = []
    """All that run in the background, or did."""

    def __init__(
        self, state: Path, environ: Mapping[str, str] | None = None, group: int | None = None
    ) -> None:
        """`group`: the id of the process's group of users, by which its packets can be told."""
        self.journal = state / "cellmove" / "journal.db"
        own = {"XDG_STATE_HOME": str(state), "NO_COLOR": "1"}
        self._environment = {**os.environ, **own, **(environ or {})}
        self._group = group

    def __call__(self, *argv: str, check: bool = True, timeout_seconds: float = 600) -> Completed:
        """Run to the end; with `check` any exit code but 0 fails the test with what was said."""
        done = self.wait(self.start(*argv), timeout_seconds)
        assert not check or done.code == 0, f"{argv} exited with {done.code}: {done}"
        return done

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Run in the background: to be interrupted or killed; its pid is cellmove's own."""
        process = subprocess.Popen(
            [*self.program, *argv],
            env=self._environment,
            group=self._group,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    @classmethod
    def end_all(cls) -> None:
        """Nothing of a test that failed works on while its servers are deleted."""
        for process in cls.started:
            if process.poll() is None:
                process.kill()
                process.communicate()
        cls.started.clear()

    @staticmethod
    def wait(process: subprocess.Popen[str], timeout_seconds: float = 600) -> Completed:
        """Until it has ended; what it left."""
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"cellmove did not end: {stdout}{stderr}") from None
        return Completed(process.returncode, stdout, stderr)

    def reached(
        self,
        step: str,
        *marks: str,
        timeout_seconds: float = 120,
        moving: subprocess.Popen[str] | None = None,
    ) -> None:
        """Wait until a move under way has one of these marks at this step: time to disturb it.

        `moving` is the process that goes there: nobody waits for one that has ended before.
        """
        deadline = time.monotonic() + timeout_seconds
        wanted = {(step, mark) for mark in marks}
        what = f"{step} was not {' or '.join(marks)}"
        while not wanted.intersection(self.marks()):
            if moving is not None and moving.poll() is not None:
                pytest.fail(f"{what} before the end: {self.wait(moving)}")
            if time.monotonic() > deadline:
                pytest.fail(f"{what} in {timeout_seconds:.0f} s: {self.marks()}")
            time.sleep(0.005)

    def marks(self) -> list[tuple[str, str]]:
        """All events of the journal, newest last."""
        if not self.journal.exists():
            return []
        database = sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)
        try:
            return database.execute("SELECT step, mark FROM events ORDER BY id").fetchall()
        except sqlite3.OperationalError:  # its tables are being made
            return []
        finally:
            database.close()


class WithClouds(Cellmove):
    """The program with another clouds.yaml than the lab's, which the lab's wrapper would name."""

    program = (sys.executable, "-m", "cellmove")

    def __init__(self, state: Path, clouds: Path) -> None:
        files = {"OS_CLIENT_CONFIG_FILE": clouds, "CELLMOVE_CONFIG": OUTPUTS / "cellmove.toml"}
        super().__init__(state, {name: str(path) for name, path in files.items()})


class KeepingTokens(WithClouds):
    """The program whose tokens are kept for the next command, in a keyring of its own."""

    def __init__(self, state: Path, clouds: Path = OUTPUTS / "clouds.yaml") -> None:
        keeping = OpenStackConfig(config_files=[str(clouds)]).cloud_config
        keeping["cache"] = {"auth": True}
        (state / "keeping.yaml").write_text(json.dumps(keeping))
        super().__init__(state, state / "keeping.yaml")
        self._environment["PYTHON_KEYRING_BACKEND"] = "keyrings.alt.file.PlaintextKeyring"
        self._environment["XDG_DATA_HOME"] = str(state)
