"""What travels between the ends of a disk's way: written and read. Travels with `stream.py`.

The stream: magic, size of the disk, whether it is a part, then frames of offset, length and data;
only data that is not zero travels. In a part, over a base, and where the receiver holds something
already, zeros are frames, too: of their offset with the bit ZERO, and no data. Packed data has the
bit PACKED, and is what zlib makes of it: all that every Python has. A frame with no length says
that the sender lives. The last has the offset END and carries the hash, so a stream that breaks is
not taken for a whole one.
"""

# This runs where no cellmove is: old Python, old spelling of types.
# ruff: noqa: UP006, UP035, UP045

import struct
import time
import zlib
from typing import BinaryIO, Iterator, Optional, Tuple

from cellmove.hosts.content import ZEROS
from cellmove.hosts.nbd import BLOCK, Disk, StreamError

MAGIC = b"CELLMOVE-DISK-3\n"
HEAD = struct.Struct(">QB")
FRAME = struct.Struct(">QI")
END = (1 << 64) - 1
ZERO, PACKED = 1 << 63, 1 << 62
WORTH = 0.8
"""Data is packed if no more than this part of it is left; else the next SKIPPED are not tried."""
SKIPPED = 15


class Pace:
    """Holds a sender to so many bytes a second; 0: it is not held."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._due = 0.0
        """When all that was sent so far would have been sent at just that rate."""

    def sent(self, count: int) -> None:
        """Wait until this much more may have been sent; time not used is not saved up."""
        if not self._limit:
            return
        now = time.monotonic()
        self._due = max(self._due, now) + count / self._limit
        time.sleep(self._due - now)


class Packer:
    """Makes data smaller as long as that is worth its time."""

    def __init__(self) -> None:
        self._skip = 0

    def packed(self, data: memoryview) -> Optional[bytes]:
        """The same in less; None: it is not much less, or what came lately was not."""
        if self._skip:
            self._skip -= 1
            return None
        small = zlib.compress(data, 1)
        if len(small) <= len(data) * WORTH:
            return small
        self._skip = SKIPPED
        return None


class Wire:
    """The stream, as its sender sees it."""

    def __init__(self, out: BinaryIO, pace: Pace, packer: Optional[Packer] = None) -> None:
        self._out = out
        self._pace = pace
        self._packer = packer
        self.sent = 0
        """Bytes of data, as they travel."""

    def begin(self, disk: Disk) -> None:
        self._out.write(MAGIC + HEAD.pack(disk.size, disk.is_part))

    def data(self, offset: int, data: memoryview) -> None:
        small = self._packer.packed(data) if self._packer else None
        going = data if small is None else small
        self._out.write(FRAME.pack(offset | (0 if small is None else PACKED), len(going)))
        self._out.write(going)
        self._pace.sent(len(going))
        self.sent += len(going)

    def zeros(self, offset: int, length: int) -> None:
        self._out.write(FRAME.pack(offset | ZERO, length))

    def alive(self) -> None:
        """Somebody reads on, though there is nothing to write."""
        self._out.write(FRAME.pack(0, 0))
        self._out.flush()

    def end(self, digest: str) -> None:
        self._out.write(FRAME.pack(END, len(digest)) + digest.encode())
        self._out.flush()


def frames(stream: BinaryIO) -> Iterator[Tuple[int, bytes]]:
    """Offset, of zeros with the bit ZERO, and data of each frame; the last has the offset END."""
    while True:
        offset, length = FRAME.unpack(exactly(stream, FRAME.size))
        if length > BLOCK:
            raise StreamError("the stream is damaged")
        if offset == END:
            yield offset, exactly(stream, length)
            return
        if offset & ZERO:
            yield offset, ZEROS[:length]
        elif offset & PACKED:
            yield offset - PACKED, unpacked(exactly(stream, length))
        else:
            yield offset, exactly(stream, length)


def unpacked(small: bytes) -> bytes:
    """What was packed, a block at most.

    Raises:
        StreamError: it is nothing like that.
    """
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(small, BLOCK)
    except zlib.error:
        data = b""
    if not unpacking.eof:
        raise StreamError("the stream is damaged")
    return data


def exactly(stream: BinaryIO, length: int) -> bytes:
    """So many bytes of a stream.

    Raises:
        StreamError: it ends too early.
    """
    data = stream.read(length)
    if len(data) < length:
        raise StreamError("the stream broke off")
    return data
