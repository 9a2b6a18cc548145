"""Clients that ask nova's API as fast as it answers, while somebody else moves their server."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cellmove.services.session import Session
from tests.lab.kit.nova import MICROVERSION

OF_ONE = frozenset({(1, 1, 128), (1, 1, 160)})
"""Servers, VCPUs and MiB of memory of one server of flavor c1, or of one as large as c2."""
SWAPS = {"resize": ("show-target", "hide-source"), "revert": ("show-source", "hide-target")}
"""Between these steps both cells show the server, so that no list lacks it: as nova does it."""


@dataclass(frozen=True, slots=True)
class Count:
    """What counted against the project's quota, and when that was asked and answered."""

    asked_at: float
    answered_at: float
    used: tuple[int, int, int]
    """Servers, VCPUs and MiB of memory."""


@dataclass
class Seen:
    """What the clients were answered, each in the order in which it asked."""

    listed: list[tuple[str, ...]] = field(default_factory=list)
    """Ids of each list of the project's servers."""
    shown: list[int] = field(default_factory=list)
    """HTTP status of each question for the one server."""
    statuses: Counter[str] = field(default_factory=Counter)
    counted: list[Count] = field(default_factory=list)

    def require_once(self, server: str) -> None:
        """Never listed twice, never absent; counted once."""
        assert len(self.listed) > 2  # a confirm is short
        assert set(self.listed) == {(server,)}
        assert set(self.shown) == {200}
        assert {each.used for each in self.counted} <= OF_ONE

    def require_swapped_once(self, server: str, journal: Path, verb: str) -> None:
        """The same; only while both cells show the server it may count against both."""
        begun, done = swap(journal, verb)
        apart = [each for each in self.counted if each.answered_at < begun or each.asked_at > done]
        Seen(self.listed, self.shown, self.statuses, apart).require_once(server)
        assert apart[0].answered_at < begun
        assert apart[-1].asked_at > done


def swap(journal: Path, verb: str) -> tuple[float, float]:
    """When the newest move began to show the server in its new cell, and had hidden the other."""
    first, last = SWAPS[verb]
    query = "SELECT at FROM events WHERE step = ? AND mark = ? ORDER BY id DESC LIMIT 1"
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        at = [
            datetime.fromisoformat(database.execute(query, each).fetchone()[0]).timestamp()
            for each in ((first, "begun"), (last, "done"))
        ]
    return at[0], at[1]


@contextmanager
def asked(session: Session, server: str) -> Iterator[Seen]:
    """While the block runs, three clients ask: for the list, for the server and for the quota."""
    seen, over = Seen(), threading.Event()
    lister, shower, counter = (session.service("compute", MICROVERSION) for _ in range(3))

    def lists() -> None:
        servers = lister.get("/servers/detail").body["servers"]
        seen.listed.append(tuple(each["id"] for each in servers))
        seen.statuses.update(each["status"] for each in servers)

    def shows() -> None:
        seen.shown.append(shower.get(f"/servers/{server}").status)

    def counts() -> None:
        begun = time.time()
        used = counter.get("/limits").body["limits"]["absolute"]
        names = ("totalInstancesUsed", "totalCoresUsed", "totalRAMUsed")
        servers, cores, ram = (int(used[name]) for name in names)
        seen.counted.append(Count(begun, time.time(), (servers, cores, ram)))

    def again(ask: Callable[[], None]) -> None:
        ask()
        while not over.is_set():
            ask()
        ask()

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(again, ask) for ask in (lists, shows, counts)]
        try:
            yield seen
        finally:
            over.set()
            for each in asking:
                each.result()
