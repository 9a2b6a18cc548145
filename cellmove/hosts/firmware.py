"""The variables that a UEFI guest's firmware keeps: a small file of libvirt's, named after it.

Nothing here runs anything. Every command is one that `playbooks/templates/sudoers.j2` allows,
argument for argument: a change here is a change there.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts.disks import Argv

DIRECTORY: Final = "/var/lib/libvirt/qemu/nvram"
"""Where libvirt keeps them, unless somebody wrote another path into the guest's definition."""
LARGEST_BYTES: Final = 1024**2
"""It travels through our own memory: those of x86 have half as much at most."""
_PATH: Final = re.compile(re.escape(DIRECTORY) + r"/[A-Za-z0-9][A-Za-z0-9_-]*_VARS[.]fd")


def is_ours(path: str) -> bool:
    """Whether it is a file that these commands are allowed to touch."""
    return _PATH.fullmatch(path) is not None


def exists(path: str) -> Argv:
    """Status 0: there is such a file; 1: there is none."""
    return ("/usr/bin/test", "-f", _checked(path))


def content(path: str) -> Argv:
    """What is in it, as text."""
    return ("/usr/bin/base64", "--wrap=0", _checked(path))


def write(path: str) -> Argv:
    """Write standard input to it, whatever is there; libvirt gives it to QEMU at the start."""
    return ("/usr/bin/install", "--mode=0600", "/dev/stdin", _checked(path))


def remove(path: str) -> Argv:
    """Delete it; twice is once."""
    return ("/usr/bin/rm", "-f", _checked(path))


def decoded(printed: str, path: str) -> bytes:
    """The bytes that `content` gave.

    Raises:
        StepFailed: it gave something else.
    """
    try:
        return base64.b64decode(printed, validate=True)
    except binascii.Error as error:
        raise StepFailed(
            f"The firmware's variables in {path} cannot be read.",
            f"What came begins with {printed[:40]!r}.",
            "Run `base64` on that file by hand.",
        ) from error


def _checked(path: str) -> str:
    if not is_ours(path):
        raise StepFailed(
            f"{path!r} is no file of a firmware's variables.",
            f"Those are named {DIRECTORY}/<guest>_VARS.fd.",
            "Find out who wrote this path; nothing was done with it.",
        )
    return path
