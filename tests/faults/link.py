"""A TCP link before a server that is cut, or falls silent, after so many bytes from it."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK = 1 << 14


class Link:
    """Leads to a port of this machine: `port` to `far_port`."""

    def __init__(self, far_port: int) -> None:
        self.far_port = far_port
        self.bytes = 0
        """That came from the server, over all connections."""
        self.cut_after: int | None = None
        """Then all connections are reset; 0: at once, and none is begun."""
        self.silent_after: int | None = None
        """Then nothing travels any more, in any direction."""
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def mend(self) -> None:
        """It works, and counts anew."""
        self.cut_after = self.silent_after = None
        self.bytes = 0

    def serve(self) -> None:
        """Take connections until it is over."""
        while not self.over.is_set():
            readable, _, _ = select.select([self._listener], [], [], 0.05)
            if readable:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()
        self._listener.close()

    def _carry(self, near: socket.socket) -> None:
        if self.cut_after == 0:
            _reset(near)
            return
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.far_port)) as far:
            while not self.over.is_set() and self._pass_on(near, far):
                pass
        _reset(near)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> bool:
        """What there is, in both directions; False: the connection is over."""
        readable, _, _ = select.select([near, far], [], [], 0.05)
        if self._is(self.cut_after):
            return False
        if self._is(self.silent_after):
            self.over.wait(0.05)
            return True
        for one, other in ((near, far), (far, near)):
            if one in readable:
                data = one.recv(self._room() if one is far else CHUNK)
                other.sendall(data)
                if not data:
                    return False
                self.bytes += len(data) if one is far else 0
        return not self._is(self.cut_after)

    def _is(self, limit: int | None) -> bool:
        return limit is not None and self.bytes >= limit

    def _room(self) -> int:
        limits = [each for each in (self.cut_after, self.silent_after) if each is not None]
        return min([CHUNK, *(max(1, each - self.bytes) for each in limits)])


def _reset(near: socket.socket) -> None:
    with suppress(OSError):
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near.close()


@contextmanager
def link(far_port: int) -> Iterator[Link]:
    """A link to this port, until the block ends."""
    made = Link(far_port)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        thread.join()
