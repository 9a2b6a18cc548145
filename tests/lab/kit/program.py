"""Running cellmove as an operator would, on the conductor's side of the lab."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def __init__(self, state: Path) -> None:
        self._environment = {**os.environ, "XDG_STATE_HOME": str(state), "NO_COLOR": "1"}

    def __call__(self, *argv: str, check: bool = True, timeout_seconds: float = 600) -> Completed:
        """Run to the end; with `check` any exit code but 0 fails the test with what was said."""
        process = self.start(*argv)
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"{argv} did not end: {stdout}{stderr}") from None
        done = Completed(process.returncode, stdout, stderr)
        assert not check or done.code == 0, f"{argv} exited with {done.code}: {stdout}{stderr}"
        return done

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Run in the background: to be interrupted or killed; its pid is cellmove's own."""
        return subprocess.Popen(
            [str(OUTPUTS / "cellmove"), *argv],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
