"""Windows of time as people write them."""

from __future__ import annotations

import datetime as dt

import pytest

from cellmove.draining.window import Window
from cellmove.errors import Usage

SATURDAY = dt.datetime(2026, 11, 21)


@pytest.mark.parametrize(
    ("text", "at", "hours"),
    [
        ("Sat 02:00-04:00", SATURDAY.replace(hour=2), 0),
        ("Sat 02:00-04:00", SATURDAY.replace(hour=3, minute=59), 0),
        ("Sat 02:00-04:00", SATURDAY.replace(hour=1), 1),
        ("Sat 02:00-04:00", SATURDAY.replace(hour=4), 7 * 24 - 2),
        ("sat,sun 02:00-04:00", SATURDAY.replace(hour=4), 22),
        ("02:00-04:00", SATURDAY.replace(hour=5), 21),
        ("Fri 22:00-06:00", SATURDAY.replace(hour=5), 0),
        ("Fri 22:00-06:00", SATURDAY.replace(hour=6), 6 * 24 + 16),
        ("Mon-Fri 22:00-06:00", SATURDAY.replace(hour=12), 58),
        ("Fri-Mon 22:00-24:00", SATURDAY.replace(hour=21), 1),
        ("Saturday 20:00-24:00", SATURDAY.replace(hour=23, minute=59), 0),
    ],
)
def test_a_window_opens_when_it_says(text: str, at: dt.datetime, hours: int) -> None:
    assert Window.parse(text).opens_in(at) == dt.timedelta(hours=hours)


@pytest.mark.parametrize(
    "text", ["", "Sat", "Sat 2-4", "Foo 02:00-04:00", "25:00-26:00", "02:00-02:00", "02:61-03:00"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(Usage, match="no window of time"):
        Window.parse(text)
