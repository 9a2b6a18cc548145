"""How much of their time a drain's workers work on servers, and whether its memory grows.

No lab is needed: a cell of the fake cloud (tests/fakes) with many servers, a journal in a file, and
moves of as many steps as a real resize has that only sleep. All else is real: the look at the cell,
the turns, the journal's entries of every move and its two events of every step, the workers. A
worker is busy from the moment it has a server's turn until it has ended it; the rest is waiting,
for the queue or for one another. Memory grows from the first tenth of the servers on.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellmove.cloud import Cloud
from cellmove.draining.agenda import Task
from cellmove.draining.happenings import Outcome
from cellmove.draining.run import Drain
from cellmove.draining.scope import look, scope_of
from cellmove.draining.tools import Holds
from cellmove.draining.wishes import Terms, Wishes
from cellmove.draining.work import Work
from cellmove.interrupts import Interrupts
from cellmove.journal import Busy, Entry, Journal, Mark, Turn
from cellmove.model import Move
from cellmove.opening import OpenCloud
from tests.fakes.databases import CELL1
from tests.fakes.world import SERVER
from tests.unit.draining.town import Town
from tests.unit.samples import move as sample

STEPS = 31
"""Each is two events in the journal."""
PAGE_KIB = resource.getpagesize() // 1024


@dataclass(slots=True)
class Clock:
    """What the workers did together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    busy_seconds: float = 0.0
    over: int = 0
    tenth: int = 1
    rss_mb: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sleeping(Work):
    """Moves nothing, for a while."""

    move_seconds: float = 2.0
    clock: Clock = field(default_factory=Clock)

    def moved(self, task: Task, turn: Turn) -> Outcome | Busy:
        """Counts the time."""
        began = time.perf_counter()
        # Of a frozen dataclass with slots: the class that `super()` means is another one.
        outcome = Work.moved(self, task, turn)
        with self.clock.lock:
            self.clock.busy_seconds += time.perf_counter() - began
            self.clock.over += 1
            if self.clock.over % self.clock.tenth == 0:
                self.clock.rss_mb.append(rss_mb())
        return outcome

    def _intake(
        self,
        _opened: OpenCloud,
        task: Task,
        _without: Collection[str],
        _remark: Callable[[str], None],
    ) -> Move:
        return sample(task.name, task.server)

    def _conduct(self, _opened: OpenCloud, entry: Entry) -> None:
        journal = self.tools.journal
        with journal.lease(entry.move.id):
            for number in range(STEPS):
                journal.write(entry.move.id, f"sleep-{number}", Mark.BEGUN)
                time.sleep(self.move_seconds / STEPS)
                journal.write(entry.move.id, f"sleep-{number}", Mark.DONE)
            journal.write(entry.move.id, "", Mark.FINISHED)


def rss_mb() -> float:
    """What this process takes now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_KIB / 1024


def fill(cloud: Cloud, servers: int) -> None:
    """That many servers on the hosts of cell1."""
    with cloud.cells[CELL1.uuid].write() as rows:
        (pattern,) = rows.all("instances", uuid=SERVER)
        pattern = {name: value for name, value in pattern.items() if name != "id"}
        new = [
            pattern
            | {
                "uuid": str(uuid.UUID(int=number)),
                "display_name": f"bench-{number}",
                "host": f"cmp1{'ab'[number % 2]}",
            }
            for number in range(1, servers + 1)
        ]
        for at in range(0, len(new), 200):
            rows.insert("instances", new[at : at + 200])


def measure(servers: int, workers: int, move_seconds: float) -> dict[str, Any]:
    """One drain."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cloud").mkdir()
        town = Town(Path(folder) / "cloud", 0)
        journal = Journal(Path(folder) / "journal.db")
        fill(town.world.cloud, servers)
        wishes = Wishes(cell="cell1", parallel=workers, only=Terms(names=("bench-*",)))
        scope = scope_of(town.world.cloud, wishes)
        found = look(town.world.cloud, scope, wishes, journal.entries())
        clock, holds = Clock(tenth=max(servers // 10, 1)), Holds(Interrupts(lambda _text: None))
        number = journal.open_drain(scope.key)
        tools = replace(town.tools(journal), tell=lambda _happening: None)
        work = Sleeping(tools, scope, wishes, number, holds, move_seconds, clock)
        drain = Drain(work, found)
        began = time.perf_counter()
        outcomes = drain.run()
        took = time.perf_counter() - began
        journal.close_drain(number)
        journal.close()
    if drain.broken or not outcomes:
        raise SystemExit(f"the drain did not run: {drain.broken}")
    done = sum(1 for each in outcomes if each.kind == "done")
    return {
        "servers": servers,
        "done": done,
        "workers": workers,
        "move_seconds": move_seconds,
        "seconds": round(took, 2),
        "busy_fraction": round(clock.busy_seconds / (workers * took), 3),
        "overhead_ms_per_server": round(1000 * (workers * took / servers - move_seconds), 1),
        "rss_mb": round(clock.rss_mb[-1], 1),
        "rss_growth_mb": round(clock.rss_mb[-1] - clock.rss_mb[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--servers", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--workers", type=int, default=8, help="at a time (default 8)")
    parser.add_argument(
        "--move-ms", type=float, default=2000, help="what a move sleeps (default 2000)"
    )
    options = parser.parse_args()
    found = measure(options.servers, options.workers, options.move_ms / 1000)
    if options.json:
        print(json.dumps({"benchmark": "drain", **found}))
        return
    print(
        f"{found['done']} of {found['servers']} servers by {found['workers']} workers in "
        f"{found['seconds']:.1f} s: busy {found['busy_fraction']:.0%} of the time (aim 90%), "
        f"{found['overhead_ms_per_server']:.0f} ms beside each move, "
        f"memory grew by {found['rss_growth_mb']:.1f} MB from the first tenth on"
    )


if __name__ == "__main__":
    main()
