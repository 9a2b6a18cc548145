"""Volumes in a guest's XML: their disks lead to where the host finds them, and stay themselves.

A volume's disk is told by its serial, which is the volume's id; device names change with every
cold start. nova makes these disks in virt/libvirt/volume/*.py and virt/libvirt/config.py (26).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from lxml import etree

from cellmove.errors import StepFailed
from cellmove.hosts.tree import parsed
from cellmove.model import UUID

ConnectionInfo = Mapping[str, object]
"""Cinder's connection_info as nova stores it: driver_volume_type, data, serial, ..."""

_EXPORT: Final = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:\]-]*:/[A-Za-z0-9_./-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_OPTIONS: Final = re.compile(r"-o [A-Za-z0-9_=.,:-]+")
_PORTAL: Final = re.compile(r"([0-9.]+|\[[0-9a-f:]+\]):[0-9]+")
_IQN: Final = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9.:-]+")
_FORMATS: Final = ("raw", "qcow2")
_DIRECT: Final = ("none", "directsync")
_BLOCK_SIZES: Final = ("logical_block_size", "physical_block_size")
_BUS_LETTER: Final = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}


def data_of(info: ConnectionInfo) -> Mapping[str, object]:
    """The part that only the volume's driver understands; empty when there is none."""
    data = info.get("data")
    return data if isinstance(data, Mapping) else {}


def unsupported_volume(info: ConnectionInfo) -> str:
    """Why cellmove cannot connect such a volume anywhere: one clause; empty when it can."""
    kind = info.get("driver_volume_type")
    reason = _REASONS.get(str(kind))
    if reason is None:
        return f"driver_volume_type {kind} is not moved yet"
    if data_of(info).get("encrypted"):
        return "it is encrypted, and its key would have to be brought along"
    if data_of(info).get("access_mode") not in (None, "", "ro", "rw"):
        return f"its access mode is {data_of(info)['access_mode']}"
    return reason(data_of(info))


def with_volumes(
    xml: str, infos: Mapping[str, ConnectionInfo], devices: Mapping[str, str] | None = None
) -> str:
    """The guest with just these volumes (id -> how the host finds it), each at its old place.

    PCI addresses and target names stay. A disk of a volume that is not in `infos` goes. A volume
    without a disk gets one on the first disk's bus: named as in `devices` (id -> `/dev/vdb`) if
    that is free, else the next name.

    Raises:
        StepFailed: a volume is of a kind that cannot be connected, or nobody connected it.
    """
    root = parsed(xml)
    found = dict(_volume_disks(root))
    for volume, disk in found.items():
        if volume not in infos:
            _drop(disk)
    for volume, info in infos.items():
        if volume not in found:
            found[volume] = _new_disk(root, volume, info, (devices or {}).get(volume, ""))
        _lead_to(found[volume], info)
    return etree.tostring(root, encoding="unicode")


def volume_disks(xml: str) -> dict[str, list[str]]:
    """Volume's id -> all that its disk says, in an order of its own: libvirt has another one."""
    return {
        volume: sorted(
            [etree.tostring(child, method="c14n", with_tail=False).decode() for child in disk]
            + ["=".join(map(str, item)) for item in disk.attrib.items()]
        )
        for volume, disk in _volume_disks(parsed(xml, blanks=False))
    }


def _nfs_reason(data: Mapping[str, object]) -> str:
    if not _EXPORT.fullmatch(str(data.get("export"))):
        return f"its NFS export {data.get('export')!r} has unusual characters"
    if not _NAME.fullmatch(str(data.get("name"))):
        return f"its file {data.get('name')!r} has an unusual name"
    if data.get("options") and not _OPTIONS.fullmatch(str(data["options"])):
        return f"its NFS options {data['options']!r} are unusual"
    if data.get("format", "raw") not in _FORMATS:
        return f"its format is {data['format']}"
    return ""


def _rbd_reason(data: Mapping[str, object]) -> str:
    if data.get("auth_enabled") and not data.get("secret_uuid"):
        return "the uuid of its Ceph secret is only in nova.conf (set rbd_secret_uuid in Cinder)"
    return ""


def _iscsi_reason(data: Mapping[str, object]) -> str:
    if data.get("auth_method") or data.get("discovery_auth_method"):
        return "its iSCSI target wants a password (CHAP), which iscsiadm only takes in the open"
    device = str(data.get("device_path") or "")
    if data.get("multipath_id") or device.startswith(("/dev/dm-", "/dev/mapper/")):
        return "its host reaches it over several paths (multipath)"
    if not _PORTAL.fullmatch(str(data.get("target_portal"))):
        return f"its iSCSI portal {data.get('target_portal')!r} is no address with a port"
    if not _IQN.fullmatch(str(data.get("target_iqn"))):
        return f"its iSCSI target {data.get('target_iqn')!r} has an unusual name"
    return ""


_REASONS: Final[Mapping[str, Callable[[Mapping[str, object]], str]]] = {
    "nfs": _nfs_reason,
    "rbd": _rbd_reason,
    "iscsi": _iscsi_reason,
}


def _volume_disks(root: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    """Volume's id -> its disk. nova gives a serial to volumes only, and they are no local files."""
    local = f"/{root.findtext('uuid')}/"
    for disk in root.iterfind("devices/disk"):
        source = disk.find("source")
        path = "" if source is None else source.get("file", "")
        serial = (disk.findtext("serial") or "").strip()
        if UUID.fullmatch(serial) and local not in path:
            yield serial, disk


def _lead_to(disk: etree._Element, info: ConnectionInfo) -> None:
    """Rewrite what says where the disk's bytes are, and what may be done with them."""
    if reason := unsupported_volume(info):
        raise StepFailed(
            f"Volume {disk.findtext('serial')} cannot be connected.",
            f"Seen: {reason}.",
            "Detach it, then try again.",
        )
    data = data_of(info)
    for tag in ("source", "auth", "backingStore", "mirror"):
        for child in disk.findall(tag):
            disk.remove(child)
    kind = disk.get("type")
    match info["driver_volume_type"]:
        case "nfs":
            _source(disk, "file", file=_device_path(disk, data))
        case "iscsi":
            _source(disk, "block", dev=_device_path(disk, data))
        case _:
            _rbd_source(disk, data)
    _driver(disk, data, same_kind=disk.get("type") == kind)
    _flag(disk, "shareable", there=bool(info.get("multiattach")))
    if disk.get("device") != "cdrom":  # A CD is read-only whatever the volume is.
        _flag(disk, "readonly", there=data.get("access_mode") == "ro")


def _source(disk: etree._Element, kind: str, **attributes: str) -> etree._Element:
    disk.set("type", kind)
    source = etree.Element("source", attrib=attributes)
    driver = disk.find("driver")
    disk.insert(0 if driver is None else disk.index(driver) + 1, source)
    return source


def _rbd_source(disk: etree._Element, data: Mapping[str, object]) -> None:
    source = _source(disk, "network", protocol="rbd", name=str(data["name"]))
    hosts, ports = (value if isinstance(value, list) else [] for value in _monitors(data))
    for host, port in zip(hosts, ports, strict=True):
        etree.SubElement(source, "host", name=str(host), port=str(port))
    if data.get("auth_enabled"):
        auth = etree.Element("auth", username=str(data["auth_username"]))
        etree.SubElement(auth, "secret", type="ceph", uuid=str(data["secret_uuid"]))
        disk.insert(disk.index(source), auth)


def _monitors(data: Mapping[str, object]) -> tuple[object, object]:
    return data.get("hosts"), data.get("ports")


def _device_path(disk: etree._Element, data: Mapping[str, object]) -> str:
    path = str(data.get("device_path") or "")
    if not path.startswith("/"):
        raise StepFailed(
            f"Volume {disk.findtext('serial')} is not connected.",
            "Its connection information has no device path.",
            "Run `cellmove show` for this move.",
        )
    return path


def _driver(disk: etree._Element, data: Mapping[str, object], *, same_kind: bool) -> None:
    """How QEMU reads it. The cache mode stays: the host's administrator chose it for this kind."""
    driver = disk.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        disk.insert(0, driver)
    if not (same_kind and driver.get("cache")):
        driver.set("cache", "none")
    for key in ("io", "discard"):
        driver.attrib.pop(key, "")
    driver.set("type", str(data.get("format", "raw")) if disk.get("type") == "file" else "raw")
    if disk.get("type") != "network" and driver.get("cache") in _DIRECT:
        driver.set("io", "native")  # As nova does; QEMU wants no page cache with it.
    if data.get("discard") is True:
        driver.set("discard", "unmap")


def _flag(disk: etree._Element, tag: str, *, there: bool) -> None:
    for child in disk.findall(tag):
        disk.remove(child)
    if there:
        etree.SubElement(disk, tag)


def _new_disk(
    root: etree._Element, volume: str, info: ConnectionInfo, device: str
) -> etree._Element:
    """A disk for a volume that the guest did not have, as nova makes one that is attached."""
    devices = root.find("devices")
    if devices is None:
        raise StepFailed("A guest has no devices.", "", "Look at it with `virsh dumpxml`.")
    bus = next((t.get("bus", "") for t in root.iterfind("devices/disk[@device='disk']/target")), "")
    bus = bus if bus in _BUS_LETTER else "virtio"
    disk = etree.Element("disk", device="disk")
    etree.SubElement(disk, "target", dev=_free_name(root, bus, device), bus=bus)
    etree.SubElement(disk, "serial").text = volume
    _tuning(disk, data_of(info))
    last = root.findall("devices/disk")[-1:]
    devices.insert(devices.index(last[0]) + 1 if last else 0, disk)
    return disk


def _free_name(root: etree._Element, bus: str, wanted: str) -> str:
    taken = {target.get("dev") for target in root.iterfind("devices/disk/target")}
    wanted = wanted.removeprefix("/dev/")
    if wanted.startswith(_BUS_LETTER[bus]) and wanted not in taken:
        return wanted
    names = (_BUS_LETTER[bus] + letter for letter in string.ascii_lowercase)
    return next(name for name in names if name not in taken)


def _tuning(disk: etree._Element, data: Mapping[str, object]) -> None:
    """Block sizes and rate limits of the volume's type."""
    sizes = {key: str(data[key]) for key in _BLOCK_SIZES if data.get(key)}
    if sizes:
        etree.SubElement(disk, "blockio", attrib=sizes)
    limits = data.get("qos_specs")
    known = [
        (key, str(value))
        for key, value in (limits.items() if isinstance(limits, Mapping) else ())
        if re.fullmatch(r"(total|read|write)_(bytes|iops)_sec(_max)?|size_iops_sec", key)
    ]
    if known:
        tune = etree.SubElement(disk, "iotune")
        for key, value in known:
            etree.SubElement(tune, key).text = value


def _drop(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
