"""Nova's own cross-cell migration and cellmove's: what each takes, and what survives it.

Two like servers of each kind go from one cell to the other, one by nova and one by cellmove, one
after the other; then the target's disk is full in mid-move. `--out` writes the tables that
docs/compared.rst shows. Needs the running lab, as root; what it makes it deletes.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellmove.services.session import Session
from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import conductor_namespace, host_run
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import rows, traces
from tests.lab.kit.volumes import RECORD, from_image

SOURCE, TARGET = "cmp1a", "cmp2a"
TARGET_CELL = "cell2.nova_cell2"
MARK = "what the customer once injected"
FILL_MIB = 256
READY_SECONDS = 300.0
SETTLING_SECONDS = 60.0

KINDS = ("image", "volume")
MOVERS = ("nova", "cellmove")
FIGURES = (
    ("resize_seconds", "until it can be confirmed", "s"),
    ("silent_seconds", "silent", "s"),
    ("confirm_seconds", "confirm", "s"),
    ("crossed_mib", "crossed", "MiB"),
)
YES = {True: "yes", False: "no"}

Row = tuple[str, ...]


@dataclass(slots=True)
class Moved:
    """One move of one server, as its owner and its operator saw it."""

    kind: str
    by: str
    resize_seconds: float = 0.0
    confirm_seconds: float = 0.0
    silent_seconds: float = 0.0
    """The longest time without a heartbeat, its shutting down and booting included."""
    crossed_mib: float = 0.0
    """What both hypervisors sent and received until the server could be confirmed."""
    survives: dict[str, bool] = field(default_factory=dict)


@dataclass(slots=True)
class Failed:
    """A move whose target had no room, some time after it was over."""

    by: str
    status: str
    runs: bool
    """Whether the guest is heard again."""
    left: list[str]
    """What there is of the server anywhere that was not there before."""


@dataclass(slots=True)
class Lab:
    """Both movers, and the lab that they move in."""

    session: Session
    nova: Nova
    cellmove: Cellmove
    key: str

    @contextmanager
    def server(self, kind: str) -> Iterator[GuestWatch]:
        """A running server of this kind at the source, deleted when the block ends."""
        server = self._with_all() if kind == "image" else self._from_volume()
        try:
            self.nova.wait_port(server, SOURCE)
            guest = GuestWatch.of(self.nova, server)
            guest.wait_ready(SOURCE, 0, READY_SECONDS)
            if kind == "image":
                guest.wait_told(SOURCE, "fill done", READY_SECONDS)
            yield guest
        finally:
            self.nova.discard(server)

    def _with_all(self) -> str:
        """Ephemeral disk, config drive with an injected file, key pair."""
        more = {
            "imageRef": self.nova.image("tiny"),
            "flavorRef": self.nova.flavor("e1"),
            "key_name": self.key,
            "metadata": {"fill_mib": str(FILL_MIB)},
        }
        return self.nova.boot_injected("compare", SOURCE, {"/etc/motd": MARK}, more)

    def _from_volume(self) -> str:
        more = from_image(self.nova) | {"key_name": self.key}
        return self.nova.boot("compare", SOURCE, config_drive=False, more=more)

    def by_nova(self, server: str, host: str) -> int:
        """Nova's own, until it is over, well or not."""
        return int(self.nova.migrate(server, host, "ERROR", "ACTIVE") != "VERIFY_RESIZE")

    def by_cellmove(self, server: str, host: str) -> int:
        """The whole program."""
        return self.cellmove("resize", server, "--to-host", host, check=False).code


@contextmanager
def lab() -> Iterator[Lab]:
    """The lab, with a key pair of ours."""
    session = lab_session(project="demo")
    compute = session.service("compute", "2.90")
    key = f"compare-{uuid.uuid4().hex[:8]}"
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqfVpXq0pHP4fVnJ7j1zJm9kqVqY3Z1c1mG9H4aQ0bT"
    compute.send("POST", "/os-keypairs", {"keypair": {"name": key, "public_key": public}})
    try:
        with tempfile.TemporaryDirectory() as state:
            yield Lab(session, Nova(session), Cellmove(Path(state)), key)
    finally:
        compute.send("DELETE", f"/os-keypairs/{key}")


def moved(on: Lab, kind: str, by: str) -> Moved:
    """A server of this kind goes across and is confirmed."""
    found = Moved(kind, by)
    move = {"nova": on.by_nova, "cellmove": on.by_cellmove}[by]
    with on.server(kind) as guest:
        time.sleep(5)  # a few records on each disk
        before = seen(on, guest)
        crossed, begun = _crossed_bytes(), time.time()
        if move(guest.server, TARGET) != 0:
            raise SystemExit(f"{by} did not move a server of kind {kind}")
        found.resize_seconds = round(time.time() - begun, 1)
        found.crossed_mib = round((_crossed_bytes() - crossed) / (1 << 20), 1)
        guest.wait_ready(TARGET, begun, READY_SECONDS)
        found.silent_seconds = round(guest.longest_silence_seconds(begun - 5), 1)
        asked = time.time()
        if by == "nova":
            on.nova.confirm(guest.server)
        else:
            on.cellmove("confirm", guest.server, "--yes")
        found.confirm_seconds = round(time.time() - asked, 1)
        found.survives = survives(on, kind, guest, before)
    return found


def seen(on: Lab, guest: GuestWatch) -> dict[str, Any]:
    """What its owner sees of the server through nova's API."""
    shown = on.nova.show(guest.server)
    times = {name: shown[name] for name in ("created", "OS-SRV-USG:launched_at", "key_name")}
    return times | {"actions": [each["request_id"] for each in on.nova.actions(guest.server)]}


def survives(on: Lab, kind: str, guest: GuestWatch, before: Mapping[str, Any]) -> dict[str, bool]:
    """What is there after the move of what was there before."""
    after = seen(on, guest)
    extra = rows(TARGET_CELL, "instance_extra", f"instance_uuid = '{guest.server}'")
    found = {
        "root disk": (guest.record_found(TARGET) or 0) > 0 and guest.golden(TARGET),
        "key pair": on.key in str(extra[0]["keypairs"]),
        "actions": set(before["actions"]) <= set(after["actions"]),
        "time of creation": before["created"] == after["created"],
        "time of launch": before["OS-SRV-USG:launched_at"] == after["OS-SRV-USG:launched_at"],
    }
    if kind == "image":
        last_boot = guest.console(TARGET).rpartition("GUEST boots so far")[2]
        drive = str(INSTANCES / guest.server / "disk.config")
        injected = host_run(TARGET, ["grep", "-c", "-a", MARK, drive], check=False)
        found["ephemeral disk"] = any(number for _, number in RECORD.findall(last_boot))
        found["injected file"] = injected.strip() not in ("", "0")
    return found


def failed(on: Lab, by: str) -> Failed:
    """The target has no room for the disks: what becomes of the server."""
    with on.server("image") as guest:
        before = set(traces(guest.server))
        begun = time.time()
        with no_room(guest.server):
            {"nova": on.by_nova, "cellmove": on.by_cellmove}[by](guest.server, TARGET)
        over = time.time()
        runs = _heard_again(guest, begun, over)
        status = on.nova.status(guest.server)
        return Failed(by, status, runs, sorted(set(traces(guest.server)) - before))


@contextmanager
def no_room(server: str) -> Iterator[None]:
    """The target's file system for this server is as good as full."""
    folder = str(INSTANCES / server)
    options = "size=64k,uid=$(id -u nova),gid=$(id -g nova),mode=0755"
    mount = f'mkdir -p "$1" && mount -t tmpfs -o "{options}" tmpfs "$1"'
    host_run(TARGET, ["sh", "-c", mount, "sh", folder])
    try:
        yield
    finally:
        host_run(TARGET, ["umount", "--lazy", folder], check=False)
        host_run(TARGET, ["sh", "-c", 'rmdir "$1" 2>/dev/null; true', "sh", folder])


def _heard_again(guest: GuestWatch, begun: float, over: float) -> bool:
    deadline = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline:
        if any(beat.at > over for beat in guest.heartbeats(begun)):
            return True
        time.sleep(1)
    return False


def _crossed_bytes() -> int:
    """What both hypervisors have sent and received so far on the management network."""
    total = 0
    for host in (SOURCE, TARGET):
        (link,) = json.loads(host_run(host, ["ip", "-s", "-j", "link", "show", "eth0"]))
        total += sum(int(link["stats64"][way]["bytes"]) for way in ("rx", "tx"))
    return total


def measure() -> dict[str, Any]:
    """All of it, nova first."""
    with conductor_namespace(), lab() as on:
        moves = [moved(on, kind, by) for kind in KINDS for by in MOVERS]
        failures = [failed(on, by) for by in MOVERS]
    return {
        "benchmark": "compare",
        "fill_mib": FILL_MIB,
        "moves": [asdict(each) for each in moves],
        "failures": [asdict(each) for each in failures],
    }


def tables(found: Mapping[str, Any]) -> dict[str, list[Row]]:
    """What was measured, in words: name of a table -> its lines, nova's cell before ours."""
    moves = {(each["kind"], each["by"]): each for each in found["moves"]}
    failures = {each["by"]: each for each in found["failures"]}
    figures: list[Row] = []
    survival: list[Row] = []
    for kind in KINDS:
        two = [moves[kind, by] for by in MOVERS]
        for key, words, unit in FIGURES:
            figures.append((f"{kind}: {words}", *(f"{each[key]:.1f} {unit}" for each in two)))
        survival.extend(
            (f"{kind}: {what}", *(YES[each["survives"][what]] for each in two))
            for what in two[0]["survives"]
        )
    two = [failures[by] for by in MOVERS]
    failing: list[Row] = [
        ("the server is", *(each["status"] for each in two)),
        ("the guest runs", *(YES[each["runs"]] for each in two)),
        ("left over", *("; ".join(map(_anonymous, each["left"])) or "nothing" for each in two)),
    ]
    return {"figures": figures, "survives": survival, "fails": failing}


def _anonymous(trace: str) -> str:
    """A trace without the ids of this run."""
    return " ".join("..." if word.count("-") == 4 else word for word in trace.split())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, help="write the tables of the documentation there")
    options = parser.parse_args(argv)
    found = measure()
    told = tables(found)
    for name, lines in told.items() if options.out else ():
        with (options.out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    if options.json:
        print(json.dumps(found))
        return
    for lines in told.values():
        for what, nova, ours in [("", "nova", "cellmove"), *lines]:
            print(f"{what:36} {nova:24} {ours}")


if __name__ == "__main__":
    main()
