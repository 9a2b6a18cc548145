"""Every local disk of a server crosses with what is in it, and nova goes on with all of them."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.images import empty_image
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


@dataclass(frozen=True, slots=True)
class Twins:
    """Two stopped servers on SOURCE, of one image that no other host has."""

    base: str
    """The image's name in nova's caches."""
    first: str
    second: str

    def path(self) -> str:
        return str(INSTANCES / "_base" / self.base)

    def on(self, host: str) -> bool:
        """Whether a host's cache has the image."""
        return self.base in host_run(host, ["ls", str(INSTANCES / "_base")], check=False).split()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Id of an image of 8 MiB, most of it random."""
    content = random.Random(7).randbytes(7 << 20) + bytes(1 << 20)
    with empty_image(lab_session(project="demo"), content) as made:
        yield made


@pytest.fixture(scope="module")
def twins(admin_nova: Nova, image: str) -> Iterator[Twins]:
    wish = {"more": {"imageRef": image}, "config_drive": False}
    with (
        admin_nova.lent("twin", SOURCE, "c1", **wish) as first,
        admin_nova.lent("twin", SOURCE, "c1", **wish) as second,
    ):
        for server, pattern in ((first, 5), (second, 6)):
            admin_nova.stop(server)
            write = ["-c", f"write -P {pattern} 100M 3M", "-c", "write -z 1M 1M"]
            host_run(SOURCE, ["qemu-io", "-f", "qcow2", *write, _root(server)])
        yield Twins(hashlib.sha1(image.encode()).hexdigest(), first, second)


def test_undo_takes_an_image_that_was_brought_out_of_the_cache(
    cellmove: Cellmove, twins: Twins
) -> None:
    moving = cellmove.start("resize", twins.first, "--to-host", TARGET)
    cellmove.reached("bring-bases", "done")
    moving.send_signal(signal.SIGINT)
    assert cellmove.wait(moving).code == 5
    assert twins.on(TARGET)

    cellmove("undo", "1")

    assert not twins.on(TARGET)
    assert f"base-{twins.base}" not in _listed(SOURCE, twins.first)


def test_an_image_crosses_once_and_each_disk_lies_on_it(cellmove: Cellmove, twins: Twins) -> None:
    before = [_content(SOURCE, server) for server in (twins.first, twins.second)]

    brought = cellmove("resize", twins.first, "--to-host", TARGET)
    found = cellmove("resize", twins.second, "--to-host", TARGET)

    assert "disk.base: " in brought.stderr
    assert "disk.base: " not in found.stderr
    assert before == [_content(TARGET, server) for server in (twins.first, twins.second)]
    described = host_run(TARGET, ["qemu-img", "info", "--output=json", _root(twins.second)])
    assert json.loads(described)["full-backing-filename"] == twins.path()
    assert json.loads(described)["backing-filename-format"] == "raw"
    # All that was sent is in the overlay.
    own = [_allocated(host, twins.second) for host in (SOURCE, TARGET)]
    assert 3 << 20 <= own[1] <= 1.05 * own[0]


def test_an_image_that_novas_cache_deleted_is_put_back_by_revert(
    cellmove: Cellmove, admin_nova: Nova, twins: Twins
) -> None:
    if not _listed(TARGET, twins.first):
        cellmove("resize", twins.first, "--to-host", TARGET)
    before = _content(TARGET, twins.first)
    host_run(SOURCE, ["rm", twins.path()])

    cellmove("revert", twins.first, "--yes")

    assert twins.on(SOURCE)
    assert _content(SOURCE, twins.first) == before
    assert f"base-{twins.base}" not in _listed(SOURCE, twins.first)
    admin_nova.start(twins.first)
    admin_nova.stop(twins.first)


def _root(server: str) -> str:
    return str(INSTANCES / server / "disk")


def _listed(host: str, server: str) -> list[str]:
    return host_run(host, ["ls", str(INSTANCES / server)], check=False).split()


def _allocated(host: str, server: str) -> int:
    return int(host_run(host, ["stat", "-c", "%b", _root(server)])) * 512


def _content(host: str, server: str) -> str:
    """Hash of what the guest finds on its root disk."""
    raw = f"/tmp/{server}-root"
    script = 'qemu-img convert -f qcow2 -O raw "$1" "$2" && sha256sum < "$2"; rm -f "$2"'
    return host_run(host, ["sh", "-c", script, "sh", _root(server), raw])


def _paths(server: str) -> list[str]:
    return [str(INSTANCES / server / disk) for disk in sorted(FORMATS)]
