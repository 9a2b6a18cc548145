"""A local Unix socket whose other end is a program on a host, at the end of an SSH channel."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import paramiko

from cellmove.errors import CellmoveError

_CHUNK = 1 << 18


class Bridge:
    """Joins the one connection to `path`, which only this user can make, with a channel.

    The path is gone as soon as somebody has connected: a process that is killed leaves no litter.
    """

    def __init__(self, channel: Callable[[], paramiko.Channel], command: str) -> None:
        """`channel` opens a channel to the host; `command` is what runs there."""
        self._channel = channel
        self._command = command
        self._directory = tempfile.mkdtemp(prefix="cellmove-")  # Mode 0700.
        self.path = str(Path(self._directory, "socket"))
        self.why_not: Exception | None = None
        """Why the connection found nobody at the other end."""
        self._ends: list[socket.socket | paramiko.Channel] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._accept, name="bridge", daemon=True).start()

    def close(self) -> None:
        """Break the connection; whoever waits on it gets an error."""
        self._listen_no_more()
        _end(*self._ends)

    def _listen_no_more(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        self._listen_no_more()
        self._ends.append(near)
        try:
            far = self._channel()
            self._ends.append(far)
            far.exec_command(self._command)
        except (CellmoveError, OSError, EOFError, paramiko.SSHException) as error:
            self.why_not = error
            near.close()
            return
        for pump in (_there, _back):
            threading.Thread(target=pump, args=(near, far), daemon=True).start()


def _there(near: socket.socket, far: paramiko.Channel) -> None:
    try:
        while data := near.recv(_CHUNK):
            far.sendall(data)
        far.shutdown_write()
    except (OSError, EOFError):
        _end(near, far)


def _back(near: socket.socket, far: paramiko.Channel) -> None:
    try:
        while data := far.recv(_CHUNK):
            near.sendall(data)
    except (OSError, EOFError):
        pass
    finally:
        _end(near, far)


def _end(*ends: socket.socket | paramiko.Channel) -> None:
    for end in ends:
        if isinstance(end, socket.socket):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # Wakes whoever reads it.
        end.close()
