"""How fast a disk crosses, as a multiple of what ssh alone makes, and what a server's owner feels.

- `bulk_vs_ssh`: a disk of random data, by cellmove's two ends and by `ssh src cat | ssh dst cat`,
  both through the bastion with the same cipher; rate as a part of ssh's.
- `sparse_vs_dense`: a disk of 20 GiB with as much in it as the dense one; time as a multiple.
- `downtime_seconds`: a running guest moves with little and with much on its ephemeral disk, its
  root disk being written all the time; from the guest being off to its running at the target.
  Shutting down and booting are not in it: they are the guest's own.
- `downtime_growth`: the second of these as a multiple of the first.

Needs the running lab, as root. What it makes it deletes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cellmove.hosts.disks import Layout, as_user, image_server
from cellmove.hosts.transfer import End, carry, configuration
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, conductor_namespace, host_run
from tests.lab.kit.program import Cellmove

SOURCE, TARGET = "cmp1a", "cmp2a"
LAYOUT = Layout()
MIB = 1 << 20
SPARSE_BYTES = 20 << 30


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


def crossing_seconds(server: str, size_bytes: int, data_mib: int) -> float:
    """A raw disk with this much random data, spread over it, crosses and is proved."""
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
    began = time.monotonic()
    carry(
        _end(SOURCE, server, disk, read_only=True),
        _end(TARGET, server, half, read_only=False),
        _configuration(),
        lambda _done, _total: None,
    )
    return time.monotonic() - began


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


def downtime_seconds(nova: Nova, flavor: str, data_mib: int) -> float:
    """From the guest being off at the source to its running at the target."""
    with nova.lent("bench", SOURCE, flavor) as server, tempfile.TemporaryDirectory() as state:
        guest = GuestWatch.of(nova, server)
        guest.wait_ready(SOURCE, since=0)
        nova.stop(server)
        path = LAYOUT.disk(server, "disk.eph0")
        write = ["-c", f"write -P 7 1G {data_mib}M"]
        host_run(SOURCE, ["qemu-io", "-f", "qcow2", *write, path])
        since = time.time()
        nova.start(server)
        guest.wait_ready(SOURCE, since)
        cellmove = Cellmove(Path(state))
        cellmove("resize", server, "--to-host", TARGET)
        with closing(sqlite3.connect(cellmove.journal)) as journal:
            query = "SELECT step, at FROM events WHERE mark = 'done'"
            at = {step: datetime.fromisoformat(when) for step, when in journal.execute(query)}
        return (at["start-target-guest"] - at["stop-source-guest"]).total_seconds()


@contextmanager
def big_flavor(ephemeral_gb: int) -> Iterator[str]:
    """A flavor with room for the data."""
    compute = lab_session().service("compute", "2.90")
    name = f"bench-{uuid.uuid4().hex[:8]}"
    wish = {"name": name, "ram": 128, "vcpus": 1, "disk": 2}
    body = {"flavor": {**wish, "OS-FLV-EXT-DATA:ephemeral": ephemeral_gb}}
    made = compute.send("POST", "/flavors", body).body["flavor"]["id"]
    try:
        yield name
    finally:
        compute.send("DELETE", f"/flavors/{made}")


def measure(dense_mib: int, downtime_mib: tuple[int, int]) -> dict[str, object]:
    """All figures."""
    with server_directory() as server:
        dense = crossing_seconds(server, dense_mib * MIB, dense_mib)
        ssh = ssh_seconds(server)
        sparse = crossing_seconds(server, SPARSE_BYTES, dense_mib)
    with big_flavor(2 + max(downtime_mib) // 1024) as flavor:
        nova = Nova(lab_session(project="demo"))
        little, much = (downtime_seconds(nova, flavor, mib) for mib in downtime_mib)
    return {
        "bulk_vs_ssh": round(ssh / dense, 2),
        "sparse_vs_dense": round(sparse / dense, 2),
        "downtime_seconds": {str(downtime_mib[0]): little, str(downtime_mib[1]): much},
        "downtime_growth": round(much / little, 2),
        "seconds": {"dense": dense, "ssh": ssh, "sparse": sparse},
        "mib": {"dense": dense_mib, "downtime": list(downtime_mib)},
    }


def _end(host: str, server: str, path: str, *, read_only: bool) -> End:
    socket = LAYOUT.socket(server, "disk")
    return End(
        host, socket, as_user("nova", image_server(path, "raw", socket, read_only=read_only))
    )


def _configuration() -> str:
    return configuration(str(OUTPUTS / "ssh_config"), "bastion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="an eighth of the data")
    options = parser.parse_args()
    sizes = (256, (128, 1024)) if options.quick else (2048, (1024, 8192))
    with conductor_namespace():
        found = measure(*sizes)
    if options.json:
        print(json.dumps({"benchmark": "disks", **found}))
        return
    for name in ("bulk_vs_ssh", "sparse_vs_dense", "downtime_seconds", "downtime_growth"):
        print(f"{name:18} {found[name]}")


if __name__ == "__main__":
    main()
