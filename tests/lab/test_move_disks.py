"""Every local disk of a server crosses with what is in it, and nova goes on with all of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import host_run
from tests.lab.kit.program import Cellmove

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
FORMATS = {"disk": "qcow2", "disk.eph0": "qcow2", "disk.swap": "qcow2", "disk.config": "raw"}
WRITTEN = {"disk.eph0": 10, "disk.swap": 20}
"""Disk -> the MiB of it that somebody has written to."""


@pytest.fixture(scope="module")
def flavor() -> Iterator[str]:
    """Name of a flavor with all kinds of disks."""
    compute = lab_session().service("compute", "2.90")
    name = f"disks-{uuid.uuid4().hex[:8]}"
    wish = {"name": name, "ram": 128, "vcpus": 1, "disk": 2}
    body = {"flavor": {**wish, "OS-FLV-EXT-DATA:ephemeral": 1, "swap": 64}}
    answer = compute.send("POST", "/flavors", body)
    assert answer.ok, answer.message
    yield name
    compute.send("DELETE", f"/flavors/{answer.body['flavor']['id']}")


@pytest.fixture(scope="module")
def server(admin_nova: Nova, flavor: str) -> Iterator[str]:
    """A stopped server, whose further disks have something in them."""
    with admin_nova.lent("disks", SOURCE, flavor) as server:
        GuestWatch.of(admin_nova, server).wait_ready(SOURCE, since=0)
        admin_nova.stop(server)
        for disk, at_mib in WRITTEN.items():
            path = str(INSTANCES / server / disk)
            write = ["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {at_mib}M 1M", path]
            host_run(SOURCE, write)
        yield server


def contents(host: str, server: str) -> dict[str, str]:
    """Disk -> hash of what a guest would find there."""
    found = {}
    for disk, kind in FORMATS.items():
        path, raw = str(INSTANCES / server / disk), f"/tmp/{server}-{disk}"
        script = 'qemu-img convert -f "$3" -O raw "$1" "$2" && sha256sum < "$2"; rm -f "$2"'
        found[disk] = host_run(host, ["sh", "-c", script, "sh", path, raw, kind]).strip()
    return found


def test_all_disks_cross_with_what_is_in_them_and_nova_starts_the_server(
    admin_nova: Nova, cellmove: Cellmove, server: str
) -> None:
    before = contents(SOURCE, server)
    cellmove("resize", server, "--to-host", TARGET)
    assert contents(TARGET, server) == before
    assert len(set(before.values())) == len(FORMATS)
    listed = host_run(TARGET, ["stat", "-c", "%n %U:%G %a", *_paths(server)]).splitlines()
    assert listed == [f"{path} nova:nova 644" for path in _paths(server)]
    note = json.loads(host_run(TARGET, ["cat", str(INSTANCES / server / "disk.info")]))
    assert {path.rpartition("/")[2]: kind for path, kind in note.items()} == FORMATS

    cellmove("confirm", server, "--yes")
    admin_nova.start(server)
    admin_nova.stop(server)
    for disk, at_mib in WRITTEN.items():
        read = ["qemu-io", "-f", "qcow2", "-c", f"read -P 7 {at_mib}M 1M"]
        assert "read 1048576/1048576" in host_run(TARGET, [*read, str(INSTANCES / server / disk)])


def test_a_plan_says_why_nothing_is_copied_while_the_guest_is_off(
    cellmove: Cellmove, server: str
) -> None:
    shown = cellmove("resize", server, "--to-host", SOURCE, "--dry-run", "--json").stdout
    assert "copy nothing while the guest runs (" in shown
    assert "the guest is off" in shown


def _paths(server: str) -> list[str]:
    return [str(INSTANCES / server / disk) for disk in sorted(FORMATS)]
