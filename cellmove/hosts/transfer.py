"""A disk's way from one host to another: an `ssh` to each end, joined here or on the bastion.

Bulk bytes never pass through this process: OpenSSH carries them several times as fast as
paramiko does. What travels, and how it is checked, is `stream.py`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import selectors
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections import ChainMap, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts.disks import Argv
from cellmove.hosts.far import far_program
from cellmove.hosts.openssh import ssh, written
from cellmove.hosts.relay import BROKEN, pipeline

STALL_SECONDS: Final = 120
"""How long nothing may move before a copy is given up."""
_END_SECONDS: Final = 5
_PIPE_BYTES: Final = 1 << 20
"""Between the two ends; the 64 KiB of a new pipe keep one waiting for the other. As much as anybody
may have."""
_SOCKETS: Final = "cellmove-ssh-"
"""How a directory of connections is named; our process id follows."""


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
    known: Mapping[int, str] = field(default_factory=dict)
    """What the target has already: offset -> hash; what is the same there is not sent again."""


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


def program(end: End, role: str, pace: Pace = UNHELD) -> Argv:
    """The command of `stream.py` at an end, in one of the roles that it knows."""
    how = str(pace.stall_seconds), str(pace.limit_bytes_per_second)
    where = end.export, end.bitmap, end.socket
    base = ("--base", end.base.socket, *end.base.server) if end.base else ()
    known = ("--known",) if end.known else ()
    return far_program("stream.py", role, *how, *where, *end.server, *base, *known)


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
            elif text and text not in self.words:  # qemu-nbd says what it says many times
                self.words.append(text)

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
        status = self.popen.returncode or self.facts.get(BROKEN)  # of both, where it joins them
        return f"{self.host}: {' '.join(self.words) or f'status {status}'}" if status else ""


class Masters:
    """Connections kept open: a copy through one begins at once, not after two handshakes.

    Each ends with us, however we end: the far `cat` does when its input does. Where there is none
    (any more), `ssh` opens a connection of its own.
    """

    def __init__(self) -> None:
        name = f"{_SOCKETS}{os.getpid()}-{secrets.token_hex(6)}"
        self.directory = str(Path(tempfile.gettempdir(), name))
        """Of their sockets; it is made for the first connection."""
        self._kept: dict[str, subprocess.Popen[bytes]] = {}

    def keep(self, hosts: Iterable[str], ssh_config: str) -> None:
        """Open a connection to each host that has none, and wait until it is there."""
        if not self._kept:
            _tidy_up(Path(self.directory).parent)
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
        with written(ssh_config) as path:
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


def _tidy_up(place: Path) -> None:
    """Remove what was left here by those of us who were killed: sockets, and their directories.

    Only a directory of our own is looked into: others may put links here that lead elsewhere.
    """
    for left in place.glob(f"{_SOCKETS}*-*"):
        pid = left.name.removeprefix(_SOCKETS).partition("-")[0]
        if not pid.isdigit() or Path("/proc", pid).exists():
            continue
        with contextlib.suppress(OSError):
            of = left.lstat()
            if stat.S_ISDIR(of.st_mode) and of.st_uid == os.getuid():
                for socket in filter(Path.is_socket, left.iterdir()):
                    socket.unlink()
                left.rmdir()


def carry(
    source: End,
    target: End,
    ssh_config: str,
    progress: Callable[[int, int], None],
    pace: Pace = UNHELD,
    *,
    relay: str = "",
) -> str:
    """Copy a disk's content; `progress` hears done and total bytes. Answers the content's hash.

    `ssh_config` is a configuration's text. `relay`: the host on which the two ends are joined;
    empty: here. Both ends are ended when this returns or raises.

    Raises:
        StepFailed: an end failed, nothing moved for too long, or the hashes differ.
    """
    reads = program(source, "pack" if pace.packed else "send", pace)
    writes = program(target, "receive", pace)
    with written(ssh_config) as path:
        if relay:
            joined = pipeline(path, (source.host, reads), (target.host, writes))
            commands = [(relay, ssh(path, relay, joined))]
        else:
            ends = (source.host, reads), (target.host, writes)
            commands = [(host, ssh(path, host, shlex.join(program))) for host, program in ends]
        with _piped(commands) as processes:
            _tell(processes[0], source.known)
            told = ChainMap(*(each.facts for each in processes))
            _follow((source, target), processes, told, progress, pace.stall_seconds)
            for each in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    each.popen.wait(_END_SECONDS)
            seen = "; ".join(filter(None, (each.failure for each in processes)))
    hashes = {told.get("hash"), told.get("found")}
    if seen or len(hashes) != 1 or None in hashes:
        raise _broken(source, target, seen or f"the hashes are {hashes}")
    return told["hash"]


def _tell(sender: _Process, known: Mapping[int, str]) -> None:
    """Say to the sender what the target has already."""
    if known:
        assert sender.popen.stdin
        lines = [str(len(known)), *(f"{start} {digest}" for start, digest in known.items())]
        with contextlib.suppress(BrokenPipeError):  # Why it has ended is told by what it said.
            sender.popen.stdin.write("".join(f"{line}\n" for line in lines).encode())
            sender.popen.stdin.flush()


def _follow(
    ends: tuple[End, End],
    processes: Sequence[_Process],
    told: Mapping[str, str],
    progress: Callable[[int, int], None],
    stall_seconds: int,
) -> None:
    """Hear all until they have nothing more to say."""
    source, target = ends
    moved = time.monotonic()
    last: tuple[int, int] = (-1, -1)
    with selectors.DefaultSelector() as selector:
        for process in processes:
            assert process.popen.stderr
            selector.register(process.popen.stderr, selectors.EVENT_READ, process)
        while selector.get_map():
            for key, _ in selector.select(timeout=1):
                data = _read(key.fileobj)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.hear(data)
                moved = time.monotonic()
            now = (int(told.get("done", "0")), int(told.get("total", "0")))
            if now != last and "total" in told:
                progress(*now)
                last = now
            if time.monotonic() - moved > stall_seconds:
                raise StepFailed(
                    f"The copy from {source.host} to {target.host} does not move.",
                    f"Nothing was heard for {stall_seconds} s, after {now[0]} bytes.",
                    "Look at the network and the disks of both, then try again.",
                )


@contextlib.contextmanager
def _piped(commands: Sequence[tuple[str, Sequence[str]]]) -> Iterator[list[_Process]]:
    """Host and command of each process, fed by the one before; they run while the block does."""
    processes: list[_Process] = []
    with contextlib.ExitStack() as stack:
        for number, (host, command) in enumerate(commands, start=1):
            before = processes[-1].popen.stdout if processes else None
            popen = subprocess.Popen(
                command,
                # The sender ends when its input does: that is when we end, however we end.
                stdin=before or subprocess.PIPE,
                stdout=subprocess.PIPE if number < len(commands) else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            processes.append(_Process(host, popen))
            stack.callback(processes[-1].end)
            if popen.stdout:
                with contextlib.suppress(OSError):  # a user has so much of them, and no more
                    fcntl.fcntl(popen.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            if before:
                before.close()  # Else the sender would not learn that the receiver is gone.
        yield processes


def _read(stream: object) -> bytes:
    assert hasattr(stream, "read1")
    data: bytes = stream.read1(1 << 16)
    return data


def _broken(source: End, target: End, seen: str) -> StepFailed:
    return StepFailed(
        f"The copy from {source.host} to {target.host} broke.",
        f"Seen: {seen}.",
        "Mend the cause, then try again.",
    )
