"""How fast a copy may go, as people write it."""

from __future__ import annotations

import click
import pytest

from cellmove.cli.rate import rate

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "rate_bytes"),
    [("30M", 30 * MIB), ("1.5GiB/s", 1536 * MIB), ("512k", MIB // 2), ("1048576", MIB)],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate_bytes: int) -> None:
    assert rate(text) == rate_bytes


@pytest.mark.parametrize("text", ["fast", "", "-1M", "30 M B", "63k", "0", "1e9", "30Mbit"])
def test_what_is_no_rate_is_refused_with_what_was_seen(text: str) -> None:
    with pytest.raises(click.BadParameter, match=repr(text)):
        rate(text)
