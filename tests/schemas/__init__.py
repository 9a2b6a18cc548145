"""A cell's schema as nova's own migrations make it, release by release; `make.py` renews them."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
RELEASES = tuple(sorted(int(each.stem.split("-")[1]) for each in FOLDER.glob("cell-*.sql")))
"""nova's major versions: 20 is Train."""

SHADOWS = re.compile(r"^CREATE TABLE `shadow_.*?;\n", re.MULTILINE | re.DOTALL)


def ddl(release: int) -> str:
    """Statements that make a cell's empty schema, and say its version as nova does.

    Without the shadow tables it is made in half the time, and no table refers to one of them.
    """
    return SHADOWS.sub("", (FOLDER / f"cell-{release}.sql").read_text())
