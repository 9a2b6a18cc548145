"""What a lab guest tells from inside: records on its root disk, and heartbeats on the wire."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.lab.kit.nova import Nova
from tests.lab.kit.places import STATE, host_run

HEARTBEATS = STATE / "log" / "heartbeat.log"
INSTANCES = Path("/var/lib/nova/instances")
LAST_RECORD = re.compile(r"GUEST /data/records last record: (?:RECORD (\d+) |none)")
WORD = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One heartbeat as it was heard on the tenant wire, ten a second and guest."""

    at: float
    """Epoch seconds."""
    host: str
    """The hypervisor at whose port it was heard."""
    boot: str
    """Id of the guest's boot: another one means that it was started anew."""
    count: int


@dataclass(frozen=True, slots=True)
class GuestWatch:
    """One guest, by the uuid of its server and the MAC of its first port."""

    server: str
    mac: str

    @classmethod
    def of(cls, nova: Nova, server: str) -> GuestWatch:
        return cls(server, nova.ports(server)[0]["mac_address"])

    def console(self, host: str) -> str:
        """The console's output since the guest was started on this host."""
        return host_run(host, ["cat", str(INSTANCES / self.server / "console.log")])

    def record_found(self, host: str) -> int | None:
        """Number of the record that the guest found last on its root disk at its last boot.

        None: it found none, so the disk is a new one. The guest writes a record a second.
        """
        found = LAST_RECORD.findall(self.console(host))
        assert found, f"guest {self.server} has not told its last record on {host}"
        return int(found[-1]) if found[-1] else None

    def golden(self, host: str) -> bool:
        """Whether the guest found its golden file unchanged at its last boot."""
        told: list[str] = re.findall(r"GUEST golden file (OK|BAD)", self.console(host))
        return bool(told) and told[-1] == "OK"

    def filled(self, host: str) -> bool:
        """Whether the guest finds the random content that it once wrote unchanged at this boot."""
        self.wait_told(host, "GUEST fill ")
        told: list[str] = re.findall(r"GUEST fill (OK|BAD)", self.console(host))
        return bool(told) and told[-1] == "OK"

    def wait_told(self, host: str, words: str, timeout_seconds: float = 90) -> None:
        """Wait until the guest has said this on its console since it was started there."""
        deadline = time.monotonic() + timeout_seconds
        while words not in self.console(host).rpartition("GUEST boots so far")[2]:
            if time.monotonic() > deadline:
                pytest.fail(f"guest {self.server} does not say {words!r}: {self.console(host)}")
            time.sleep(0.5)

    def heartbeats(self, since: float = 0) -> Iterator[Heartbeat]:
        """All heartbeats since then, oldest first."""
        with HEARTBEATS.open(errors="replace") as log:
            for line in log:
                if f"mac={self.mac} " not in line or not line.endswith("\n"):
                    continue
                at, host, *_ = line.split(maxsplit=2)
                if float(at) >= since:
                    words = dict(WORD.findall(line))
                    yield Heartbeat(float(at), host, words["boot"], int(words["count"]))

    def wait_heartbeat(self, host: str, since: float, timeout_seconds: float = 90) -> Heartbeat:
        """The first heartbeat since then that comes from this host."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            for beat in self.heartbeats(since):
                if beat.host == host:
                    return beat
            if time.monotonic() > deadline:
                pytest.fail(f"no heartbeat of {self.mac} from {host} in {timeout_seconds:.0f} s")
            time.sleep(0.5)

    def wait_ready(self, host: str, since: float, timeout_seconds: float = 90) -> Heartbeat:
        """Wait until a guest started since then on this host obeys the power button.

        Before that, nova's stop takes 20 s and its soft reboot two minutes.
        """
        beat = self.wait_heartbeat(host, since, timeout_seconds)
        self.wait_told(host, "GUEST ready", timeout_seconds)
        return beat

    def longest_silence_seconds(self, since: float) -> float:
        """The longest time without a heartbeat: what the owner felt."""
        times = [beat.at for beat in self.heartbeats(since)]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def heard_from(self, since: float) -> set[str]:
        """All hypervisors that the guest was heard from: one, unless it moved or runs twice."""
        return {beat.host for beat in self.heartbeats(since)}
