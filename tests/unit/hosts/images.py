"""Disk images for tests: made and looked at by QEMU's own programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

MIB = 1 << 20


def make(path: Path, image_format: str, size_bytes: int, backing: Path | None = None) -> Path:
    """An empty image, or an overlay over a raw one."""
    chain = ["-b", str(backing), "-F", "raw"] if backing else []
    command = ["qemu-img", "create", "-q", "-f", image_format, *chain, str(path), str(size_bytes)]
    subprocess.run(command, check=True)
    return path


def edit(path: Path, image_format: str, *commands: str) -> None:
    """What a guest would write: commands of qemu-io."""
    argv = ["qemu-io", "-f", image_format, "-d", "unmap"]
    for command in commands:
        argv += ["-c", command]
    subprocess.run([*argv, str(path)], check=True, stdout=subprocess.DEVNULL)


def overlay(directory: Path) -> Path:
    """A disk as nova makes it, with everything that a copy could get wrong."""
    base = make(directory / "base", "raw", 24 * MIB)
    edit(base, "raw", "write -P 1 1M 3M", "write -P 2 20M 4M")
    path = make(directory / "disk", "qcow2", 24 * MIB + 4096, base)
    edit(
        path,
        "qcow2",
        "write -P 3 2500k 12k",  # over data of the base, not aligned
        "write -z 1M 512k",  # zeros over data of the base
        "write -P 0 8M 2M",  # data that is all zero
        "write -P 4 24M 4k",  # the disk ends within a block
        "write -P 5 12M 64k",
        "discard 12M 64k",
    )
    return path


def same_content(one: Path, other: Path) -> bool:
    """Whether a guest would see the same: QEMU's judgement, not ours."""
    done = subprocess.run(
        ["qemu-img", "compare", str(one), str(other)], capture_output=True, text=True, check=False
    )
    return done.returncode == 0


def server(path: Path, image_format: str, socket: Path, *, read_only: bool) -> list[str]:
    """A server as cellmove starts it, but as this user."""
    mode = ["--read-only"] if read_only else ["--shared=2"]
    return ["qemu-nbd", *mode, f"--format={image_format}", f"--socket={socket}", str(path)]
