"""When servers may be moved: `Sat 02:00-04:00`, `Mon-Fri 22:00-06:00`, `02:00-04:00`."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

from cellmove.errors import Usage

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(r"(?:(\S+)\s+)?(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)")
_WEEK: Final = 7


@dataclass(frozen=True, slots=True)
class Window:
    """A time of some days of the week, in local time; it may end on the day after."""

    text: str
    days: frozenset[int]
    """0: Monday; on which it begins."""
    begins: dt.time
    ends: dt.time

    @classmethod
    def parse(cls, text: str) -> Window:
        """The window that somebody typed.

        Raises:
            Usage: it cannot be read.
        """
        found = _WINDOW.fullmatch(text.strip())
        try:
            window = _made(text, *found.groups()) if found else None
        except ValueError:
            window = None
        if window is None or window.begins == window.ends:
            raise Usage(
                f"{text!r} is no window of time.",
                "It should be days of the week, if not all, and the time from and to.",
                "Write it like 'Sat 02:00-04:00' or 'Mon-Fri 22:00-06:00'.",
            )
        return window

    def opens_in(self, now: dt.datetime) -> dt.timedelta:
        """How long until it is open; zero while it is."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        openings = []
        # Yesterday's may still be open; a week from now the same day has its turn again.
        for ahead in range(-1, _WEEK + 1):
            day = midnight + dt.timedelta(days=ahead)
            if day.weekday() not in self.days:
                continue
            begins, ends = self._on(day)
            if begins <= now < ends:
                return dt.timedelta(0)
            if begins > now:
                openings.append(begins - now)
        return min(openings)

    def _on(self, day: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        begins = dt.datetime.combine(day, self.begins, day.tzinfo)
        ends = dt.datetime.combine(day, self.ends, day.tzinfo)
        return begins, ends if ends > begins else ends + dt.timedelta(days=1)


def _made(text: str, days: str | None, *clock: str) -> Window:
    """ValueError: no such day or time."""
    from_hour, from_minute, to_hour, to_minute = map(int, clock)
    return Window(
        text,
        _days(days) if days else frozenset(range(_WEEK)),
        dt.time(from_hour, from_minute),
        dt.time(0 if to_hour == 24 else to_hour, to_minute),
    )


def _days(text: str) -> frozenset[int]:
    """`sat`, `sat,sun`, `mon-fri`; from a later day to an earlier one over the weekend."""
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        begin = DAYS.index(first[:3])
        length = (DAYS.index(last[:3]) - begin) % _WEEK if dash else 0
        found.update((begin + ahead) % _WEEK for ahead in range(length + 1))
    return frozenset(found)
