"""What commands say of themselves is plain text: a star in it is a star."""

from __future__ import annotations

import re

import click
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_STAR = re.compile(r"(?<![*\\])\*(?!\*)")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    for part in ("description", "options"):
        app.connect(f"sphinx-click-process-{part}", _escape)
    return {"version": "1", "parallel_read_safe": True}


def _escape(_app: Sphinx, _context: click.Context, lines: list[str]) -> None:
    lines[:] = [line if line.startswith("..") else _STAR.sub(r"\\*", line) for line in lines]
