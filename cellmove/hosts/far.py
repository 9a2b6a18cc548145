"""Programs of ours that run on a host: sent with each command, so nothing is installed there."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Literal

from cellmove.hosts.disks import Argv

Program = Literal["leash.py", "stream.py"]

_OURS = re.compile(r"^from cellmove\.hosts\.(\w+) import (?:\([^)]*\)|.*)$", re.MULTILINE)


def far_program(name: Program, *arguments: str) -> Argv:
    """The command that runs one of our programs there: Python without anybody's site packages.

    `-S`, for looking for these takes longer than all the rest of a short command.
    """
    return ("python3", "-I", "-S", "-c", _source(name), *arguments)


@functools.cache
def _source(name: str) -> str:
    """The program's text, with what it imports of ours in the place of the first such import."""
    had: set[str] = set()

    def text(module: str) -> str:
        if module in had:
            return ""
        had.add(module)
        read = files("cellmove.hosts").joinpath(f"{module}.py").read_text()
        return _OURS.sub(lambda found: text(found[1]), read)

    return text(name.removesuffix(".py"))
