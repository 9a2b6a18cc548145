"""A real sshd on this machine, and disks that a real qemu-nbd serves."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellmove.hosts.shell import Shell, Shells

SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PidFile none
SetEnv PATH={directory}/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
CLIENT = """#!/bin/sh
exec /usr/bin/ssh -F {directory}/config "$@"
"""
CONFIG = """
Host *
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {keys}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {directory}/known_hosts
"""


@dataclass(frozen=True, slots=True)
class Sshd:
    """An SSH server; every host name is this one, so `ProxyJump` goes through it, too."""

    directory: Path
    """Of the configuration."""
    keys: Path
    port: int

    @property
    def config(self) -> str:
        return str(self.directory / "config")

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"


@pytest.fixture(scope="session")
def server_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keys and port of an sshd that runs as long as the tests do."""
    directory = tmp_path_factory.mktemp("sshd")
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)]
        subprocess.run(command, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root wants it.
    (directory / "bin").mkdir()
    process = _started(directory)
    while process is None:  # somebody else was quicker to take the port
        process = _started(directory)
    # As if each account on the server had a configuration of its own.
    client = directory / "bin" / "ssh"
    client.write_text(CLIENT.format(directory=acquainted(directory, directory).directory))
    client.chmod(0o755)
    with process:
        yield directory
        process.terminate()


@pytest.fixture
def sshd(server_directory: Path, tmp_path: Path) -> Sshd:
    """The server, and a configuration that the test may change."""
    return acquainted(server_directory, tmp_path)


@pytest.fixture(scope="session")
def shell(server_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell of a host behind a bastion; a test may hang up, the next one signs in anew."""
    opened = Shells(
        acquainted(server_directory, tmp_path_factory.mktemp("shell")).config, "bastion"
    )
    yield opened.shell("far")
    opened.close()


def acquainted(server_directory: Path, directory: Path) -> Sshd:
    """A configuration with the server's key in known_hosts."""
    port = int((server_directory / "port").read_text())
    found = Sshd(directory, server_directory, port)
    user = getpass.getuser()
    text = CONFIG.format(port=port, user=user, directory=directory, keys=server_directory)
    Path(found.config).write_text(text)
    key = " ".join((server_directory / "host_key.pub").read_text().split()[:2])
    found.known_hosts.write_text(f"[127.0.0.1]:{port} {key}\n")
    return found


def _started(directory: Path) -> subprocess.Popen[bytes] | None:
    """An sshd that listens at a port that was free; None: it is not free any more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (directory / "port").write_text(str(port))
    (directory / "sshd_config").write_text(SSHD.format(port=port, directory=directory))
    log = directory / "log"
    command = ["/usr/sbin/sshd", "-D", "-f", str(directory / "sshd_config"), "-E", str(log)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not log.exists() or f"Server listening on 127.0.0.1 port {port}." not in log.read_text():
        if process.poll() is not None:
            said = log.read_text()
            assert "Address already in use" in said, said
            return None
        assert time.monotonic() < deadline, "sshd does not listen"
        time.sleep(0.05)
    return process


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it went between open and read
        return False


def ends_soon(pid: int, timeout_seconds: float = 60) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False
