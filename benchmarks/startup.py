"""How soon `cellmove --help` answers, as a multiple of `python -c "import click"`.

Both are measured in turns in the same run, the fastest of each counts: the ratio says the same on a
slow or busy machine, the seconds do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BOUND_SECONDS = 0.25
HELP = (str(Path(sys.executable).with_name("cellmove")), "--help")
CLICK = (sys.executable, "-c", "import click")


def seconds(argv: Sequence[str]) -> float:
    """Wall-clock time of one run."""
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def measure(rounds: int) -> dict[str, float]:
    """The fastest of each."""
    pairs = [(seconds(HELP), seconds(CLICK)) for _ in range(rounds)]
    of_help, of_click = (min(column) for column in zip(*pairs, strict=True))
    return {
        "help_seconds": round(of_help, 4),
        "click_seconds": round(of_click, 4),
        "ratio": round(of_help / of_click, 2),
        "bound_seconds": BOUND_SECONDS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=10, help="runs of each (default 10)")
    options = parser.parse_args()
    found = measure(options.rounds)
    if options.json:
        print(json.dumps({"benchmark": "startup", **found}))
    else:
        print(
            f"cellmove --help: {found['help_seconds'] * 1000:.0f} ms, "
            f"{found['ratio']:.2f} times `import click` (bound {BOUND_SECONDS * 1000:.0f} ms)"
        )


if __name__ == "__main__":
    main()
