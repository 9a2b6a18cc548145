"""What a disk shows: its hash, and in what it differs from another. Travels with `stream.py`."""

# This runs where no cellmove is: old Python, old spelling of types.
# ruff: noqa: UP006, UP035, UP045

import hashlib
import itertools
import struct
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from cellmove.hosts.nbd import BLOCK, Disk, Part

Read = Tuple[int, bytearray]
"""Offset and content of a block."""
Pair = Tuple[Read, Optional[bytes]]
"""A block, and what is below it as far as that is known."""
PIECE = 1 << 16
"""Zeros are left out in pieces of this size: a cluster of qcow2."""
ZEROS, ZERO_PIECE = bytes(BLOCK), bytes(PIECE)
WINDOW = 32 << 20
"""What is read back at once, in bytes: whole blocks."""


class Content:
    """Hash of what is read: the same however it is allocated and cut, and whatever zeros follow."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, offset: int, data: bytearray) -> None:
        """Take what comes next; offsets grow, and are whole pieces."""
        view = memoryview(data)
        for start, end in runs(data):
            for position in range(start, end, PIECE):
                piece = view[position : min(position + PIECE, end)]
                self._hash.update(struct.pack(">Q", offset + position))
                self._hash.update(piece)
                self._hash.update(ZEROS[: PIECE - len(piece)])

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def runs(block: bytearray) -> Iterator[Tuple[int, int]]:
    """Start and end of what is not zero in a block."""
    start = None
    for position in range(0, len(block), PIECE):
        if is_zero(block, position):
            if start is not None:
                yield start, position
            start = None
        elif start is None:
            start = position
    if start is not None:
        yield start, len(block)


def is_zero(block: bytearray, position: int) -> bool:
    """Whether a piece of the block is: compared where it is, for copying it takes longer."""
    left = len(block) - position
    return block.startswith(ZERO_PIECE if left >= PIECE else ZERO_PIECE[:left], position)


def changes(block: bytearray, under: Optional[bytes]) -> Iterator[Tuple[int, int, bool]]:
    """Start and end of what is not as below it, and whether it is data; the rest of it is zeros.

    Nothing known of what is below: all differs.
    """
    start, last = 0, ""
    for position in range(0, len(block), PIECE):
        kind = "zeros" if is_zero(block, position) else "data"
        if under is ZEROS:
            kind = "" if kind == "zeros" else kind
        elif under and block.startswith(under[position : position + PIECE], position):
            kind = ""
        if kind != last:
            if last:
                yield start, position, last == "data"
            start, last = position, kind
    if last:
        yield start, len(block), last == "data"


def below(base: Disk, parts: List[Part]) -> Iterator[bytes]:
    """What the base has in each part: zeros where it has ended."""
    inside = [(at, min(length, base.size - at)) for at, length in parts if at < base.size]
    read = base.read(inside)
    for at, length in parts:
        found = bytes(next(read)[1]) if at < base.size else b""
        yield found + ZEROS[: length - len(found)]


def all_parts(disk: Disk, base: Disk) -> List[Part]:
    """The parts in which the disk or its base may hold something, in order."""
    held = [at for at, _ in disk.data_parts() + base.data_parts() if at < disk.size]
    return [(at, min(BLOCK, disk.size - at)) for at in sorted(set(held))]


def digest_of(blocks: Iterable[Read]) -> str:
    """Hash of what these hold."""
    content = Content()
    for offset, block in blocks:
        content.add(offset, block)
    return content.hexdigest()


def with_known(parts: List[Part], known: Dict[int, str], size: int) -> List[Part]:
    """These parts, and all of each window in which the receiver may hold something."""
    held = [at for start in known for at in range(start, min(start + WINDOW, size), BLOCK)]
    offsets = sorted({at for at, _ in parts}.union(held))
    return [(at, min(BLOCK, size - at)) for at in offsets]


def judged(pairs: Iterable[Pair], known: Dict[int, str]) -> Iterator[Pair]:
    """The same, but where the receiver holds something that alone is compared with."""
    for number, found in itertools.groupby(pairs, lambda pair: pair[0][0] // WINDOW):
        theirs = known.get(number * WINDOW)
        if theirs is None:
            yield from found
            continue
        blocks = [block for block, _ in found]
        same = digest_of(blocks) == theirs
        for offset, block in blocks:
            yield (offset, block), bytes(block) if same else None
