"""The program on both ends of a disk's way: fed to `python3 -c`, for Python 3.6 and later.

    send STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER... [--base SOCKET SERVER...]
    pack STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER... [--base SOCKET SERVER...]
    receive STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...
    hash STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...

`send` reads a disk and writes the stream to standard output, and so does `pack`, which makes data
smaller where a sample shows that it can; `receive` writes the stream from standard input to a disk;
`hash` only reads. LIMIT is how many bytes a second are sent at most; 0: as many as can be. EXPORT
is the disk's name at its server, most often none. With a BITMAP only what that dirty bitmap names
is sent, and the receiver's disk is changed there and nowhere else. SERVER is the command of a
qemu-nbd that serves the disk at SOCKET to one client and ends when that hangs up: whatever happens
to us, nothing stays behind. Without SERVER somebody else's is there already: that of a running
guest's backup. `--base` serves what the disk lies on and the receiver has, too: only what differs
from it is sent, and the hash is of all that the disk shows.

Both ends say on standard error how far they are and, last, the hash of the content:
`cellmove-total N`, `cellmove-done N`, `cellmove-verified N`, `cellmove-hash HEX`.

The stream: magic, size of the disk, whether it is a part, then frames of offset, length and data;
only data that is not zero travels. In a part, or over a base, zeros are frames, too: of their
offset with the bit ZERO, and no data. Packed data has the bit PACKED, and is what zlib makes of it:
all that every Python has. A frame with no length says that the sender lives. The last has the
offset END and carries the hash, so a stream that breaks is not taken for a whole one.
"""

# This file runs where no cellmove is, with the text of `nbd.py` for its import (`far.py`):
# old Python, old spelling of types.
# ruff: noqa: B905, PTH108, PTH110, UP006, UP035, UP041, UP045

import hashlib
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from typing import BinaryIO, Iterator, List, Optional, Tuple

from cellmove.hosts.nbd import BLOCK, Disk, NoContext, Part, StreamError

PIECE = 1 << 16
"""Zeros are left out in pieces of this size: a cluster of qcow2."""
ZEROS = bytes(BLOCK)
MAGIC = b"CELLMOVE-DISK-3\n"
HEAD = struct.Struct(">QB")
FRAME = struct.Struct(">QI")
END = (1 << 64) - 1
ZERO, PACKED = 1 << 63, 1 << 62
WORTH = 0.8
"""Data is packed if no more than this part of it is left; else the next SKIPPED are not tried."""
SKIPPED = 15
SERVER_SECONDS = 60
"""How long a server may take to begin, and to end."""


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


class Meter:
    """Says now and then how far we are, and ends us when nothing has moved for too long."""

    def __init__(self, word: str, stall_seconds: int) -> None:
        self._word = word
        self._stall_seconds = stall_seconds
        self._done = 0
        self._said = 0.0
        self.moved(0)

    def moved(self, count: int) -> bool:
        """Count bytes; answers whether it was time to say so."""
        self._done += count
        signal.alarm(self._stall_seconds)  # Its default is to end the process.
        if time.monotonic() - self._said < 0.25:
            return False
        self.say()
        return True

    def say(self) -> None:
        self._said = time.monotonic()
        tell(self._word, self._done)


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


def tell(word: str, value: object) -> None:
    """One line for the other side of the SSH connection."""
    sys.stderr.write(f"cellmove-{word} {value}\n")
    sys.stderr.flush()


def runs(block: bytearray) -> Iterator[Tuple[int, int]]:
    """Start and end of what is not zero in a block."""
    start = None
    for position in range(0, len(block), PIECE):
        piece = block[position : position + PIECE]
        if piece == ZEROS[: len(piece)]:
            if start is not None:
                yield start, position
            start = None
        elif start is None:
            start = position
    if start is not None:
        yield start, len(block)


def changes(block: bytearray, under: Optional[bytes]) -> Iterator[Tuple[int, int, bool]]:
    """Start and end of what is not as below it, and whether it is data; the rest of it is zeros.

    Nothing known of what is below: all differs.
    """
    start, last = 0, ""
    for position in range(0, len(block), PIECE):
        piece = block[position : position + PIECE]
        if under is not None and piece == under[position : position + PIECE]:
            kind = ""
        else:
            kind = "zeros" if piece == ZEROS[: len(piece)] else "data"
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


def send(disk: Disk, wire: Wire, meter: Meter, base: Optional[Disk] = None) -> None:
    """Write the disk's content to a stream: all of it, what its bitmap names, or what differs."""
    content = Content()
    if disk.is_part:
        parts = disk.dirty_parts()
        unders: Iterator[Optional[bytes]] = itertools.repeat(None)
    elif base:
        parts = all_parts(disk, base)
        unders = below(base, parts)
    else:
        parts = disk.data_parts()
        unders = itertools.repeat(ZEROS)
    tell("total", sum(length for _, length in parts))
    wire.begin(disk)
    for (offset, block), under in zip(disk.read(parts), unders):
        content.add(offset, block)
        for start, stop, is_data in changes(block, under):
            if is_data:
                wire.data(offset + start, memoryview(block)[start:stop])
            else:
                wire.zeros(offset + start, stop - start)
        if meter.moved(len(block)):
            wire.alive()
    meter.say()
    tell("sent", wire.sent)
    digest = content.hexdigest()
    wire.end(digest)
    tell("hash", digest)


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


def receive(disk: Disk, stream: BinaryIO, stall_seconds: int) -> None:
    """Write a stream's content to the disk, then read it back and compare."""
    meter = Meter("received", stall_seconds)
    if exactly(stream, len(MAGIC)) != MAGIC:
        raise StreamError("this is not a disk: does the account's shell print something?")
    size, is_part = HEAD.unpack(exactly(stream, HEAD.size))
    if size > disk.size:
        raise StreamError(f"the disk is too small: {disk.size} bytes")
    expected = ""
    changed: List[Part] = []
    for offset, data in frames(stream):
        if offset == END:
            expected = data.decode()
        elif offset & ZERO:
            disk.write_zeros(offset - ZERO, len(data))
            changed.append((offset - ZERO, len(data)))
        elif data:
            disk.write(offset, data)
            changed.append((offset, len(data)))
        meter.moved(len(data))
    disk.flush()
    found = verify(disk, sorted(changed) if is_part else disk.data_parts(), stall_seconds)
    tell("hash", found)
    if found != expected:
        raise StreamError(f"the content differs: sent {expected}, found {found}")


def verify(disk: Disk, parts: List[Part], stall_seconds: int) -> str:
    """The hash of what these parts of the disk hold now."""
    content, meter = Content(), Meter("verified", stall_seconds)
    for offset, block in disk.read(parts):
        content.add(offset, block)
        meter.moved(len(block))
    return content.hexdigest()


def end_stale(path: str) -> None:
    """End a server that an earlier attempt left without a client, by being its client.

    Raises:
        StreamError: it has a client: an earlier attempt is still at work.
    """
    try:
        Disk(path, 15).hang_up()
        time.sleep(0.5)
    except socket.timeout:
        raise StreamError("an earlier copy of this disk has not ended yet") from None
    except (OSError, StreamError):
        pass  # Nobody there.
    remove(path)


def remove(path: str) -> None:
    """Delete a socket; twice is once."""
    if os.path.exists(path):
        os.unlink(path)


def serve(
    path: str, command: List[str], export: str = "", bitmap: str = ""
) -> Tuple[Disk, "subprocess.Popen[bytes]"]:
    """Start the disk's server and connect to it."""
    end_stale(path)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            return Disk(path, SERVER_SECONDS, export, bitmap), child
        except NoContext:
            end_stale(path)  # It waits for a client that it can serve.
            raise
        except (OSError, StreamError) as error:
            failure = error
        if child.poll() is not None:
            remove(path)  # It listens before it opens the disk.
            raise StreamError(f"the server of the disk ended with status {child.returncode}")
        if time.monotonic() > deadline:
            raise StreamError(f"the server of the disk does not answer: {failure}")
        time.sleep(0.02)


def end_with_input() -> None:
    """End this process when standard input closes: then nobody waits for us any more."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def run(role: str, stall_seconds: int, limit: int, where: List[str]) -> None:
    """One end's whole work."""
    at = where.index("--base") if "--base" in where else len(where)
    (export, bitmap, path, *command), under = where[:at], where[at + 1 :]
    served = [serve(path, command, export, bitmap)] if command else []
    disk = served[0][0] if served else Disk(path, SERVER_SECONDS, export, bitmap)
    if under:
        served.append(serve(under[0], under[1:]))
    if role in ("send", "pack"):
        end_with_input()  # Not earlier: a server that never had a client would not end.
        base = served[-1][0] if under else None
        wire = Wire(sys.stdout.buffer, Pace(limit), Packer() if role == "pack" else None)
        send(disk, wire, Meter("done", stall_seconds), base)
    elif role == "hash":
        tell("hash", verify(disk, disk.data_parts(), stall_seconds))
    else:
        receive(disk, sys.stdin.buffer, stall_seconds)
    signal.alarm(0)
    if not command:
        disk.hang_up()
    for each, child in served:
        each.hang_up()
        if child.wait(SERVER_SECONDS):
            raise StreamError(f"the server of the disk ended with status {child.returncode}")


def main(arguments: List[str]) -> int:
    role, stall_seconds, limit, *where = arguments
    try:
        run(role, int(stall_seconds), int(limit), where)
    except (StreamError, OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{role}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
