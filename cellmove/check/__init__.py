"""Can this machine do its work? One small look after the other; nothing is changed anywhere."""

from __future__ import annotations

from cellmove.check.findings import Finding, Result
from cellmove.check.server import Looked, look
from cellmove.check.whole import run

__all__ = ["Finding", "Looked", "Result", "look", "run"]
