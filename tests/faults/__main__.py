"""`python -m tests.faults`: every call of every step meets every fault; prints one JSON object."""

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
from tests.crash.sweep import Tally, rehearsal
from tests.faults.moves import sweep


def swept(shares: int, part: tuple[Verb, int]) -> Tally:
    """Every so-manieth step of a verb."""
    verb, first = part
    total = Tally()
    with tempfile.TemporaryDirectory() as folder:
        play = rehearsal(Path(folder), verb)
        for index in range(first, len(SCORES[verb]), shares):
            total.add(sweep(play, index))
    return total


def main() -> int:
    """Sweep all verbs; what is wrong goes to standard error, the counts to standard output."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--processes", type=int, default=2)
    processes: int = parser.parse_args().processes
    begun = time.monotonic()
    total = Tally()
    parts: list[tuple[Verb, int]] = [(verb, n) for verb in SCORES for n in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        for tally in pool.map(partial(swept, processes), parts):
            total.add(tally)
    for line in [*total.lost, *total.left_over, *total.failed]:
        print(line, file=sys.stderr)  # noqa: T201 - its product
    names = ("cases", "lost", "left_over", "failed")
    counts = {name: total.document()[name] for name in names}
    print(json.dumps(counts | {"seconds": round(time.monotonic() - begun, 1)}))  # noqa: T201
    return 0 if total.clean else 1


if __name__ == "__main__":
    sys.exit(main())
