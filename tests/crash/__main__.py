"""`python -m tests.crash`: the whole kill sweep, and one JSON object of what came of it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cellmove.journal import Verb
from cellmove.plan import SCORES
from tests.crash.sweep import Tally, rehearsal, sweep

PROCESSES = 2


def swept(part: tuple[Verb, int]) -> Tally:
    """Every second step of a verb, from the first or the second on."""
    verb, first = part
    total = Tally()
    with tempfile.TemporaryDirectory() as folder:
        play = rehearsal(Path(folder), verb)
        for index in range(first, len(SCORES[verb]), PROCESSES):
            total.add(sweep(play, index))
    return total


def main() -> int:
    """Sweep all verbs; what is wrong goes to standard error, the counts to standard output."""
    begun = time.monotonic()
    total = Tally()
    with ProcessPoolExecutor(PROCESSES) as pool:
        for tally in pool.map(swept, [(verb, n) for verb in SCORES for n in range(PROCESSES)]):
            total.add(tally)
    for line in [*total.lost, *total.left_over, *total.failed]:
        print(line, file=sys.stderr)  # noqa: T201 - its product
    seconds = round(time.monotonic() - begun, 1)
    print(json.dumps(total.document() | {"seconds": seconds}))  # noqa: T201 - its product
    return 0 if total.clean else 1


if __name__ == "__main__":
    sys.exit(main())
