"""How fast a copy may go, as people write it: 30M, 1.5GiB/s."""

from __future__ import annotations

import re
from typing import Final

import click

SLOWEST_BYTES: Final = 64 << 10
"""A block of a disk then takes 16 s: well within what is taken for a stalled copy."""
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)(?:i?b)?(?:/s)?", re.IGNORECASE)


def rate(text: str) -> int:
    """Bytes a second; `k`, `M` and `G` are powers of 1024, as in rsync.

    Raises:
        click.BadParameter: it is no rate, or too slow for a disk.
    """
    found = _RATE.fullmatch(text.strip())
    if not found:
        raise click.BadParameter(f"{text!r} is no rate: write bytes a second, like 30M or 512k.")
    found_bytes = int(float(found[1]) * (1 << _UNITS[found[2].lower()]))
    if found_bytes < SLOWEST_BYTES:
        raise click.BadParameter(f"{text!r} is too slow for a disk: at least 64k.")
    return found_bytes
