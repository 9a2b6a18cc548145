"""`python -m tests.crash`: the whole kill sweep, and one JSON object of what came of it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from cellmove.journal import Verb
from cellmove.plan import SCORES
from tests.crash import drains
from tests.crash.sweep import Tally, rehearsal, sweep

Part = tuple[Verb | None, int]
"""A verb (None: a drain), and which share of its deaths."""


def swept(shares: int, part: Part) -> Tally:
    """Every so-manieth step of a verb, or death of a drain."""
    verb, first = part
    total = Tally()
    with tempfile.TemporaryDirectory() as folder:
        if verb is None:
            drained = drains.Drained(Path(folder))
            for index in range(first, len(drained.deaths), shares):
                total.add(drains.sweep(drained, index))
            return total
        play = rehearsal(Path(folder), verb)
        for index in range(first, len(SCORES[verb]), shares):
            total.add(sweep(play, index))
    return total


def main() -> int:
    """Sweep it all; what is wrong goes to standard error, the counts to standard output."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--processes", type=int, default=2)
    processes: int = parser.parse_args().processes
    begun = time.monotonic()
    total = Tally()
    parts: list[Part] = [(verb, n) for verb in (*SCORES, None) for n in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        for tally in pool.map(partial(swept, processes), parts):
            total.add(tally)
    for line in [*total.lost, *total.left_over, *total.failed]:
        print(line, file=sys.stderr)  # noqa: T201 - its product
    seconds = round(time.monotonic() - begun, 1)
    print(json.dumps(total.document() | {"seconds": seconds}))  # noqa: T201 - its product
    return 0 if total.clean else 1


if __name__ == "__main__":
    sys.exit(main())
