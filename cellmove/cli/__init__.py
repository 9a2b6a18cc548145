"""The command line: `commands` declares it, `work` does it, imported when a command runs."""

from __future__ import annotations

from cellmove.cli.commands import main

__all__ = ["main"]
