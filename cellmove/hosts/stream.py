"""The program on both ends of a disk's way: fed to `python3 -c`, for Python 3.6 and later.

    send STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER... [--base SOCKET SERVER...]
    pack STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER... [--base SOCKET SERVER...]
    receive STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...
    hash STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...
    windows STALL_SECONDS LIMIT EXPORT BITMAP SOCKET SERVER...

`send` reads a disk and writes the stream to standard output, and so does `pack`, which makes data
smaller where a sample shows that it can; `receive` writes the stream from standard input to a disk;
`hash` only reads, and so does `windows`, which says the hash of each part of what an earlier copy
has left: with `--known` (the last argument) the sender hears that on its standard input, after the
number of lines. LIMIT is how many bytes a second are sent at most; 0: as many as can be. EXPORT is
the disk's name at its server, most often none. With a BITMAP only what that dirty bitmap names is
sent, and the receiver's disk is changed there and nowhere else. SERVER is the command of a
qemu-nbd that serves the disk at SOCKET, for `receive` to two clients (who writes, and who reads
that back), and ends when all have hung up: whatever happens to us, nothing stays behind. Without
SERVER somebody else's is there already: that of a running guest's backup. `--base` serves what the
disk lies on and the receiver has, too: only what differs from it is sent, and the hash is of all
that the disk shows.

Both ends say on standard error how far they are and, last, the hash of the content:
`cellmove-total N`, `cellmove-done N` and `cellmove-hash HEX` of what is read, `cellmove-verified N`
and `cellmove-found HEX` of what was written.
"""

# This file runs where no cellmove is, with the text of what it imports of ours in the place of the
# imports (`far.py`): old Python, old spelling of types.
# ruff: noqa: B905, PTH108, PTH110, UP006, UP035, UP041, UP045

import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import BinaryIO, Dict, Iterator, List, Optional, Tuple

from cellmove.hosts.content import (
    WINDOW,
    ZEROS,
    Content,
    all_parts,
    below,
    changes,
    digest_of,
    judged,
    with_known,
)
from cellmove.hosts.nbd import Disk, NoContext, Part, StreamError
from cellmove.hosts.wire import END, HEAD, MAGIC, ZERO, Pace, Packer, Wire, exactly, frames

SERVER_SECONDS = 60
"""How long a server may take to begin, and to end."""


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


def tell(word: str, value: object) -> None:
    """One line for the other side of the SSH connection."""
    sys.stderr.write(f"cellmove-{word} {value}\n")
    sys.stderr.flush()


def tell_windows(disk: Disk, meter: Meter) -> None:
    """Say the hash of each window in which the disk may hold something."""
    by_window = itertools.groupby(disk.data_parts(), lambda part: part[0] // WINDOW)
    for number, parts in by_window:
        blocks = list(disk.read(parts))
        tell("window", f"{number * WINDOW} {digest_of(blocks)}")
        meter.moved(sum(len(block) for _, block in blocks))


def read_known(stream: BinaryIO) -> Dict[int, str]:
    """What `tell_windows` told of the receiver's disk: how many, then a line for each."""
    lines = [stream.readline().decode().split() for _ in range(int(stream.readline()))]
    return {int(start): digest for start, digest in lines}


def send(
    disk: Disk,
    wire: Wire,
    meter: Meter,
    base: Optional[Disk] = None,
    known: Optional[Dict[int, str]] = None,
) -> None:
    """Write the disk's content to a stream: all of it, what its bitmap names, or what differs.

    `known`: what the receiver holds already; of a window that has the same hash nothing is sent.
    """
    content = Content()
    if disk.is_part:
        parts = disk.dirty_parts()
        unders: Iterator[Optional[bytes]] = itertools.repeat(None)
    else:
        held = all_parts(disk, base) if base else disk.data_parts()
        parts = with_known(held, known or {}, disk.size)
        unders = below(base, parts) if base else itertools.repeat(ZEROS)
    tell("total", sum(length for _, length in parts))
    wire.begin(disk)
    for (offset, block), under in judged(zip(disk.read(parts), unders), known or {}):
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


class Proof:
    """Reads a disk back behind somebody who writes it in order, over a connection of its own.

    So a copy is proved almost as soon as it has arrived. What is there that nobody sent is read,
    too, and makes another hash.
    """

    def __init__(self, disk: Disk, stall_seconds: int) -> None:
        self._disk = disk
        self._content = Content()
        self._meter = Meter("verified", stall_seconds)
        self._upto = 0
        self._stops = queue.Queue()  # type: queue.Queue[Optional[int]]
        self._failure: Optional[Exception] = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def settled(self, offset: int) -> None:
        """Nothing is written before this offset any more."""
        stop = offset - offset % WINDOW
        if stop > self._upto:
            self._upto = stop
            self._stops.put(stop)

    def digest(self) -> str:
        """The hash of all that the disk holds; nothing is written any more."""
        self._stops.put(self._disk.size)
        self._stops.put(None)
        self._thread.join()
        if self._failure:
            raise self._failure
        self._meter.say()
        return self._content.hexdigest()

    def _run(self) -> None:
        start = 0
        try:
            for stop in iter(self._stops.get, None):
                for offset, block in self._disk.read(self._disk.data_parts(start, stop)):
                    self._content.add(offset, block)
                    self._meter.moved(len(block))
                start = stop
        except (StreamError, OSError) as error:  # whoever waits raises it
            self._failure = error


def receive(disk: Disk, again: Disk, stream: BinaryIO, stall_seconds: int) -> None:
    """Write a stream's content to the disk, read it back by `again`, and compare."""
    meter = Meter("received", stall_seconds)
    proof = None if begins_part(stream, disk) else Proof(again, stall_seconds)
    expected = ""
    changed: List[Part] = []
    for offset, data in frames(stream):
        if offset == END:
            expected = data.decode()
        elif data:
            part = put(disk, offset, data)
            if proof:
                proof.settled(disk.settled)
            else:
                changed.append(part)
        meter.moved(len(data))
    disk.flush()
    found = proof.digest() if proof else verify(again, changed, stall_seconds)
    tell("found", found)
    if found != expected:
        raise StreamError(f"the content differs: sent {expected}, found {found}")


def begins_part(stream: BinaryIO, disk: Disk) -> bool:
    """Read how the stream begins; answers whether it is a part of a disk only.

    Raises:
        StreamError: it is no such stream, or the disk is too small for it.
    """
    if exactly(stream, len(MAGIC)) != MAGIC:
        raise StreamError("this is not a disk: does the account's shell print something?")
    size, is_part = HEAD.unpack(exactly(stream, HEAD.size))
    if size > disk.size:
        raise StreamError(f"the disk is too small: {disk.size} bytes")
    return bool(is_part)


def put(disk: Disk, offset: int, data: bytes) -> Part:
    """Write what a frame brings.

    Raises:
        StreamError: it lies before what came last, which may have been read back already.
    """
    at = offset & ~ZERO
    if at < disk.written:
        raise StreamError("the stream is damaged")
    if offset & ZERO:
        disk.write_zeros(at, len(data))
    else:
        disk.write(at, data)
    return at, len(data)


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
    known = read_known(sys.stdin.buffer) if "--known" in where else None
    where = [word for word in where if word != "--known"]
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
        send(disk, wire, Meter("done", stall_seconds), base, known)
    elif role == "windows":
        tell_windows(disk, Meter("hashed", stall_seconds))
    elif role == "hash":
        tell("hash", verify(disk, disk.data_parts(), stall_seconds))
    else:
        again = Disk(path, SERVER_SECONDS)  # Its server takes two clients.
        receive(disk, again, sys.stdin.buffer, stall_seconds)
        again.hang_up()
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
