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
- `conductor_mib`: the most memory that any program on the conductor's side took, by data moved.

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
from cellmove.hosts.transfer import End, carry, configuration
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, conductor_namespace, host_run
from tests.lab.kit.program import Cellmove

SOURCE, TARGET, BASTION = "cmp1a", "cmp2a", "bastion"
LAYOUT = Layout()
MIB, GIB = 1 << 20, 1 << 30
SPARSE_BYTES = 20 * GIB
HELD = "30M"
READY_SECONDS = 300.0

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
    """A directory of no server's on both hosts; its name is a UUID."""
    made = str(uuid.uuid4())
    path = LAYOUT.directory(made)
    try:
        for host in (SOURCE, TARGET):
            host_run(host, ["install", "-d", "-o", "nova", "-g", "nova", path])
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
        f"truncate -s {size_bytes} {disk} && for at in $(seq 0 63); do dd if=/dev/urandom"
        f" of={disk} bs=1M conv=notrunc status=none count={data_mib // 64}"
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
    """The same disk by ssh alone, written nowhere and without any proof."""
    with tempfile.NamedTemporaryFile("w") as config:
        config.write(_configuration())
        config.flush()
        ssh = f"ssh -F {shlex.quote(config.name)}"
        read = f"{ssh} {SOURCE} cat {LAYOUT.disk(server, 'disk')}"
        began = time.monotonic()
        command = f"set -o pipefail; {read} | {ssh} {TARGET} 'cat > /dev/null'"
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
            received = _received_bytes()
            Cellmove(Path(state))("resize", server, "--to-host", TARGET)
            ratio = (_received_bytes() - received) / (int(blocks) * 512)
    return ratio


def fill(nova: Nova, server: str, data_mib: int) -> None:
    """Stop the server, and write to its root disk behind all that the guest knows of."""
    nova.stop(server)
    parts = [(at, min(512, data_mib - at)) for at in range(0, data_mib, 512)]
    writes = [part for at, mib in parts for part in ("-c", f"write -P 7 {2048 + at}M {mib}M")]
    host_run(SOURCE, ["qemu-io", "-f", "qcow2", *writes, LAYOUT.disk(server, "disk")])


def downtime_overhead_seconds(nova: Nova, flavor: str, data_mib: int, mover: str) -> float:
    """What a move by `nova` or `cellmove` adds to a guest's being shut down and started."""
    busy = {"write_mib": "1"}
    with (
        nova.lent("bench", SOURCE, flavor, metadata=busy) as server,
        tempfile.TemporaryDirectory() as state,
    ):
        guest = GuestWatch.of(nova, server)
        guest.wait_ready(SOURCE, since=0, timeout_seconds=READY_SECONDS)
        fill(nova, server, data_mib)
        since = time.time()
        nova.start(server)
        guest.wait_ready(SOURCE, since, READY_SECONDS)
        plain = min(silence_seconds(guest, SOURCE, lambda: _restart(server)) for _ in range(2))
        ways: dict[str, Callable[[], object]] = {
            "nova": lambda: nova.migrate(server, TARGET),
            "cellmove": lambda: Cellmove(Path(state))(
                "resize", server, "--to-host", TARGET, "--bwlimit", HELD, timeout_seconds=1800
            ),
        }
        return silence_seconds(guest, TARGET, ways[mover]) - plain


def silence_seconds(guest: GuestWatch, ends_on: str, act: Callable[[], object]) -> float:
    """From the last heartbeat of this boot to the first of the next one."""
    begun = time.time()
    time.sleep(1)
    act()
    guest.wait_ready(ends_on, begun + 1, READY_SECONDS)
    boot = next(guest.heartbeats(begun)).boot
    while not (again := [each.at for each in guest.heartbeats(begun) if each.boot != boot]):
        time.sleep(0.2)  # the log is a little behind
    return again[0] - max(each.at for each in guest.heartbeats(begun) if each.boot == boot)


def _restart(server: str) -> None:
    """By libvirt alone, as fast as it goes: nova would add its own time."""
    host_run(SOURCE, ["virsh", "shutdown", server])
    while "shut off" not in host_run(SOURCE, ["virsh", "domstate", server]):
        time.sleep(0.05)
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


def measure(sizes: Sizes) -> dict[str, object]:
    """All figures."""
    with server_directory() as server:
        dense, cpu = crossing(server, sizes.dense * MIB, sizes.dense)
        ssh = ssh_seconds(server)
        sparse, _ = crossing(server, SPARSE_BYTES, sizes.dense)
    little, much = sizes.downtime
    memory = {}
    with big_flavor(3 + much // 1024) as flavor:
        nova = Nova(lab_session(project="demo"))
        second = second_vs_overlay(nova, flavor, sizes.overlay)
        overhead = {}
        for mib in sizes.downtime:
            overhead[mib] = downtime_overhead_seconds(nova, flavor, mib, "cellmove")
            memory[mib] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        novas = downtime_overhead_seconds(nova, flavor, little, "nova")
    return {
        "bulk_vs_ssh": round(ssh / dense, 2),
        "sparse_vs_dense": round(sparse / dense, 2),
        "second_server_vs_overlay": round(second, 3),
        "downtime_overhead_seconds": {mib: round(took, 1) for mib, took in overhead.items()},
        "downtime_growth": round(overhead[much] / overhead[little], 2),
        "downtime_vs_nova": round(overhead[little] / novas, 2),
        "cpu_seconds_per_gib": {
            party: round(spent * 1024 / sizes.dense, 1) for party, spent in cpu.items()
        },
        "conductor_mib": memory,
        "seconds": {
            name: round(took, 1)
            for name, took in (("dense", dense), ("ssh", ssh), ("sparse", sparse), ("nova", novas))
        },
    }


def _cpu_seconds() -> Seconds:
    """What each party has spent so far on what is over: ssh's own, and all under each sshd."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {"conductor": children.ru_utime + children.ru_stime}
    ticks = 'awk "{print \\$14 + \\$15 + \\$16 + \\$17}" /proc/$(pgrep -of "sshd.*listener")/stat'
    for host in (SOURCE, BASTION, TARGET):
        spent[host] = int(host_run(host, ["sh", "-c", ticks])) / 100
    return spent


def _received_bytes() -> int:
    """All that has come to the target so far on the management network."""
    (link,) = json.loads(host_run(TARGET, ["ip", "-s", "-j", "link", "show", "eth0"]))
    return int(link["stats64"]["rx"]["bytes"])


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
    options = parser.parse_args()
    with conductor_namespace():
        found = measure(QUICK if options.quick else Sizes())
    if options.json:
        print(json.dumps({"benchmark": "disks", **found}))
        return
    for name, figure in found.items():
        told = figure if isinstance(figure, dict) else {"": figure}
        print(f"{name:26}", ", ".join(f"{key} {value}".strip() for key, value in told.items()))


if __name__ == "__main__":
    main()
