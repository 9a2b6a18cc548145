"""A running server's disks cross while it runs: nothing is lost, whatever happens on the way."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import host_run
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import traces

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1a", "cmp2a"
WISH = ("--to-host", TARGET)
FILL_MIB = 32
DISKS = ("disk", "disk.config", "disk.eph0")


@pytest.fixture(scope="module")
def guest(admin_nova: Nova) -> Iterator[GuestWatch]:
    """Guest of a server with a root disk, an ephemeral disk and a config drive."""
    wish = {"metadata": {"fill_mib": str(FILL_MIB)}}
    with admin_nova.lent("warm", SOURCE, "e1", **wish) as server:
        guest = GuestWatch.of(admin_nova, server)
        guest.wait_ready(SOURCE, since=0)
        guest.wait_told(SOURCE, "fill done")
        yield guest


@pytest.fixture
def home(admin_nova: Nova, guest: GuestWatch) -> GuestWatch:
    """The guest, running where it was made, with no note of its writes."""
    admin_nova.wait_port(guest.server, SOURCE)
    assert notes(SOURCE, guest.server) == []
    return guest


def notes(host: str, server: str) -> list[str]:
    """What a move leaves for itself: checkpoints, bitmaps, half disks, scratch files, sockets."""
    found = [f"checkpoint {name}" for name in _virsh(host, "checkpoint-list", "--name", server)]
    listed = host_run(host, ["ls", str(INSTANCES / server)]).split()
    found += [name for name in listed if name.endswith(".cellmove")]
    for name in set(listed) & {"disk", "disk.eph0"}:
        path = str(INSTANCES / server / name)
        info = json.loads(host_run(host, ["qemu-img", "info", "-U", "--output=json", path]))
        found += [str(each) for each in info["format-specific"]["data"].get("bitmaps", [])]
    sockets = host_run(host, ["ls", "/var/lib/cellmove-guests", "/var/lib/cellmove"]).split()
    return found + [name for name in sockets if server in name]


def same_content(server: str, disk: str) -> bool:
    """Whether a guest would find the same on both hypervisors; it is off on both."""
    seen = []
    for host in (SOURCE, TARGET):
        path, raw = str(INSTANCES / server / disk), f"/tmp/{server}-{disk}"
        script = 'qemu-img convert -O raw "$1" "$2" && sha256sum < "$2"; rm -f "$2"'
        seen.append(host_run(host, ["sh", "-c", script, "sh", path, raw]))
    return len(set(seen)) == 1 and bool(seen[0].strip())


def test_a_running_guests_disks_are_the_same_on_both_ends_when_it_is_off(
    home: GuestWatch, admin_nova: Nova, cellmove: Cellmove
) -> None:
    begun = time.time()
    moving = cellmove.start("resize", home.server, *WISH)
    cellmove.reached("copy-disks", "begun")
    moving.send_signal(signal.SIGINT)
    stopped = cellmove.wait(moving)
    assert stopped.code == 5, stopped
    assert "forget-writes" in stopped.stderr
    assert [disk for disk in DISKS if not same_content(home.server, disk)] == []
    last = _last_copied(stopped.stderr)
    assert 0 < last["disk"] < FILL_MIB * 1024**2 / 4  # what it wrote last, not all

    cellmove("resume", "1")
    home.wait_ready(TARGET, begun)
    assert home.filled(TARGET)
    assert (home.record_found(TARGET) or 0) >= 3
    assert notes(SOURCE, home.server) == notes(TARGET, home.server) == []

    since = time.time()
    cellmove("revert", home.server, "--yes")
    home.wait_ready(SOURCE, since)
    assert home.filled(SOURCE)


def test_a_move_killed_while_the_guest_runs_is_undone_unfelt(
    home: GuestWatch, cellmove: Cellmove
) -> None:
    before, begun = traces(home.server), time.time()
    moving = cellmove.start("resize", home.server, *WISH)
    cellmove.reached("precopy-disks", "begun")
    _wait_for_notes(home.server)
    moving.kill()
    cellmove.wait(moving)

    cellmove("undo", "1")

    assert notes(SOURCE, home.server) == []
    assert traces(home.server) == before
    assert len({beat.boot for beat in home.heartbeats(begun)}) == 1


def test_a_guest_that_dies_is_copied_whole_for_its_notes_are_broken(
    home: GuestWatch, cellmove: Cellmove
) -> None:
    begun = time.time()
    moving = cellmove.start("resize", home.server, *WISH)
    cellmove.reached("precopy-disks", "begun")
    moving.send_signal(signal.SIGINT)
    assert cellmove.wait(moving).code == 5
    (pid,) = host_run(SOURCE, ["pgrep", "-f", f"uuid {home.server}"]).split()
    host_run(SOURCE, ["kill", "-9", pid])

    done = cellmove("resume", "1")

    assert _last_copied(done.stderr)["disk"] > FILL_MIB * 1024**2
    home.wait_ready(TARGET, begun)
    assert home.filled(TARGET)
    assert notes(SOURCE, home.server) == notes(TARGET, home.server) == []
    since = time.time()
    cellmove("revert", home.server, "--yes")
    home.wait_ready(SOURCE, since)


def _virsh(host: str, *argv: str) -> list[str]:
    return host_run(host, ["virsh", "-q", *argv], check=False).split()


def _wait_for_notes(server: str) -> None:
    deadline = time.monotonic() + 60
    while not notes(SOURCE, server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _last_copied(told: str) -> dict[str, float]:
    """Bytes of each disk that the last copy of it took."""
    units = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
    lines = r"^  (disk[.a-z0-9]*): [^,\n]* of ([0-9.]+) (\w+)"
    found = re.findall(lines, told, re.MULTILINE)
    return {disk: float(amount) * units[unit] for disk, amount, unit in found}
