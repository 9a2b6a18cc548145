from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts import disks, switch
from cellmove.hosts.disks import Layout
from cellmove.model import Disk, Port
from tests.unit.hosts.images import MIB, make, overlay

SERVER = "11111111-2222-3333-4444-555555555555"
LAYOUT = Layout()
PORT = Port("aaaaaaaa-bbcc-4ddd-8eee-ffffffffffff", "FA:16:3E:00:00:01", "cmp1a", "ACTIVE", "ovs")

HOSTILE = ["", "..", ".", "a/b", "$(id)", f"{SERVER}/..", f"{SERVER}\n", SERVER.upper() + "X", "-x"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_never_reaches_a_path(name: str) -> None:
    with pytest.raises(StepFailed, match="not a UUID"):
        LAYOUT.directory(name)


@pytest.mark.parametrize("name", [*HOSTILE, "disk.", "disk/x", "disk.info", "disk.cellmove"])
def test_a_hostile_disk_never_reaches_a_path(name: str) -> None:
    with pytest.raises(StepFailed):
        LAYOUT.disk(SERVER, name)


@pytest.mark.parametrize("path", ["", "relative", "/a b", "/a/../b", "/$x", "/a\n", "/"])
def test_a_hostile_directory_of_instances_is_refused(path: str) -> None:
    with pytest.raises(StepFailed):
        Layout(path)


@pytest.mark.parametrize("image_format", ["vmdk", "host_device", "", "raw "])
def test_only_known_formats_reach_a_command(image_format: str) -> None:
    with pytest.raises(StepFailed, match="format"):
        disks.image_create("/x", image_format, 1)


def test_paths_are_those_of_nova() -> None:
    assert LAYOUT.disk(SERVER, "disk.eph0") == f"/var/lib/nova/instances/{SERVER}/disk.eph0"
    assert LAYOUT.socket(SERVER, "disk") == f"/var/lib/cellmove/{SERVER}-disk.sock"


def test_a_socket_path_is_short_enough_for_linux() -> None:
    assert len(LAYOUT.socket(SERVER, "disk.config")) < 108


def test_whole_disks_are_told_from_notes_and_halves() -> None:
    listed = "console.log\ndisk.info\ndisk.eph0\ndisk\ndisk.cellmove\ndisk.config\nkernel\n.x\n"

    assert disks.disk_names(listed) == ("disk", "disk.config", "disk.eph0")


def test_a_disk_is_what_its_guest_sees_and_what_its_whole_chain_takes(tmp_path: Path) -> None:
    path = overlay(tmp_path)
    argv = disks.image_info(str(path), "qcow2")
    info = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    disk = disks.disk_of("disk", info)

    assert (disk.name, disk.format, disk.size_bytes) == ("disk", "qcow2", 24 * MIB + 4096)
    taken = sum(file.stat().st_blocks * 512 for file in (path, tmp_path / "base"))
    assert disk.allocated_bytes == taken


def test_a_raw_disk_that_pretends_to_be_qcow2_stays_raw(tmp_path: Path) -> None:
    forged = make(tmp_path / "disk", "qcow2", 900 * MIB)
    argv = disks.image_info(str(forged), "raw")
    info = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    disk = disks.disk_of("disk", info)

    assert (disk.format, disk.size_bytes < MIB) == ("raw", True)


@pytest.mark.parametrize("info", ["", "[]", "{}", "null", "[1]", '[{"format": "raw"}]'])
def test_an_answer_that_is_not_understood_is_no_disk(info: str) -> None:
    with pytest.raises(StepFailed, match="not understood"):
        disks.disk_of("disk", info)


@pytest.mark.parametrize(
    "extra",
    [{"encrypted": True}, {"format-specific": {"type": "qcow2", "data": {"data-file": "/x"}}}],
)
def test_a_disk_with_parts_elsewhere_is_refused(extra: dict[str, object]) -> None:
    top = {"format": "qcow2", "virtual-size": 1, "actual-size": 1, **extra}

    with pytest.raises(StepFailed, match="cannot be moved"):
        disks.disk_of("disk", json.dumps([top]))


def test_novas_note_is_read_as_it_was_written() -> None:
    noted = [Disk("disk", "qcow2", 1), Disk("disk.config", "raw", 1)]
    note = disks.note_of(LAYOUT, SERVER, noted)

    assert json.loads(note)[LAYOUT.disk(SERVER, "disk")] == "qcow2"
    assert disks.formats(note) == {"disk": "qcow2", "disk.config": "raw"}


@pytest.mark.parametrize("note", ["", "[]", "nonsense", "1"])
def test_a_broken_note_says_nothing(note: str) -> None:
    assert disks.formats(note) == {}


def test_room_is_the_number_that_df_gives() -> None:
    printed = subprocess.run(disks.free("/"), capture_output=True, text=True, check=True).stdout

    assert disks.free_bytes(printed) > 0
    with pytest.raises(StepFailed, match="not understood"):
        disks.free_bytes("df: no such file")


def test_a_port_is_plugged_as_os_vif_does() -> None:
    assert " ".join(switch.plug("br-int", SERVER, PORT)) == (
        "/usr/bin/ovs-vsctl --timeout=30 --may-exist add-port br-int tapaaaaaaaa-bb"
        " -- set Interface tapaaaaaaaa-bb"
        " external-ids:iface-id=aaaaaaaa-bbcc-4ddd-8eee-ffffffffffff"
        " external-ids:iface-status=active"
        " external-ids:attached-mac=fa:16:3e:00:00:01"
        f" external-ids:vm-uuid={SERVER}"
    )


@pytest.mark.parametrize(
    ("printed", "wired"),
    [("5\n9\n", True), ("-1\n0\n", False), ("5\n0\n", False), ("[]\n[]\n", False), ("", False)],
)
def test_a_port_is_wired_only_with_a_device(printed: str, wired: bool) -> None:
    assert switch.is_wired(printed) is wired


@pytest.mark.parametrize("mac", ["", "fa:16", "fa:16:3e:00:00:01 x", "$(id)"])
def test_a_hostile_mac_never_reaches_a_command(mac: str) -> None:
    with pytest.raises(StepFailed, match="MAC"):
        switch.plug("br-int", SERVER, Port(PORT.id, mac, "h", "DOWN", "ovs"))


BITMAPS = """[{"format": "qcow2", "virtual-size": 1, "format-specific": {"data": {"bitmaps": [
  {"flags": ["auto"], "name": "cellmove-0123abcd-1", "granularity": 65536},
  {"flags": ["in-use", "auto"], "name": "cellmove-0123abcd-2", "granularity": 65536}
]}}}]"""


def test_a_bitmap_that_was_not_written_down_is_not_usable() -> None:
    assert disks.bitmaps(BITMAPS, usable=True) == ("cellmove-0123abcd-1",)
    assert len(disks.bitmaps(BITMAPS, usable=False)) == 2
    assert disks.bitmaps('[{"format": "raw"}]', usable=True) == ()


def test_half_disks_are_told_from_whole_ones() -> None:
    listed = "disk\ndisk.cellmove\ndisk.eph0.cellmove\ndisk.info\nconsole.log\n"
    assert disks.half_names(listed) == ("disk", "disk.eph0")
    assert disks.disk_names(listed) == ("disk",)


@pytest.mark.parametrize("name", ["b", "cellmove-0123abcd-1 -x", "cellmove-0123abcd-"])
def test_only_a_bitmap_of_ours_gets_into_a_command(name: str) -> None:
    with pytest.raises(StepFailed):
        disks.remove_bitmap("/d", name)
    with pytest.raises(StepFailed):
        disks.image_server("/d", "qcow2", "/s", read_only=True, bitmap=name)


def test_qcow2_of_version_2_is_told_for_it_holds_no_bitmaps() -> None:
    info = '[{"format": "qcow2", "virtual-size": 1, "format-specific": {"data": {"compat": "%s"}}}]'
    assert [disks.disk_of("disk", info % version).version for version in ("0.10", "1.1")] == [2, 3]
