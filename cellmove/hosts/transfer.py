"""A disk's way from one host to another: two `ssh` processes and a pipe between them.

Bulk bytes never pass through this process: OpenSSH carries them several times as fast as
paramiko does. What travels, and how it is checked, is `stream.py`'s.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts.disks import Argv
from cellmove.hosts.far import far_program

STALL_SECONDS: Final = 120
"""How long nothing may move before a copy is given up."""
_END_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class End:
    """One end of a disk's way."""

    host: str
    """The host's name in the SSH configuration."""
    socket: str
    """Where the disk's server listens there."""
    server: Argv
    """Command of the disk's server; nothing when there is one already."""
    export: str = ""
    """The disk's name at its server."""
    bitmap: str = ""
    """Only what this dirty bitmap names is read; nothing: the whole disk."""
    base: End | None = None
    """What the disk lies on: of a whole disk only what differs from it is sent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and how slowly a copy may go."""

    limit_bytes_per_second: int = 0
    """0: as fast as it can."""
    stall_seconds: int = STALL_SECONDS
    """How long nothing may move before the copy is given up."""
    packed: bool = False
    """Whether data travels packed where that makes it smaller."""


UNHELD: Final = Pace()


@dataclass(slots=True)
class _Process:
    """One running `ssh`, and what it has said so far."""

    host: str
    popen: subprocess.Popen[bytes]
    facts: dict[str, str] = field(default_factory=dict)
    """What the far program told: word -> value."""
    words: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    """What else was said: an error, most likely."""
    rest: bytes = b""

    def hear(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            word, _, value = text.partition(" ")
            if word.startswith("cellmove-"):
                self.facts[word.removeprefix("cellmove-")] = value
            elif text:
                self.words.append(text)

    def number(self, word: str) -> int:
        return int(self.facts.get(word, "0"))

    def end(self) -> None:
        """End it, whatever it does."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    @property
    def failure(self) -> str:
        """What went wrong here; nothing when nothing did."""
        if self.popen.returncode == 0:
            return ""
        return f"{self.host}: {' '.join(self.words) or f'status {self.popen.returncode}'}"


def configuration(user_config: str, bastion: str, masters: str = "none") -> str:
    """An SSH configuration: the user's own, with what bulk needs before it (the first value wins).

    `masters`: a directory of connections that `Masters` keeps, to be used where there is one.

    A cipher on the command line would not reach the bastion's hop; here it does. AES-GCM makes
    twice what OpenSSH's default cipher does.
    """
    lines = [
        "Host *",
        "  Ciphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com",
        "  Compression no",
        "  BatchMode yes",
        "  StrictHostKeyChecking yes",
        "  ConnectTimeout 15",
        "  ServerAliveInterval 15",
        "  ServerAliveCountMax 3",
        "  ControlMaster no",
        f"  ControlPath {masters if masters == 'none' else masters + '/%C'}",
        "  ClearAllForwardings yes",
    ]
    if bastion:
        lines += [f"Host * !{bastion}", f"  ProxyJump {bastion}"]
    path = Path(user_config).expanduser().absolute()
    return "\n".join([*lines, "Host *", f'  Include "{path}"', ""])


class Masters:
    """Connections kept open: a copy through one begins at once, not after two handshakes.

    Each ends with us, however we end: the far `cat` does when its input does. Where there is none
    (any more), `ssh` opens a connection of its own.
    """

    def __init__(self) -> None:
        self.directory = str(Path(tempfile.gettempdir(), f"cellmove-{secrets.token_hex(8)}"))
        """Of their sockets; it is made for the first connection."""
        self._kept: dict[str, subprocess.Popen[bytes]] = {}

    def keep(self, hosts: Iterable[str], ssh_config: str) -> None:
        """Open a connection to each host that has none, and wait until it is there."""
        Path(self.directory).mkdir(0o700, exist_ok=True)
        for host in hosts:
            kept = self._kept.get(host)
            if kept is None or kept.poll() is not None:
                self._kept[host] = self._open(host, ssh_config)

    def close(self) -> None:
        """Hang up everywhere."""
        for kept in self._kept.values():
            if kept.stdin:
                kept.stdin.close()
        for kept in self._kept.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                kept.wait(_END_SECONDS)
            kept.kill()
            kept.wait()
            if kept.stdout:
                kept.stdout.close()
        self._kept.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def _open(host: str, ssh_config: str) -> subprocess.Popen[bytes]:
        with _written(ssh_config) as path:
            command = ["ssh", "-F", path, "-M", "-T", "-e", "none", host, "--", "echo; exec cat"]
            kept = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # A failure is told by the copy that comes.
                start_new_session=True,
            )
            assert kept.stdout
            kept.stdout.readline()
        return kept


def carry(
    source: End,
    target: End,
    ssh_config: str,
    progress: Callable[[int, int], None],
    pace: Pace = UNHELD,
) -> str:
    """Copy a disk's content; `progress` hears done and total bytes. Answers the content's hash.

    `ssh_config` is a configuration's text. Both ends are ended when this returns or raises.

    Raises:
        StepFailed: an end failed, nothing moved for too long, or the hashes differ.
    """
    with _written(ssh_config) as path, _both(source, target, path, pace) as (near, far):
        _follow(near, far, progress, pace.stall_seconds)
        for process in (near, far):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(_END_SECONDS)
        seen = "; ".join(filter(None, (near.failure, far.failure)))
        hashes = {near.facts.get("hash"), far.facts.get("hash")}
        if seen or len(hashes) != 1 or None in hashes:
            raise _broken(source, target, seen or f"the hashes are {hashes}")
        return near.facts["hash"]


def _follow(
    near: _Process, far: _Process, progress: Callable[[int, int], None], stall_seconds: int
) -> None:
    """Hear both until both have nothing more to say."""
    moved = time.monotonic()
    last: tuple[int, int] = (-1, -1)
    with selectors.DefaultSelector() as selector:
        for process in (near, far):
            assert process.popen.stderr
            selector.register(process.popen.stderr, selectors.EVENT_READ, process)
        while selector.get_map():
            for key, _ in selector.select(timeout=1):
                data = _read(key.fileobj)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.hear(data)
                moved = time.monotonic()
            now = (near.number("done"), near.number("total"))
            if now != last and "total" in near.facts:
                progress(*now)
                last = now
            if time.monotonic() - moved > stall_seconds:
                raise StepFailed(
                    f"The copy from {near.host} to {far.host} does not move.",
                    f"Nothing was heard for {stall_seconds} s, after {now[0]} bytes.",
                    "Look at the network and the disks of both, then try again.",
                )


@contextlib.contextmanager
def _both(
    source: End, target: End, config_path: str, pace: Pace
) -> Iterator[tuple[_Process, _Process]]:
    """The two `ssh` processes: they run while the block does, and no longer."""
    with contextlib.ExitStack() as stack:
        # The sender ends when its input does: that is when we end, however we end.
        near = _Process(
            source.host,
            subprocess.Popen(
                _ssh(source, "pack" if pace.packed else "send", config_path, pace),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            ),
        )
        stack.callback(near.end)
        assert near.popen.stdout
        far = _Process(
            target.host,
            subprocess.Popen(
                _ssh(target, "receive", config_path, pace),
                stdin=near.popen.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            ),
        )
        stack.callback(far.end)
        near.popen.stdout.close()  # Else the sender would not learn that the receiver is gone.
        yield near, far


def _ssh(end: End, role: str, config_path: str, pace: Pace) -> list[str]:
    how = str(pace.stall_seconds), str(pace.limit_bytes_per_second)
    where = end.export, end.bitmap, end.socket
    base = ("--base", end.base.socket, *end.base.server) if end.base else ()
    far = far_program("stream.py", role, *how, *where, *end.server, *base)
    return ["ssh", "-F", config_path, "-T", "-e", "none", end.host, "--", shlex.join(far)]


@contextlib.contextmanager
def _written(text: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", prefix="cellmove-ssh-") as file:  # Mode 0600.
        file.write(text)
        file.flush()
        yield file.name


def _read(stream: object) -> bytes:
    assert hasattr(stream, "read1")
    data: bytes = stream.read1(1 << 16)
    return data


def _broken(source: End, target: End, seen: str) -> StepFailed:
    return StepFailed(
        f"The copy from {source.host} to {target.host} broke.",
        f"Seen: {seen}.",
        "Mend the cause, then try again: it begins anew.",
    )
