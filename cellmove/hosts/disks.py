"""A server's files on a hypervisor: where they are, the commands that handle them, what those say.

Nothing here runs anything. Every command is one that `playbooks/templates/sudoers.j2` allows,
argument for argument: a change here is a change there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cellmove.errors import StepFailed
from cellmove.model import UUID, Disk

Argv = tuple[str, ...]

HALF: Final = ".cellmove"
"""Ending of a disk's file until it is whole."""
BASE: Final = "disk.base"
"""A base under way to the image cache: until it is whole it is one of the server's halves."""
INFO: Final = "disk.info"
"""nova's note of each disk's format: JSON, path -> format."""
FORMATS: Final = ("qcow2", "raw")
BITMAP_VERSION: Final = 3
"""Of qcow2: since this one a file can hold dirty bitmaps (qemu-img calls it compat 1.1)."""

_DISK: Final = re.compile(r"disk(\.[a-z0-9]+)?")
_BASE: Final = re.compile(r"[0-9a-f]{40}")
_BITMAP: Final = re.compile(r"cellmove-[0-9a-f]{8}-[0-9]+")
_PATH: Final = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")


def as_user(user: str, argv: Sequence[str]) -> Argv:
    """The command as another user, or not at all: sudo never asks for a password."""
    return ("sudo", "-n", "-u", user, "--", *argv)


def checked_uuid(value: str) -> str:
    """The value, which is a UUID as nova writes it.

    Raises:
        StepFailed: it is something else; it must not become part of a path or a command.
    """
    return _checked(UUID, value, "a UUID")


def checked_disk(name: str) -> str:
    """The name, which is one that nova gives to a disk's file.

    Raises:
        StepFailed: it is something else.
    """
    if name == INFO or name.endswith(HALF):
        raise StepFailed(f"{name} is no disk.", "nova keeps its notes there.", "Name a disk.")
    return _checked(_DISK, name, "a disk's name")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a hypervisor keeps its servers' files."""

    instances_path: str = "/var/lib/nova/instances"
    """nova's `instances_path`."""
    socket_path: str = "/var/lib/cellmove"
    """A directory of ours, which nova may write to: the disks' servers listen there."""
    guest_socket_path: str = "/var/lib/cellmove-guests"
    """A directory that QEMU may write to, and we read: running guests' backups listen there."""

    def __post_init__(self) -> None:
        for path in (self.instances_path, self.socket_path, self.guest_socket_path):
            _checked(_PATH, path, "an absolute path without special characters")

    def directory(self, server: str) -> str:
        """The server's instance directory."""
        return f"{self.instances_path}/{checked_uuid(server)}"

    def disk(self, server: str, name: str) -> str:
        """Path of a server's disk."""
        return f"{self.directory(server)}/{checked_disk(name)}"

    def half(self, server: str, name: str) -> str:
        """Path of a server's disk until it is whole."""
        return self.disk(server, name) + HALF

    def info(self, server: str) -> str:
        """Path of nova's note of the disks' formats."""
        return f"{self.directory(server)}/{INFO}"

    @property
    def cache(self) -> str:
        """Where nova caches images: `[image_cache]subdirectory_name` is nova's default."""
        return f"{self.instances_path}/_base"

    def base(self, name: str) -> str:
        """Path of an image in the cache; its name is the SHA-1 of the image's id."""
        return f"{self.cache}/{_checked(_BASE, name, 'the name of a cached image')}"

    def kept(self, server: str, name: str) -> str:
        """A further name of a base, in the directory of a server that needs it."""
        return f"{self.directory(server)}/{kept_name(_checked(_BASE, name, 'a base'))}"

    def socket(self, server: str, name: str) -> str:
        """Where a disk's server listens."""
        return f"{self.socket_path}/{checked_uuid(server)}-{checked_disk(name)}.sock"

    def guest_socket(self, server: str) -> str:
        """Where a running guest's backup listens."""
        return f"{self.guest_socket_path}/{checked_uuid(server)}.sock"


def kept_name(base: str) -> str:
    """Name of the link that keeps a base."""
    return f"base-{base}"


def exists(path: str) -> Argv:
    """Status 0: there is such a directory; 1: there is none."""
    return ("/usr/bin/test", "-d", path)


def listing(directory: str) -> Argv:
    """Names in a directory, one a line."""
    return ("/usr/bin/ls", "-1A", directory)


def content(path: str) -> Argv:
    """What a small file says."""
    return ("/usr/bin/cat", path)


def make_directory(directory: str) -> Argv:
    """Make a directory; twice is once."""
    return ("/usr/bin/mkdir", "-p", directory)


def remove_directory(directory: str) -> Argv:
    """Delete a directory and all in it; twice is once."""
    return ("/usr/bin/rm", "-rf", directory)


def remove_half(path: str) -> Argv:
    """Delete what an earlier try left of a disk, even if something still has it open."""
    return ("/usr/bin/rm", "-f", path)


def remove_disk(half: str, path: str) -> Argv:
    """Delete one disk and what an earlier try left of it; twice is once."""
    return ("/usr/bin/rm", "-f", half, path)


def keep_whole(half: str, path: str) -> Argv:
    """Give a whole disk its name: at once, as nova does."""
    return ("/usr/bin/mv", "-T", half, path)


def write(path: str) -> Argv:
    """Write standard input to a file."""
    return ("/usr/bin/tee", path)


def free(path: str) -> Argv:
    """Room in the file system of a path, in bytes, for who is not root."""
    return ("df", "--output=avail", "--block-size=1", path)


def is_file(path: str) -> Argv:
    """Status 0: there is such a file; 1: there is none."""
    return ("/usr/bin/test", "-f", path)


def keep_base(half: str, base: str) -> Argv:
    """Give a whole base its name unless there is one: nova may have fetched it meanwhile."""
    return ("/usr/bin/mv", "-n", "-T", half, base)


def link(path: str, other: str) -> Argv:
    """Give a file another name."""
    return ("/usr/bin/ln", "-T", path, other)


def remove(path: str) -> Argv:
    """Delete a name of a file; twice is once."""
    return ("/usr/bin/rm", "-f", path)


def image_info(path: str, image_format: str | None, *, chain: bool = True) -> Argv:
    """What an image is, its backing files included unless `chain` says not to open them.

    A guest can write what it likes into a raw disk, also the head of a qcow2 image that names
    any file of the host: so a known format is named. Only an unknown one is guessed.
    """
    guess = ("-f", _checked_format(image_format)) if image_format else ()
    below = ("--backing-chain",) if chain else ()
    return ("/usr/bin/qemu-img", "info", "-U", *below, "--output=json", *guess, path)


def image_create(path: str, image_format: str, size_bytes: int, base: str = "") -> Argv:
    """Make an empty image; with `base`, the path of a raw file, it lies on that."""
    below = ("-b", base, "-F", "raw") if base else ()
    image = ("-f", _checked_format(image_format), *below, path, str(int(size_bytes)))
    return ("/usr/bin/qemu-img", "create", "-q", *image)


def image_server(
    path: str, image_format: str, socket: str, *, read_only: bool, bitmap: str = ""
) -> Argv:
    """Serve an image to one client, and end when it hangs up (both are qemu-nbd's default).

    One that is written to has two: who writes, and who reads that back. With `bitmap`, that dirty
    bitmap of the image can be read, too.
    """
    mode = ("--read-only",) if read_only else ("--shared=2",)
    dirty = ("--bitmap=" + _checked(_BITMAP, bitmap, "a bitmap of ours"),) if bitmap else ()
    image = ("--format=" + _checked_format(image_format), "--cache=none", "--socket=" + socket)
    return ("/usr/bin/qemu-nbd", *mode, *dirty, *image, path)


def remove_bitmap(path: str, bitmap: str) -> Argv:
    """Delete a dirty bitmap of a stopped guest's disk."""
    name = _checked(_BITMAP, bitmap, "a bitmap of ours")
    return ("/usr/bin/qemu-img", "bitmap", "--remove", "-f", "qcow2", path, name)


def bitmaps(info: str, *, usable: bool) -> tuple[str, ...]:
    """Names of the dirty bitmaps in the image that `image_info` described.

    `usable`: only those that QEMU has written down whole.
    """
    try:
        found = _data(json.loads(info)[0]).get("bitmaps", [])
        return tuple(
            str(each["name"]) for each in found if not (usable and "in-use" in each["flags"])
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _not_understood("qemu-img info", info) from error


def disk_names(listed: str) -> tuple[str, ...]:
    """The whole disks among the names that `listing` gave."""
    names = (name for name in listed.splitlines() if _DISK.fullmatch(name))
    return tuple(sorted(name for name in names if name != INFO and not name.endswith(HALF)))


def half_names(listed: str) -> tuple[str, ...]:
    """The disks under way among the names that `listing` gave."""
    halves = (name for name in listed.splitlines() if name.endswith(HALF))
    names = (name.removesuffix(HALF) for name in halves)
    return tuple(sorted(name for name in names if _DISK.fullmatch(name)))


def disk_of(name: str, info: str, cache: str = "") -> Disk:
    """The disk that `image_info` described; `cache` is the directory of its host's image cache.

    Raises:
        StepFailed: what it said is not understood, or the image has parts that would stay behind.
    """
    try:
        read = json.loads(info)
        chain = read if isinstance(read, list) else [read]
        top = chain[0]
        if top.get("encrypted") or _data(top).get("data-file"):
            raise StepFailed(
                f"{name} cannot be moved.",
                "It is encrypted or has a data file.",
                "Move it by hand.",
            )
        return Disk(
            name=name,
            format=str(top["format"]),
            size_bytes=int(top["virtual-size"]),
            allocated_bytes=sum(int(image.get("actual-size", 0)) for image in chain),
            version=2 if _data(top).get("compat") == "0.10" else BITMAP_VERSION,
            base=base_of(info, cache),
            base_bytes=sum(int(image.get("actual-size", 0)) for image in chain[1:]),
            why_flat=_why_flat(chain, cache),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _not_understood("qemu-img info", info) from error


def base_of(info: str, cache: str) -> str:
    """Name of the cached image that `image_info` described a disk on; empty: it lies on none."""
    read = json.loads(info)
    top = read[0] if isinstance(read, list) else read
    below = str(top.get("full-backing-filename") or top.get("backing-filename") or "")
    directory, _, name = below.rpartition("/")
    return name if directory == cache and _BASE.fullmatch(name) else ""


def _why_flat(chain: Sequence[Mapping[str, Any]], cache: str) -> str:
    """Why a disk cannot lie on the same at another host; empty: it can, or it lies on nothing."""
    top = chain[0]
    if not top.get("backing-filename"):
        return ""
    if len(chain) > 2:
        return f"it lies on {len(chain) - 1} images"
    if not base_of(json.dumps(chain), cache):
        return "what it lies on is no image of the host's cache"
    kind = chain[1]["format"] if chain[1:] else top.get("backing-filename-format")
    return "" if kind == "raw" else f"its base is {kind}"


def formats(info: str) -> dict[str, str]:
    """File name -> format, of what nova's note says; an empty or broken note says nothing."""
    try:
        note = json.loads(info)
        return {str(path).rpartition("/")[2]: str(kind) for path, kind in note.items()}
    except (ValueError, AttributeError):
        return {}


def note_of(layout: Layout, server: str, disks: Iterable[Disk]) -> str:
    """What nova notes of these disks (nova 26: virt/libvirt/imagebackend.py)."""
    note: Mapping[str, str] = {
        layout.disk(server, disk.name): _checked_format(disk.format) for disk in disks
    }
    return json.dumps(note) + "\n"


def free_bytes(printed: str) -> int:
    """The number that `free` gave.

    Raises:
        StepFailed: it gave none.
    """
    try:
        return int(printed.split()[1])
    except (ValueError, IndexError) as error:
        raise _not_understood("df", printed) from error


def _data(image: Mapping[str, Any]) -> Mapping[str, Any]:
    found = image.get("format-specific", {}).get("data", {})
    return found if isinstance(found, Mapping) else {}


def _checked_format(image_format: str) -> str:
    if image_format not in FORMATS:
        raise StepFailed(
            f"A disk of format {image_format!r} cannot be moved.",
            f"cellmove knows {' and '.join(FORMATS)}.",
            "Move it by hand.",
        )
    return image_format


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise StepFailed(
            f"{value!r} is not {what}.",
            "It came from a database, a service or a host.",
            "Find out who wrote it; nothing was done with it.",
        )
    return value


def _not_understood(program: str, printed: str) -> StepFailed:
    return StepFailed(
        f"The answer of `{program}` is not understood.",
        f"It begins with {printed[:80]!r}.",
        "Run it by hand on the hypervisor.",
    )
