"""An open line to a host: our program there (`leash`) runs one command after the other.

A channel for each command costs more than most commands: sshd starts a session and a shell, and
Python starts. A line pays that once.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

import paramiko

from cellmove.hosts.far import far_program

READY, HERE = b"?", b"!"
MOST_BYTES = 64 << 20
"""More than any command of ours has to say; what a host says beyond is not kept."""
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left."""

    stdout: str
    stderr: str
    status: int


class Line:
    """One channel, for one command at a time. What its methods raise is paramiko's, or OSError."""

    def __init__(self, channel: paramiko.Channel, seconds: float) -> None:
        """`seconds`: how long the channel may take to begin."""
        self._channel = channel
        self._heard = bytearray()
        channel.settimeout(seconds)
        channel.exec_command(shlex.join(far_program("leash.py")))

    def check(self, seconds: float) -> None:
        """See that somebody is there; before this nothing that matters is sent.

        Raises:
            EOFError: nobody; with what was said instead.
            TimeoutError: no answer in this time.
        """
        self._channel.settimeout(seconds)
        self._channel.sendall(READY)
        try:
            self._take(len(HERE), time.monotonic() + seconds)
        except EOFError:
            self._channel.settimeout(seconds)
            said = self._channel.recv_stderr(_CHUNK).decode(errors="replace")
            raise EOFError(said.strip() or "it hung up") from None

    def ask(self, command: Sequence[str], stdin: bytes, on_host: float, here: float) -> Completed:
        """Run a command there; it is ended `on_host` seconds from its beginning.

        Raises:
            EOFError, TimeoutError: no answer within `here` seconds, or one without sense or end.
                The command may have done its work; with the line closed it is told to end.
        """
        deadline = time.monotonic() + here
        self._channel.settimeout(here)
        self._channel.sendall(json.dumps([command, on_host, len(stdin)]).encode() + b"\n" + stdin)
        while b"\n" not in self._heard:
            self._hear(deadline)
        told = self._take(self._heard.index(b"\n") + 1, deadline)
        status, out, err = _lengths(told)
        stdout, stderr = self._take(out, deadline), self._take(err, deadline)
        return Completed(stdout.decode(errors="replace"), stderr.decode(errors="replace"), status)

    def close(self) -> None:
        """Hang up; a command under way is ended."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._heard) < count:
            self._hear(deadline)
        taken = bytes(self._heard[:count])
        del self._heard[:count]
        return taken

    def _hear(self, deadline: float) -> None:
        self._channel.settimeout(max(0.0, deadline - time.monotonic()))
        data = self._channel.recv(_CHUNK)
        if not data:
            raise EOFError("the connection ended before the command did")
        if len(self._heard) > MOST_BYTES:
            raise EOFError(f"it says more than {MOST_BYTES >> 20} MiB")
        # Said so that the far sshd goes on at once. A session without a terminal has Nagle's
        # algorithm: its next small packet waits until the last one is acknowledged, which the
        # machines on the way put off for 40 ms unless there is something to send. (OpenSSH 9.2:
        # packet.c, ssh_packet_set_interactive.)
        self._channel.get_transport().send_ignore(1)
        self._heard += data


def _lengths(told: bytes) -> tuple[int, int, int]:
    """Status, and the lengths of what comes next, if a host really says that."""
    try:
        status, out, err = map(int, json.loads(told))
    except (ValueError, TypeError):
        raise EOFError(f"it says {told[:80]!r}, which is no answer") from None
    if min(out, err) < 0:
        raise EOFError("it says less than nothing")
    return status, out, err
