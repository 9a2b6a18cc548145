"""Is every server whole, and is nothing left over? The whole cloud against what holds at rest."""

from __future__ import annotations

from cellmove.audit.findings import Finding, Severity
from cellmove.audit.whole import Audit, run

__all__ = ["Audit", "Finding", "Severity", "run"]
