"""How long a move without any copy takes, as a multiple of nova's own on the same lab.

One running server that boots from a volume is moved to the other cell by nova and by cellmove in
turns: to VERIFY_RESIZE, back (revert), there again, and confirmed. There is no disk to copy, so
what is measured is the control of it. cellmove's times are those of the whole program, from its
start to its end; nova's are from the request to the state that its API shows, looked at every 0.3
s. The fastest and the mean of each are told. nova's services sign in to Keystone once and then
keep their tokens; so does cellmove here, as clouds.yaml may say (`cache: auth: true`). With
`--anew` each of its commands signs in with passwords.

Both wait for the layer-2 agent of the target, which looks every two seconds. So that luck favours
neither, both begin at the same moments of its beat, and, with an even number of rounds, move as
often in both directions. Needs the running lab, as root.

cellmove's modules are compiled before, as those of an installed program are.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import conductor_namespace
from tests.lab.kit.program import Cellmove, KeepingTokens
from tests.lab.kit.volumes import from_image

HOSTS = ("cmp1a", "cmp2a")
VERBS = ("resize", "revert", "confirm")
SETTLING_SECONDS = 3.0
"""Between two measurements, so that nova's last word on a port falls into neither."""
AGENT_SECONDS = 2.0
"""Between two looks of the layer-2 agent (Neutron's `polling_interval`)."""
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, taken modulo one, spread evenly at any number of them."""


@dataclass(slots=True)
class Bench:
    """The server, and what was measured of it."""

    nova: Nova
    guest: GuestWatch
    cellmove: Cellmove
    host: str
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    _begun: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def round(self, by: str) -> None:
        """All three verbs by `nova` or by `cellmove`; the server ends on the other host."""
        target = HOSTS[self.host == HOSTS[0]]
        self._timed(by, "resize", target)
        self._timed(by, "revert", self.host)
        self._timed(by, "resize", target)
        self._timed(by, "confirm", target)
        self.host = target

    def _timed(self, by: str, verb: str, ends_on: str) -> None:
        time.sleep(SETTLING_SECONDS)
        self._await_moment(by, verb, ends_on)
        doing = self._by_nova(verb, ends_on) if by == "nova" else self._by_cellmove(verb, ends_on)
        since, began = time.time(), time.perf_counter()
        doing()
        took = time.perf_counter() - began
        self.seconds.setdefault(by, {}).setdefault(verb, []).append(took)
        if verb != "confirm":
            self.nova.wait_port(self.guest.server, ends_on)
            self.guest.wait_ready(ends_on, since, timeout_seconds=300)

    def _await_moment(self, *of: str) -> None:
        """Wait for the next moment of this verb; however many there are, they spread evenly."""
        moment = AGENT_SECONDS * (self._begun[of] * GOLDEN % 1)
        self._begun[of] += 1
        time.sleep((moment - time.time()) % AGENT_SECONDS)

    def _by_nova(self, verb: str, host: str) -> Callable[[], object]:
        server = self.guest.server
        return {
            "resize": lambda: self.nova.migrate(server, host),
            "revert": lambda: self.nova.revert(server),
            "confirm": lambda: self.nova.confirm(server),
        }[verb]

    def _by_cellmove(self, verb: str, host: str) -> Callable[[], None]:
        more = ("--to-host", host) if verb == "resize" else ("--yes",)

        def run() -> None:
            self.cellmove(verb, self.guest.server, *more)

        return run


@contextmanager
def bench(*, anew: bool) -> Iterator[Bench]:
    """A running server whose root disk is a volume, gone with the volume when the block ends."""
    nova = Nova(lab_session(project="demo"))
    more = from_image(nova)
    with (
        tempfile.TemporaryDirectory() as state,
        nova.lent("control", HOSTS[0], config_drive=False, more=more) as server,
    ):
        guest = GuestWatch.of(nova, server)
        nova.wait_port(server, HOSTS[0])
        guest.wait_ready(HOSTS[0], since=0, timeout_seconds=300)
        cellmove = Cellmove(Path(state)) if anew else KeepingTokens(Path(state))
        yield Bench(nova, guest, cellmove, HOSTS[0])


@dataclass(frozen=True, slots=True)
class Found:
    """What each verb took by each of the two, and cellmove's as a part of nova's."""

    rounds: int
    tokens: str
    """Of cellmove's commands: `kept` for the next one, or `anew`."""
    seconds: dict[str, dict[str, float]]
    """The fastest."""
    ratios: dict[str, float]
    mean_seconds: dict[str, dict[str, float]]
    """Over all moments of the agent's beat: what an operator waits on average."""
    mean_ratios: dict[str, float]


def measure(rounds: int, *, anew: bool) -> Found:
    """Both in turns; who begins changes with each, so that both move in both directions."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(Path(__file__).resolve().parents[1] / "cellmove", quiet=1)
    with conductor_namespace(), bench(anew=anew) as on:
        for number in range(rounds):
            for by in ("cellmove", "nova") if number % 2 else ("nova", "cellmove"):
                on.round(by)
    seconds, ratios = _compared(on.seconds, min)
    return Found(rounds, "anew" if anew else "kept", seconds, ratios, *_compared(on.seconds, fmean))


def _compared(
    measured: Mapping[str, Mapping[str, Sequence[float]]], of: Callable[[Sequence[float]], float]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """One time for each verb by each of the two, and the ratios of these."""
    exact = {by: {verb: of(verbs[verb]) for verb in VERBS} for by, verbs in measured.items()}
    ratios = {verb: round(exact["cellmove"][verb] / exact["nova"][verb], 2) for verb in VERBS}
    seconds = {
        by: {verb: round(took, 2) for verb, took in verbs.items()} for by, verbs in exact.items()
    }
    return seconds, ratios


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each (default 4)")
    parser.add_argument("--anew", action="store_true", help="sign in anew for each command")
    options = parser.parse_args(argv)
    found = measure(options.rounds, anew=options.anew)
    if options.json:
        print(json.dumps({"benchmark": "control", **asdict(found)}))
        return
    print("           nova  cellmove  ratio   means: nova  cellmove  ratio")
    for verb in VERBS:
        nova, ours = (found.seconds[by][verb] for by in ("nova", "cellmove"))
        row = f"{verb:8} {nova:5.1f} s {ours:7.1f} s  {found.ratios[verb]:5.2f}"
        nova, ours = (found.mean_seconds[by][verb] for by in ("nova", "cellmove"))
        print(f"{row} {nova:11.1f} s {ours:7.1f} s  {found.mean_ratios[verb]:5.2f}")


if __name__ == "__main__":
    main()
