"""Volumes in a guest's XML, as pairs of files; and which volumes are refused, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo, unsupported_volume, with_volumes
from cellmove.hosts.xml import GuestXml
from tests.unit.hosts.test_xml import canonical, read

MOUNT: Final = "/mnt/of/the/target"
IQN: Final = "iqn.2010-10.org.openstack:volume-4"


def volume(number: int) -> str:
    return f"00000000-0000-4000-8000-00000000000{number}"


def nfs(number: int, image_format: str = "raw", **more: object) -> ConnectionInfo:
    name = f"volume-{volume(number)}"
    return {
        "driver_volume_type": "nfs",
        "serial": volume(number),
        "data": {
            "export": "192.0.2.1:/srv/volumes",
            "name": name,
            "format": image_format,
            "options": None,
            "access_mode": "rw",
            "device_path": f"{MOUNT}/{name}",
            **more,
        },
    }


def rbd(number: int, **more: object) -> ConnectionInfo:
    data: dict[str, object] = {
        "name": f"volumes/volume-{volume(number)}",
        "hosts": ["192.0.2.41", "2001:db8::41"],
        "ports": ["6789", "3300"],
        "auth_enabled": True,
        "auth_username": "cinder2",
        "secret_type": "ceph",
        "secret_uuid": "bbbbbbbb-0000-4000-8000-000000000000",
        "access_mode": "rw",
        "discard": True,
    }
    return {"driver_volume_type": "rbd", "serial": volume(number), "data": {**data, **more}}


def iscsi(number: int, **more: object) -> ConnectionInfo:
    data: dict[str, object] = {
        "target_portal": "192.0.2.1:3260",
        "target_iqn": IQN,
        "target_lun": 1,
        "access_mode": "rw",
        "device_path": f"/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-{IQN}-lun-1",
    }
    return {"driver_volume_type": "iscsi", "serial": volume(number), "data": {**data, **more}}


def those(*infos: ConnectionInfo, **more: object) -> dict[str, ConnectionInfo]:
    return {str(info["serial"]): {**info, **more} for info in infos}


SAME: Final = those(nfs(1, "qcow2"), rbd(3), iscsi(4), nfs(5)) | those(nfs(2), multiattach=True)
TUNED: Final[dict[str, Any]] = {
    "qos_specs": {"read_bytes_sec": 1048576},
    "physical_block_size": "4096",
}
EDITS: Final[Mapping[str, tuple[dict[str, ConnectionInfo], dict[str, str]]]] = {
    "target": (SAME, {}),
    "fewer": (those(nfs(1, "qcow2")), {}),
    "more": (SAME | those(nfs(6, **TUNED), nfs(7), nfs(8)), {volume(7): "/dev/vdz"}),
    "retyped": (
        SAME | those(rbd(1), iscsi(2), nfs(3, access_mode="ro"), rbd(4, auth_enabled=False)),
        {},
    ),
}
"""What the guest has afterwards, and the device names that are asked for."""


@pytest.mark.parametrize("edit", EDITS)
def test_volumes_change_where_their_bytes_are_and_nothing_else(edit: str) -> None:
    infos, devices = EDITS[edit]

    edited = with_volumes(read("volumes.in"), infos, devices)

    assert canonical(edited) == canonical(read(f"volumes.{edit}"))
    assert canonical(with_volumes(edited, infos, devices)) == canonical(edited)


@pytest.mark.parametrize("edit", EDITS)
def test_a_guest_with_volumes_can_be_moved(edit: str) -> None:
    infos, devices = EDITS[edit]

    assert GuestXml(with_volumes(read("volumes.in"), infos, devices)).unsupported() == ()


def test_a_guest_without_volumes_stays_as_it_is() -> None:
    assert canonical(with_volumes(read("zed-image.in"), {})) == canonical(read("zed-image.in"))


def test_a_local_disk_with_a_serial_is_no_volume() -> None:
    text = read("zed-image.in").replace(
        "<target dev='vda'", f"<serial>{volume(1)}</serial><target dev='vda'"
    )

    assert canonical(with_volumes(text, {})) == canonical(text)


def test_a_volume_that_nobody_connected_is_not_written_down() -> None:
    with pytest.raises(StepFailed, match="not connected"):
        with_volumes(read("volumes.in"), those(nfs(1, device_path="")))


def test_a_volume_that_cannot_be_connected_is_not_written_down() -> None:
    with pytest.raises(StepFailed, match="lightos"):
        with_volumes(read("volumes.in"), those(nfs(1), driver_volume_type="lightos"))


@pytest.mark.parametrize("info", [nfs(1), nfs(1, "qcow2"), rbd(1), iscsi(1)])
def test_these_volumes_are_connected(info: ConnectionInfo) -> None:
    assert unsupported_volume(info) == ""


UNSUPPORTED: Final[list[tuple[Any, str]]] = [
    (those(nfs(1), driver_volume_type="fibre_channel"), "fibre_channel is not moved yet"),
    (those(nfs(1), driver_volume_type=None), "None is not moved yet"),
    (those(nfs(1), driver_volume_type="smbfs"), "smbfs"),
    (those(nfs(1, encrypted=True)), "encrypted"),
    (those(nfs(1, access_mode="wo")), "access mode is wo"),
    (those(nfs(1, "vmdk")), "format is vmdk"),
    (those(nfs(1, export="192.0.2.1:/a b")), "export"),
    (those(nfs(1, export="-o:/suid")), "export"),
    (those(nfs(1, name="../../../etc/shadow")), "unusual name"),
    (those(nfs(1, options="-o vers=4 --bind")), "options"),
    (those(rbd(1, secret_uuid=None)), "nova.conf"),
    (those(iscsi(1, auth_method="CHAP", auth_password="hunter2")), "CHAP"),
    (those(iscsi(1, multipath_id="360000")), "multipath"),
    (those(iscsi(1, device_path="/dev/dm-3")), "multipath"),
    (those(iscsi(1, target_portal="san.example:3260")), "portal"),
    (those(iscsi(1, target_iqn="iqn.x -p y")), "unusual name"),
]


@pytest.mark.parametrize(("infos", "why"), UNSUPPORTED)
def test_other_volumes_are_refused_by_name(infos: dict[str, ConnectionInfo], why: str) -> None:
    (info,) = infos.values()

    reason = unsupported_volume(info)

    assert reason
    assert why in reason
    assert "hunter2" not in reason
