"""How fast a disk crosses, how much of it, and how long a server's owner is without the server.

- `bulk_vs_ssh`: a disk of random data, by cellmove's two ends and by `ssh src cat | ssh dst cat`,
  both through the bastion with the same cipher; rate as a part of ssh's.
- `sparse_vs_dense`: a disk of 20 GiB with as much in it as the dense one; time as a multiple.
- `second_server_vs_overlay`: all that the target receives for the second server of an image, as a
  multiple of what that server's disk holds beside the image.
- `downtime_overhead_seconds`: a guest that writes 1 MiB a second moves over a link held to 30 MiB a
  second, with little and with much on its disk: from its last heartbeat at the source to its first
  at the target, less the same time of its being shut down and started where it is.
- `downtime_growth`: the second of these as a multiple of the first.
- `downtime_vs_nova`: the first as a part of nova's own, whose link is not held.
- `cpu_seconds_per_gib`: of the dense disk, at each party.
- `conductor_mib`: the most memory that cellmove took, by the data that it moved.

Needs the running lab, as root. What it makes it deletes.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellmove.hosts.disks import Layout, as_user, image_server
from cellmove.hosts.openssh import configuration
from cellmove.hosts.transfer import End, carry
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, conductor_namespace, host_run, received_bytes
from tests.lab.kit.program import Cellmove

SOURCE, TARGET, BASTION = "cmp1a", "cmp2a", "bastion"
LAYOUT = Layout()
MIB, GIB = 1 << 20, 1 << 30
SPARSE_BYTES = 20 * GIB
HELD = "30M"
READY_SECONDS = 300.0
ROUNDS = 3
"""Of the copies, in turns; the fastest counts."""

Seconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much data each measurement has, in MiB."""

    dense: int = 2048
    overlay: int = 256
    downtime: tuple[int, int] = (1024, 8192)


QUICK = Sizes(256, 64, (128, 1024))


@contextmanager
def server_directory() -> Iterator[str]:
    """A directory of no server's on both hosts; its name is a UUID. `ssh` may write there, too."""
    made = str(uuid.uuid4())
    path = LAYOUT.directory(made)
    try:
        for host in (SOURCE, TARGET):
            host_run(host, ["install", "-d", "-o", "nova", "-g", "nova", "-m", "777", path])
        yield made
    finally:
        for host in (SOURCE, TARGET):
            host_run(host, ["rm", "-rf", path])


def crossing(server: str, size_bytes: int, data_mib: int) -> tuple[float, Seconds]:
    """A raw disk with this much random data, spread over it, crosses and is proved.

    Answers seconds, and the processor's seconds of each party.
    """
    disk, half = LAYOUT.disk(server, "disk"), LAYOUT.half(server, "disk")
    step_mib = size_bytes // MIB // data_mib
    fill = (
        f"rm -f {disk} && truncate -s {size_bytes} {disk} && for at in $(seq 0 63); do"
        f" dd if=/dev/urandom of={disk} bs=1M conv=notrunc status=none count={data_mib // 64}"
        f" seek=$((at * {data_mib // 64} * {step_mib})); done && sync"
    )
    host_run(SOURCE, ["sh", "-c", fill])
    host_run(TARGET, ["sh", "-c", f"rm -f {half}; truncate -s {size_bytes} {half}"])
    host_run(TARGET, ["chown", "nova:nova", half])
    cpu, began = _cpu_seconds(), time.monotonic()
    carry(
        _end(SOURCE, server, disk, read_only=True),
        _end(TARGET, server, half, read_only=False),
        _configuration(),
        lambda _done, _total: None,
    )
    took = time.monotonic() - began
    return took, {party: spent - cpu[party] for party, spent in _cpu_seconds().items()}


def ssh_seconds(server: str) -> float:
    """The same disk copied by ssh alone, without any proof: read from disk, and on disk at the end.

    cellmove neither reads nor writes through the page cache.
    """
    disk, half = LAYOUT.disk(server, "disk"), LAYOUT.half(server, "disk")
    host_run(TARGET, ["rm", "-f", half])
    Path("/proc/sys/vm/drop_caches").write_text("1")
    with tempfile.NamedTemporaryFile("w") as config:
        config.write(_configuration())
        config.flush()
        ssh = f"ssh -F {shlex.quote(config.name)}"
        write = shlex.quote(f"cat > {half} && sync {half}")
        began = time.monotonic()
        command = f"set -o pipefail; {ssh} {SOURCE} cat {disk} | {ssh} {TARGET} {write}"
        subprocess.run(["/bin/bash", "-c", command], check=True)
        return time.monotonic() - began


def second_vs_overlay(nova: Nova, flavor: str, overlay_mib: int) -> float:
    """Two stopped servers of one image go to one host: what it receives for the second."""
    ratio = 0.0
    for _ in range(2):
        with (
            nova.lent("bench", SOURCE, flavor, config_drive=False) as server,
            tempfile.TemporaryDirectory() as state,
        ):
            fill(nova, server, overlay_mib)
            blocks = host_run(SOURCE, ["stat", "-c", "%b", LAYOUT.disk(server, "disk")])
            received = received_bytes(TARGET)
            Cellmove(Path(state))("resize", server, "--to-host", TARGET)
            ratio = (received_bytes(TARGET) - received) / (int(blocks) * 512)
    return ratio


def fill(nova: Nova, server: str, data_mib: int) -> None:
    """Stop the server, and write to its root disk behind all that the guest knows of."""
    nova.stop(server)
    parts = [(at, min(512, data_mib - at)) for at in range(0, data_mib, 512)]
    writes = [part for at, mib in parts for part in ("-c", f"write -P 7 {2048 + at}M {mib}M")]
    host_run(SOURCE, ["qemu-io", "-f", "qcow2", *writes, LAYOUT.disk(server, "disk")])


def downtime_overhead_seconds(
    nova: Nova, flavor: str, data_mib: int, move: Callable[[str, Cellmove], object], rounds: int
) -> float:
    """What a move adds to a guest's being shut down and started, the least of some rounds.

    The layer-2 agent looks for new ports every two seconds: a single round is so much by luck.
    """
    with (
        nova.lent("bench", SOURCE, flavor, metadata={"write_mib": "1"}) as server,
        tempfile.TemporaryDirectory() as state,
    ):
        guest, cellmove = GuestWatch.of(nova, server), Cellmove(Path(state))
        guest.wait_ready(SOURCE, since=0, timeout_seconds=READY_SECONDS)
        fill(nova, server, data_mib)
        since = time.time()
        nova.start(server)
        guest.wait_ready(SOURCE, since, READY_SECONDS)
        plain = [silence_seconds(guest, SOURCE, lambda: _restart(server)) for _ in range(3)]
        moved: list[float] = []
        while len(moved) < rounds:
            if moved:
                since = time.time()
                cellmove("revert", server, "--yes")
                guest.wait_ready(SOURCE, since, READY_SECONDS)
            moved.append(silence_seconds(guest, TARGET, lambda: move(server, cellmove)))
        _tell(f"{data_mib} MiB: silent for {_told(moved)} s, {_told(plain)} s when restarted")
        return min(moved) - min(plain)


def _told(seconds: list[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in seconds)


class Cellmoves:
    """Moves by cellmove over a link that is held, and the most memory that one of them took."""

    def __init__(self) -> None:
        self.most_mib = 0

    def __call__(self, server: str, cellmove: Cellmove) -> None:
        process = cellmove.start("resize", server, "--to-host", TARGET, "--bwlimit", HELD)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            peak = [line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line]
            self.most_mib = max(self.most_mib, *(int(kib) // 1024 for kib in peak), 0)
            time.sleep(0.5)
        done = cellmove.wait(process)
        if done.code:
            raise RuntimeError(done.stderr)


def silence_seconds(guest: GuestWatch, ends_on: str, act: Callable[[], object]) -> float:
    """From the last heartbeat of this boot to the first of the next one, heard from that host."""
    begun = time.time()
    boot = guest.wait_heartbeat(SOURCE, begun).boot
    act()
    deadline = time.monotonic() + READY_SECONDS
    while True:  # the log is a little behind
        beats = list(guest.heartbeats(begun))
        if again := [beat.at for beat in beats if beat.boot != boot and beat.host == ends_on]:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"no heartbeat from {ends_on} in {READY_SECONDS:.0f} s")
        time.sleep(0.2)
    guest.wait_told(ends_on, "GUEST ready", READY_SECONDS)  # else it would not obey the next time
    return again[0] - max(beat.at for beat in beats if beat.boot == boot)


def _restart(server: str) -> None:
    """By libvirt alone, as fast as it goes: nova would add its own time.

    Open vSwitch does not always take up a new tap device of an old name, so it is plugged anew.
    """
    taps = host_run(SOURCE, ["virsh", "domiflist", server]).split()
    (tap,) = [word for word in taps if word.startswith("tap")]
    ids = host_run(SOURCE, ["ovs-vsctl", "get", "Interface", tap, "external_ids"]).strip()
    host_run(SOURCE, ["virsh", "shutdown", server])
    while "shut off" not in host_run(SOURCE, ["virsh", "domstate", server]):
        time.sleep(0.05)
    plug = ["add-port", "br-int", tap, "--", "set", "Interface", tap, f"external_ids={ids}"]
    host_run(SOURCE, ["ovs-vsctl", "del-port", "br-int", tap])  # not in one go with the other
    host_run(SOURCE, ["ovs-vsctl", *plug])
    host_run(SOURCE, ["virsh", "start", server])


@contextmanager
def big_flavor(disk_gb: int) -> Iterator[str]:
    """A flavor with room for the data."""
    compute = lab_session().service("compute", "2.90")
    name = f"bench-{uuid.uuid4().hex[:8]}"
    body = {"flavor": {"name": name, "ram": 128, "vcpus": 1, "disk": disk_gb}}
    made = compute.send("POST", "/flavors", body).body["flavor"]["id"]
    try:
        yield name
    finally:
        compute.send("DELETE", f"/flavors/{made}")


def copies(sizes: Sizes) -> dict[str, object]:
    """The figures of disks that belong to no server."""
    took: dict[str, list[float]] = {"dense": [], "ssh": [], "sparse": []}
    with server_directory() as server:
        for _ in range(ROUNDS):
            seconds, cpu = crossing(server, sizes.dense * MIB, sizes.dense)
            took["dense"].append(seconds)
            took["ssh"].append(ssh_seconds(server))
            took["sparse"].append(crossing(server, SPARSE_BYTES, sizes.dense)[0])
    _tell("; ".join(f"{name} {_told(each)} s" for name, each in took.items()))
    dense, ssh, sparse = (min(each) for each in took.values())
    return {
        "bulk_vs_ssh": round(ssh / dense, 2),
        "sparse_vs_dense": round(sparse / dense, 2),
        "cpu_seconds_per_gib": {
            party: round(spent * 1024 / sizes.dense, 1) for party, spent in cpu.items()
        },
    }


def moves(sizes: Sizes) -> dict[str, object]:
    """The figures of servers that are moved."""
    little, much = sizes.downtime
    memory, overhead = {}, {}
    with big_flavor(3 + much // 1024) as flavor:
        nova = Nova(lab_session(project="demo"))
        second = second_vs_overlay(nova, flavor, sizes.overlay)
        _tell(f"second server of an image: {second:.3f} of its overlay")
        for mib in sizes.downtime:
            ours = Cellmoves()
            overhead[mib] = downtime_overhead_seconds(nova, flavor, mib, ours, rounds=2)
            memory[mib] = ours.most_mib

        def by_nova(server: str, _: Cellmove) -> None:
            nova.migrate(server, TARGET)

        novas = downtime_overhead_seconds(nova, flavor, little, by_nova, rounds=1)
    return {
        "second_server_vs_overlay": round(second, 3),
        "downtime_overhead_seconds": {mib: round(took, 1) for mib, took in overhead.items()},
        "downtime_growth": round(overhead[much] / overhead[little], 2),
        "downtime_vs_nova": round(overhead[little] / novas, 2),
        "conductor_mib": memory,
    }


def _tell(line: str) -> None:
    """What is known so far: the whole takes half an hour."""
    print(line, file=sys.stderr, flush=True)


def _cpu_seconds() -> Seconds:
    """What each party has spent so far on what is over: ssh's own, and all under each sshd.

    A process whose parent does not wait for it is counted with the first one of its host.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {"conductor": children.ru_utime + children.ru_stime}
    time.sleep(1)  # what has ended is counted when somebody has noticed
    ticks = (
        'awk "{sum += \\$14 + \\$15 + \\$16 + \\$17} END {print sum}"'
        ' /proc/1/stat /proc/$(pgrep -of "sshd.*listener")/stat'
    )
    for host in (SOURCE, BASTION, TARGET):
        spent[host] = int(host_run(host, ["sh", "-c", ticks])) / 100
    return spent


def _end(host: str, server: str, path: str, *, read_only: bool) -> End:
    socket = LAYOUT.socket(server, "disk")
    return End(
        host, socket, as_user("nova", image_server(path, "raw", socket, read_only=read_only))
    )


def _configuration() -> str:
    return configuration(str(OUTPUTS / "ssh_config"), BASTION)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="an eighth of the data")
    parser.add_argument("--copies", action="store_true", help="only what needs no server")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    with conductor_namespace():
        found = copies(sizes) | ({} if options.copies else moves(sizes))
    if options.json:
        print(json.dumps({"benchmark": "disks", **found}))
        return
    for name, figure in found.items():
        told = figure if isinstance(figure, dict) else {"": figure}
        print(f"{name:26}", ", ".join(f"{key} {value}".strip() for key, value in told.items()))


if __name__ == "__main__":
    main()
