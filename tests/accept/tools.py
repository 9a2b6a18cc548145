"""nova's own tools, run where the lab's nova-api runs."""

from __future__ import annotations

import subprocess

from tests.lab.kit.places import OUTPUTS, STATE

TOOL_SECONDS = 300


def tool(program: str, *argv: str, ends: tuple[int, ...] = (0,)) -> str:
    """What `nova-manage` or `nova-status` says; it must end with one of these codes."""
    there = [str(OUTPUTS / "enter"), "ctl", program]
    config = f"--config-file={STATE}/etc/nova-api.conf"
    done = subprocess.run(
        [*there, config, *argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode in ends, f"{program} {' '.join(argv)}: {done.returncode}: {said}"
    return done.stdout
