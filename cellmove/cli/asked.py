"""The servers that a command was asked for, by name or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cellmove.errors import Usage

STANDARD_INPUT = "-"


def servers_of(asked: Sequence[str]) -> list[str]:
    """The servers, with those of standard input in the place of `-`: one a line.

    Blank lines, and what follows a `#` at the beginning of a line, are left out.

    Raises:
        Usage: there is none.
    """
    found: list[str] = []
    for each in asked:
        found += _lines() if each == STANDARD_INPUT else [each]
    if not found:
        seen = "Standard input has none." if asked else "None is on the command line."
        raise Usage("No server was named.", seen, "Name one, or `-` for one a line.")
    return found


def _lines() -> list[str]:
    lines: list[str] = []
    while line := sys.stdin.readline():
        if (text := line.strip()) and not text.startswith("#"):
            lines.append(text)
    return lines
