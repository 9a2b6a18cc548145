"""The program on both ends of a disk's way: fed to `python3 -c`, for Python 3.6 and later.

    send STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER... [--base SOCKET SERVER...]
    receive STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...
    hash STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...

`send` reads a disk and writes the stream to standard output; `receive` writes the stream from
standard input to a disk; `hash` only reads. LIMIT is how many bytes a second are sent at most; 0:
as many as can be. EXPORT is the disk's name at its server, most often none. With a BITMAP only what
that dirty bitmap names is sent, and the receiver's disk is changed there and nowhere else. SERVER
is the command of a qemu-nbd that serves the disk at SOCKET to one client and ends when that hangs
up: whatever happens to us, nothing stays behind. Without SERVER somebody else's is there already:
that of a running guest's backup. `--base` serves what the disk lies on and the receiver has, too:
only what differs from it is sent, and the hash is of all that the disk shows.

Both ends say on standard error how far they are and, last, the hash of the content:
`cellmove-total N`, `cellmove-done N`, `cellmove-verified N`, `cellmove-hash HEX`.

The stream: magic, size of the disk, whether it is a part, then frames of offset, length and data;
only data that is not zero travels. In a part, or over a base, zeros are frames, too: of their
offset with the bit ZERO, and no data. A frame with neither says that the sender lives. The last has
the offset END and carries the hash, so a stream that breaks is not taken for a whole one.
"""

# This file runs where no cellmove is: old Python, old spelling of types.
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
from collections import deque
from typing import BinaryIO, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

BLOCK = 1 << 20
"""What is read, hashed and written at once: aligned, in bytes."""
PIECE = 1 << 16
"""Zeros are left out in pieces of this size: a cluster of qcow2."""
DEPTH = 8
"""Requests in flight."""
ZEROS = bytes(BLOCK)
MAGIC = b"CELLMOVE-DISK-2\n"
HEAD = struct.Struct(">QB")
FRAME = struct.Struct(">QI")
END = (1 << 64) - 1
ZERO = 1 << 63
SERVER_SECONDS = 60
"""How long a server may take to begin, and to end."""

# NBD protocol, doc/proto.md of the NetworkBlockDevice project.
OPT_GO, OPT_STRUCTURED, OPT_SET_CONTEXT = 7, 8, 10
REP_ACK, REP_INFO, REP_CONTEXT, REP_ERROR = 1, 3, 4, 1 << 31
READ, WRITE, DISCONNECT, FLUSH, WRITE_ZEROES, STATUS = 0, 1, 2, 3, 6, 7
SIMPLE_REPLY, STRUCTURED_REPLY = 0x67446698, 0x668E33EF
CHUNK_DATA, CHUNK_STATUS, CHUNK_ERROR, CHUNK_LAST = 1, 5, 1 << 15, 1
IS_ZERO = 2
IS_DIRTY = 1

Extent = Tuple[int, int, int]
"""Offset, end and flags."""
Part = Tuple[int, int]
"""Offset and length, of one BLOCK at most."""


class StreamError(Exception):
    """The copy cannot go on."""


class NoContext(StreamError):
    """The server is well, but does not know what we ask for: no use to ask again."""


class Answer(NamedTuple):
    """What a request asked for, filled by replies that come in any order."""

    offset: int
    data: bytearray
    extents: List[Tuple[int, int]]
    """Length and flags of each."""


class Disk:
    """A disk behind an NBD server: a client for one export, with requests in flight."""

    def __init__(
        self, path: str, timeout_seconds: float, export: str = "", bitmap: str = ""
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_seconds)
        self._pending: Dict[int, Answer] = {}
        self._done: Dict[int, Answer] = {}
        self._cookie = 0
        context = "qemu:dirty-bitmap:" + bitmap if bitmap else "base:allocation"
        self.size = 0
        self.is_part = bool(bitmap)
        try:
            self._socket.connect(path)
            self._negotiate(export.encode(), context.encode())
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(None)

    def data_parts(self) -> List[Part]:
        """The parts that may hold something, in order; each is a whole block."""
        parts: List[Part] = []
        for offset, end, flags in self._extents():
            if not flags & IS_ZERO:
                first = offset - offset % BLOCK
                if parts and parts[-1][0] == first:
                    first += BLOCK
                blocks = range(first, end, BLOCK)
                parts.extend((at, min(BLOCK, self.size - at)) for at in blocks)
        return parts

    def dirty_parts(self) -> List[Part]:
        """The parts that the bitmap names, in order."""
        parts: List[Part] = []
        for offset, end, flags in self._extents():
            if flags & IS_DIRTY:
                parts.extend((at, min(BLOCK, end - at)) for at in range(offset, end, BLOCK))
        return parts

    def _extents(self) -> Iterator[Extent]:
        """All of the disk, in order: what is allocated, or what is dirty if there is a bitmap."""
        position = 0
        while position < self.size:
            cookie = self._ask(STATUS, position, min(self.size - position, 1 << 30))
            extents = self._wait(cookie).extents
            if not extents:
                raise StreamError("the server tells nothing of its extents")
            for length, flags in extents:
                end = min(position + length, self.size)
                yield position, end, flags
                position = end

    def read(self, parts: Iterable[Part]) -> Iterator[Tuple[int, bytearray]]:
        """Each part's offset and content, in the order asked for."""
        asked: Deque[int] = deque()
        for offset, length in parts:
            asked.append(self._ask(READ, offset, length))
            if len(asked) >= DEPTH:
                answer = self._wait(asked.popleft())
                yield answer.offset, answer.data
        while asked:
            answer = self._wait(asked.popleft())
            yield answer.offset, answer.data

    def write(self, offset: int, data: bytes) -> None:
        """Write, some time: `flush` makes sure."""
        if offset + len(data) > self.size:
            raise StreamError(f"the disk is too small: {self.size} bytes")
        self._change(WRITE, offset, len(data), data)

    def write_zeros(self, offset: int, length: int) -> None:
        """Make a hole, or zeros, some time."""
        if offset + length > self.size:
            raise StreamError(f"the disk is too small: {self.size} bytes")
        self._change(WRITE_ZEROES, offset, length)

    def _change(self, kind: int, offset: int, length: int, data: bytes = b"") -> None:
        while len(self._pending) >= DEPTH:
            self._receive()
        self._ask(kind, offset, length, data)
        self._done.clear()

    def flush(self) -> None:
        """All that was written is on the disk."""
        while self._pending:
            self._receive()
        self._wait(self._ask(FLUSH, 0, 0))

    def hang_up(self) -> None:
        """End the session, and with it a server that serves one client."""
        try:
            self._ask(DISCONNECT, 0, 0)
        except OSError:
            pass  # The server went first.
        self._socket.close()

    def _ask(self, kind: int, offset: int, length: int, data: bytes = b"") -> int:
        self._cookie += 1
        room = bytearray(length) if kind == READ else bytearray()
        self._pending[self._cookie] = Answer(offset, room, [])
        head = struct.pack(">IHHQQI", 0x25609513, 0, kind, self._cookie, offset, length)
        self._socket.sendall(head)
        if data:
            self._socket.sendall(data)
        return self._cookie

    def _wait(self, cookie: int) -> Answer:
        while cookie not in self._done:
            self._receive()
        return self._done.pop(cookie)

    def _receive(self) -> None:
        """Take one reply, or one chunk of one."""
        (magic,) = struct.unpack(">I", self._exactly(4))
        if magic == SIMPLE_REPLY:
            error, cookie = struct.unpack(">IQ", self._exactly(12))
            last = True
        elif magic == STRUCTURED_REPLY:
            flags, kind, cookie, length = struct.unpack(">HHQI", self._exactly(16))
            error = self._chunk(kind, cookie, length)
            last = bool(flags & CHUNK_LAST)
        else:
            raise StreamError(f"the server does not speak NBD: {magic:#x}")
        if error:
            raise StreamError("the disk says: " + os.strerror(error))
        if last:
            self._done[cookie] = self._pending.pop(cookie)

    def _chunk(self, kind: int, cookie: int, length: int) -> int:
        """Put a chunk where it belongs; answers its error number."""
        answer = self._pending[cookie]
        if kind == CHUNK_DATA:
            (offset,) = struct.unpack(">Q", self._exactly(8))
            start = offset - answer.offset
            self._fill(memoryview(answer.data)[start : start + length - 8])
            return 0
        payload = self._exactly(length)
        if kind & CHUNK_ERROR:
            return int(struct.unpack(">I", payload[:4])[0])
        if kind == CHUNK_STATUS:
            answer.extents.extend(struct.iter_unpack(">II", payload[4:]))
        return 0  # A hole is zeros, which the answer has already.

    def _negotiate(self, export: bytes, context: bytes) -> None:
        if self._exactly(16) != b"NBDMAGICIHAVEOPT":
            raise StreamError("the server does not speak NBD")
        flags = struct.unpack(">H", self._exactly(2))[0]
        self._socket.sendall(struct.pack(">I", flags & 3))
        self._option(OPT_STRUCTURED, b"")
        name = struct.pack(">I", len(export)) + export
        wanted = name + struct.pack(">II", 1, len(context)) + context
        if not any(kind == REP_CONTEXT for kind, _ in self._option(OPT_SET_CONTEXT, wanted)):
            raise NoContext("the server does not tell of " + context.decode())
        for kind, payload in self._option(OPT_GO, name + struct.pack(">H", 0)):
            if kind == REP_INFO and payload[:2] == b"\0\0":
                (self.size,) = struct.unpack(">Q", payload[2:10])

    def _option(self, option: int, data: bytes) -> List[Tuple[int, bytes]]:
        self._socket.sendall(b"IHAVEOPT" + struct.pack(">II", option, len(data)) + data)
        replies: List[Tuple[int, bytes]] = []
        while True:
            _, _, kind, length = struct.unpack(">QIII", self._exactly(20))
            payload = self._exactly(length)
            if kind & REP_ERROR:
                raise StreamError(f"the server refuses: {kind:#x} {payload!r}")
            if kind == REP_ACK:
                return replies
            replies.append((kind, payload))

    def _exactly(self, length: int) -> bytes:
        room = bytearray(length)
        self._fill(memoryview(room))
        return bytes(room)

    def _fill(self, room: memoryview) -> None:
        while room:
            count = self._socket.recv_into(room)
            if not count:
                raise StreamError("the server of the disk is gone")
            room = room[count:]


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


def send(
    disk: Disk, out: BinaryIO, stall_seconds: int, limit: int, base: Optional[Disk] = None
) -> None:
    """Write the disk's content to a stream: all of it, what its bitmap names, or what differs."""
    content, meter, pace = Content(), Meter("done", stall_seconds), Pace(limit)
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
    out.write(MAGIC + HEAD.pack(disk.size, disk.is_part))
    sent = 0
    for (offset, block), under in zip(disk.read(parts), unders):
        content.add(offset, block)
        for start, stop, is_data in changes(block, under):
            out.write(FRAME.pack(offset + start | (0 if is_data else ZERO), stop - start))
            if is_data:
                out.write(memoryview(block)[start:stop])
                pace.sent(stop - start)
                sent += stop - start
        if meter.moved(len(block)):
            out.write(FRAME.pack(0, 0))
            out.flush()
    meter.say()
    tell("sent", sent)
    digest = content.hexdigest()
    out.write(FRAME.pack(END, len(digest)) + digest.encode())
    out.flush()
    tell("hash", digest)


def frames(stream: BinaryIO) -> Iterator[Tuple[int, bytes]]:
    """Offset and data of each frame; the last one has the offset END."""
    offset = 0
    while offset != END:
        offset, length = FRAME.unpack(exactly(stream, FRAME.size))
        if length > BLOCK:
            raise StreamError("the stream is damaged")
        is_zero = offset != END and offset & ZERO
        yield offset, ZEROS[:length] if is_zero else exactly(stream, length)


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
    if role == "send":
        end_with_input()  # Not earlier: a server that never had a client would not end.
        base = served[-1][0] if under else None
        send(disk, sys.stdout.buffer, stall_seconds, limit, base)
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
