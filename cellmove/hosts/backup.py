"""A running guest's disks at one point in time: libvirt's pull backup, and its checkpoints.

A backup shows each disk as it was when the backup began, behind an NBD server of the guest's own
QEMU, while the guest goes on. Its checkpoint makes QEMU note from then on what is written: the
next backup shows just that. The notes are dirty bitmaps in the disks' files, so the last of them
can be read from the file when the guest is off.

All functions take a domain of libvirt-python, and none leaves a job behind when it raises.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import libvirt
from lxml import etree

from cellmove.errors import StepFailed
from cellmove.hosts.tree import parsed

_NAME: Final = re.compile(r"cellmove-([0-9a-f]{8})-(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of ours: the move that made it, and its number in that move."""

    move: str
    """First eight digits of the move's id: a bitmap of another move is never taken for ours."""
    number: int

    @property
    def name(self) -> str:
        """Name of the checkpoint, and of the bitmap in each disk."""
        return f"cellmove-{self.move}-{self.number}"

    @classmethod
    def of(cls, move: str, number: int) -> Checkpoint:
        """The checkpoint of this number of the move with this id."""
        return cls(move[:8], number)

    @classmethod
    def named(cls, name: str) -> Checkpoint | None:
        """The checkpoint of this name; None when the name is not one of ours."""
        found = _NAME.fullmatch(name)
        return cls(found[1], int(found[2])) if found else None


def supported(connection: Any) -> bool:
    """Whether libvirt and QEMU there can do it (libvirt >= 7.2: domain capability `backup`)."""
    try:
        text = connection.getDomainCapabilities(None, None, None, None, 0)
    except libvirt.libvirtError:
        return False
    found = parsed(text).find("features/backup")
    return found is not None and found.get("supported") == "yes"


def devices(xml: str, directory: str) -> dict[str, tuple[str, bool]]:
    """File name in a directory -> the guest's name of the disk, and whether it is read-only."""
    found: dict[str, tuple[str, bool]] = {}
    for disk in parsed(xml).iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        path = "" if source is None else source.get("file", "")
        if target is not None and posixpath.dirname(path) == directory:
            name = posixpath.basename(path)
            found[name] = (target.get("dev", ""), disk.find("readonly") is not None)
    return found


def begin(
    domain: Any,
    disks: Mapping[str, tuple[str, str]],
    socket: str,
    checkpoint: Checkpoint,
    since: Checkpoint | None,
) -> None:
    """Begin a backup of all these disks at one point in time, and make its checkpoint.

    `disks`: the guest's name of a disk -> what it is called at the server, and a scratch file
    for what the guest overwrites meanwhile. With `since`, only what was written since that
    checkpoint is shown, by a bitmap that has the guest's name of the disk.
    """
    backup = etree.Element("domainbackup", mode="pull")
    if since:
        etree.SubElement(backup, "incremental").text = since.name
    etree.SubElement(backup, "server", transport="unix", socket=socket)
    mark = etree.Element("domaincheckpoint")
    etree.SubElement(mark, "name").text = checkpoint.name
    shown, noted = etree.SubElement(backup, "disks"), etree.SubElement(mark, "disks")
    for target in parsed(domain.XMLDesc(0)).iterfind("devices/disk/target"):
        name = target.get("dev", "")
        chosen = name in disks
        etree.SubElement(noted, "disk", name=name, checkpoint="bitmap" if chosen else "no")
        disk = etree.SubElement(shown, "disk", name=name, backup="yes" if chosen else "no")
        if chosen:
            export, scratch = disks[name]
            disk.attrib.update({"type": "file", "exportname": export})
            # A disk in a file has no backup without a named scratch file (libvirt 9.0).
            etree.SubElement(disk, "scratch", file=scratch)
        if chosen and since:
            disk.set("exportbitmap", name)
    domain.backupBegin(_text(backup), _text(mark), 0)


def end(domain: Any, socket: str) -> None:
    """End the backup at this socket, if there is one: a lost connection does not end it."""
    try:
        text = domain.backupGetXMLDesc(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_JOB:
            return
        raise
    found = parsed(text).find("server")
    if found is not None and found.get("socket") == socket:
        domain.abortJob()


def checkpoints(domain: Any) -> tuple[str, ...]:
    """Names of all checkpoints of the guest, whoever made them."""
    return tuple(each.getName() for each in domain.listAllCheckpoints())


def drop(domain: Any, checkpoint: Checkpoint) -> None:
    """Delete a checkpoint; of a guest that is off only libvirt's note of it (see `bitmaps`)."""
    flags = 0 if domain.isActive() else libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
    try:
        domain.checkpointLookupByName(checkpoint.name).delete(flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT:
            raise


def ours(names: Sequence[str]) -> tuple[Checkpoint, ...]:
    """Our own among these names, oldest first."""
    found = [each for name in names if (each := Checkpoint.named(name))]
    return tuple(sorted(found, key=lambda each: (each.move, each.number)))


def must_know(known: Mapping[str, tuple[str, bool]], name: str) -> str:
    """The guest's name of the disk in this file.

    Raises:
        StepFailed: the guest has no such disk (any more): a snapshot may have moved it.
    """
    if name not in known:
        raise StepFailed(
            f"The guest does not use {name}.",
            f"It uses {', '.join(sorted(known)) or 'no file of its directory'}.",
            "Look at its disks with `virsh domblklist`, or move it with --cold.",
        )
    return known[name][0]


_NO_JOB: Final = frozenset(
    {libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN}
)


def _text(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")
