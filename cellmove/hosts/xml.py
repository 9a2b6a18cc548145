"""The XML of a guest, as a frozen value with named edits: what changes on another host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from lxml import etree

from cellmove.errors import StepFailed
from cellmove.hosts.tree import parsed
from cellmove.model import Flavor

NOVA: Final = "http://openstack.org/xmlns/libvirt/nova/1.1"
"""Namespace of nova's own metadata in a domain."""
_SHARES_PER_VCPU: Final = 1024
"""nova 26 gives a guest 1024 CPU shares a vCPU unless its flavor says otherwise."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of a guest."""

    type: str
    """`ethernet` (nova makes the port), `bridge` (libvirt does), or what cannot move."""
    mac: str
    device: str
    """Name of the tap device; empty when libvirt chooses it."""


@dataclass(frozen=True, slots=True)
class GuestXml:
    """A libvirt domain definition.

    Every edit answers a new value; what an edit does not name stays as it was, so that the
    guest finds the same machine on the other side (PCI addresses, bus and model of its devices).
    """

    text: str

    def __post_init__(self) -> None:
        self.tree()

    def renamed(self, name: str) -> GuestXml:
        """Another domain name, also in the paths that libvirt's drivers name after the domain."""

        def edit(root: etree._Element) -> None:
            old = _text(root, "name")
            _require(root, "name").text = name
            for channel in root.iterfind("devices/channel/source[@path]"):
                channel.set("path", in_file_name(channel.get("path", ""), old, name))
            for nvram in root.iterfind("os/nvram"):
                nvram.text = in_file_name(nvram.text or "", old, name)
                for source in nvram.iterfind("source[@file]"):
                    source.set("file", in_file_name(source.get("file", ""), old, name))

        return self.edited(edit)

    def resized(self, *, memory_mb: int, vcpus: int) -> GuestXml:
        """Another amount of memory and CPUs: one CPU a socket, as nova does by default."""

        def edit(root: etree._Element) -> None:
            for tag in ("memory", "currentMemory"):
                for element in root.iterfind(tag):
                    element.set("unit", "KiB")
                    element.text = str(memory_mb * 1024)
            vcpu = _require(root, "vcpu")
            shares = root.find("cputune/shares")
            if shares is not None and shares.text == str(int(vcpu.text or 1) * _SHARES_PER_VCPU):
                shares.text = str(vcpus * _SHARES_PER_VCPU)
            vcpu.attrib.pop("current", "")
            if vcpu.text == str(vcpus):
                return  # Its topology may be one that flavor or image asked for.
            vcpu.text = str(vcpus)
            for topology in root.iterfind("cpu/topology"):
                topology.attrib.update(dict.fromkeys(topology.attrib, "1"))
                topology.set("sockets", str(vcpus))

        return self.edited(edit)

    def moved(self, old_dir: str, new_dir: str) -> GuestXml:
        """All paths in `old_dir` now in `new_dir`: disks, console log, kernel and ramdisk."""
        prefix = old_dir.rstrip("/") + "/"

        def at_new_place(path: str) -> str:
            return new_dir.rstrip("/") + "/" + path.removeprefix(prefix)

        def edit(root: etree._Element) -> None:
            for element in _elements(root, "os", "devices"):
                if (element.text or "").startswith(prefix):
                    element.text = at_new_place(element.text or "")
                for key, value in element.attrib.items():
                    if str(value).startswith(prefix):
                        element.set(key, at_new_place(str(value)))

        return self.edited(edit)

    def with_nova_metadata(self, flavor: Flavor) -> GuestXml:
        """The flavor that nova shows in its own metadata: informative, rebuilt at a hard reboot."""
        values = {
            "memory": flavor.memory_mb,
            "disk": flavor.root_gb,
            "swap": flavor.swap_mb,
            "ephemeral": flavor.ephemeral_gb,
            "vcpus": flavor.vcpus,
        }

        def edit(root: etree._Element) -> None:
            for element in root.iterfind(f"metadata/{{{NOVA}}}instance/{{{NOVA}}}flavor"):
                element.set("name", flavor.name)
                for tag, value in values.items():
                    for child in element.iterfind(f"{{{NOVA}}}{tag}"):
                        child.text = str(value)

        return self.edited(edit)

    def without_runtime(self) -> GuestXml:
        """Nothing that only holds on the host where the guest ran.

        Backing files go too: a disk arrives flat, and a named chain would be looked for.
        The emulator goes: each host's libvirt knows its own.
        """

        def edit(root: etree._Element) -> None:
            root.attrib.pop("id", "")
            for path in ("devices/emulator", "seclabel[@type='dynamic']"):
                _drop(root.iterfind(path))
            for tag in ("alias", "backingStore", "mirror"):
                _drop(_elements(root, "devices", tag=tag))
            for source in root.iterfind("devices/disk/source"):
                source.attrib.pop("index", "")

        return self.edited(edit)

    @property
    def name(self) -> str:
        """Name of the domain."""
        return _text(self.tree(), "name")

    @property
    def uuid(self) -> str:
        """UUID of the domain, which is the server's."""
        return _text(self.tree(), "uuid")

    @property
    def machine(self) -> str:
        """Machine type, e.g. `pc-i440fx-7.2`."""
        element = self.tree().find("os/type")
        return "" if element is None else element.get("machine", "")

    @property
    def arch(self) -> str:
        """Architecture of its CPU, e.g. `x86_64`."""
        element = self.tree().find("os/type")
        return "" if element is None else element.get("arch", "")

    @property
    def virt_type(self) -> str:
        """How it is run: `kvm` or `qemu`."""
        return self.tree().get("type", "")

    @property
    def loader(self) -> str:
        """Path of its firmware; empty when the machine has its own."""
        return self.tree().findtext("os/loader") or ""

    @property
    def nvram(self) -> str:
        """Path of the variables that its firmware keeps (UEFI); empty without any."""
        element = self.tree().find("os/nvram")
        if element is None:
            return ""
        named = (element.text or "").strip() or _attribute(element, "source", "file")
        return named or "no file"

    @property
    def is_novas(self) -> bool:
        """Whether nova has made it."""
        return self.tree().find(f"metadata/{{{NOVA}}}instance") is not None

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Network interfaces, in the guest's order."""
        return tuple(
            Interface(
                type=element.get("type", ""),
                mac=_attribute(element, "mac", "address").lower(),
                device=_attribute(element, "target", "dev"),
            )
            for element in self.tree().iterfind("devices/interface")
        )

    @property
    def disk_formats(self) -> dict[str, str]:
        """Path of each disk's file -> its format: what the guest cannot forge."""
        return {
            path: _attribute(disk, "driver", "type") or "raw"
            for disk in self.tree().iterfind("devices/disk")
            if (path := _attribute(disk, "source", "file"))
        }

    @property
    def disk_paths(self) -> tuple[str, ...]:
        """Files of the guest's disks, in the guest's order."""
        return tuple(self.disk_formats)

    def unsupported(self) -> tuple[str, ...]:
        """Why this guest cannot be moved (yet): one clause each; empty when it can."""
        root = self.tree()
        found = [why for path, why in _UNSUPPORTED.items() if root.find(path) is not None]
        found += [f"a disk of type {kind}" for kind in sorted(_other_disks(root))]
        found += [
            f"a network interface of type {interface.type}"
            for interface in self.interfaces
            if interface.type not in ("ethernet", "bridge")
        ]
        return tuple(found)

    def tree(self) -> etree._Element:
        """The definition parsed anew: to look at, or to make another value of.

        Raises:
            StepFailed: it is not XML.
        """
        return parsed(self.text)

    def edited(self, edit: Callable[[etree._Element], None]) -> GuestXml:
        """The definition that `edit` makes of a copy of this one."""
        root = self.tree()
        edit(root)
        return GuestXml(etree.tostring(root, encoding="unicode"))


def for_target(
    xml: str,
    *,
    domain_name: str,
    flavor: Flavor,
    old_dir: str,
    new_dir: str,
) -> str:
    """The definition that the target's libvirt gets, made of the one that the source's has.

    UUID and MAC addresses stay: to the guest, and to who pays for it, it is the same machine.
    """
    guest = (
        GuestXml(xml)
        .without_runtime()
        .renamed(domain_name)
        .resized(memory_mb=flavor.memory_mb, vcpus=flavor.vcpus)
        .moved(old_dir, new_dir)
        .with_nova_metadata(flavor)
    )
    return guest.text


_UNSUPPORTED: Final = {
    "devices/hostdev": "a device of its host is passed through to it",
    "devices/tpm": "it has a TPM, whose state would stay behind",
    "devices/disk/encryption": "a disk is encrypted",
    "devices/disk/source/encryption": "a disk is encrypted",
    "devices/filesystem": "it shares a file system with its host",
    "devices/shmem": "it shares memory with its host",
    "devices/memory": "it has memory modules (NVDIMM or hotplug)",
    "memoryBacking/source": "its memory is shared or backed by files",
    "memoryBacking/access": "its memory is shared or backed by files",
    "memoryBacking/hugepages": "its memory is in huge pages",
    "maxMemory": "its memory can be hot-plugged",
    "numatune": "it is bound to NUMA nodes",
    "cpu/numa": "it has a NUMA topology",
    "cputune/vcpupin": "its CPUs are pinned",
    "cputune/emulatorpin": "its emulator threads are pinned",
    "launchSecurity": "its memory is encrypted (SEV)",
    "os/kernel": "it boots a kernel from outside its disk",
}


def _elements(
    root: etree._Element, *sections: str, tag: str | None = None
) -> Iterator[etree._Element]:
    for section in sections:
        for parent in root.iterfind(section):
            yield from list(parent.iter(tag or etree.Element))


def _drop(elements: Iterator[etree._Element]) -> None:
    for element in list(elements):
        parent = element.getparent()
        if parent is not None:
            parent.remove(element)


def _require(root: etree._Element, path: str) -> etree._Element:
    element = root.find(path)
    if element is None:
        raise StepFailed(
            "The definition of a guest is not one that nova wrote.",
            f"It has no <{path}>.",
            "Look at it with `virsh dumpxml --inactive`.",
        )
    return element


def _text(root: etree._Element, path: str) -> str:
    return _require(root, path).text or ""


def _attribute(element: etree._Element, child: str, key: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(key, "")


def in_file_name(path: str, old: str, new: str) -> str:
    """The path with the domain's name changed in its last part, where it is a word of its own."""
    pure = PurePosixPath(path)
    if not pure.name:
        return path
    word = rf"(?<![0-9A-Za-z]){re.escape(old)}(?![0-9A-Za-z])"
    return str(pure.with_name(re.sub(word, lambda _: new, pure.name)))


def _other_disks(root: etree._Element) -> set[str]:
    """Kinds of disk that are no files; volumes, which nova alone gives a serial, are not meant."""
    disks = (disk for disk in root.iterfind("devices/disk") if disk.find("serial") is None)
    return {kind for disk in disks if (kind := disk.get("type", "")) != "file"}
