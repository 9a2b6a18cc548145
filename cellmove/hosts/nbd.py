"""A disk behind an NBD server: a client with requests in flight. Travels with `stream.py`."""

# This runs where no cellmove is: old Python, old spelling of types.
# ruff: noqa: UP006, UP035

import os
import socket
import struct
from collections import deque
from typing import Deque, Dict, Iterable, Iterator, List, NamedTuple, Tuple

BLOCK = 1 << 20
"""What is read, hashed and written at once: aligned, in bytes."""
DEPTH = 8
"""Requests in flight."""

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
        self.written = 0
        """Where the last change ends."""
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

    def data_parts(self, start: int = 0, stop: int = 1 << 63) -> List[Part]:
        """The parts that may hold something, in order; each is a whole block, as are the limits."""
        parts: List[Part] = []
        for offset, end, flags in self._extents(start, min(stop, self.size)):
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
        for offset, end, flags in self._extents(0, self.size):
            if flags & IS_DIRTY:
                parts.extend((at, min(BLOCK, end - at)) for at in range(offset, end, BLOCK))
        return parts

    @property
    def settled(self) -> int:
        """Before this offset nothing is on its way that was to be written in order."""
        offsets = [answer.offset for answer in self._pending.values()]
        return min(offsets) if offsets else self.written

    def _extents(self, position: int, stop: int) -> Iterator[Extent]:
        """A range, in order: what is allocated, or what is dirty if there is a bitmap."""
        while position < stop:
            cookie = self._ask(STATUS, position, min(stop - position, 1 << 30))
            extents = self._wait(cookie).extents
            if not extents:
                raise StreamError("the server tells nothing of its extents")
            for length, flags in extents:
                end = min(position + length, stop)
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
        self.written = offset + length
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
