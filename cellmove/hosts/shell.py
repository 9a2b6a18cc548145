"""Commands on a host, over SSH through the bastion: known keys, deadlines, no leftovers."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import fabric
import paramiko

from cellmove.errors import StepFailed, Unknown, Unreachable
from cellmove.hosts.disks import as_user
from cellmove.hosts.leash import TIME_IS_OVER
from cellmove.hosts.line import Completed, Line

__all__ = ["Completed", "Shell", "Shells"]

CONNECT_SECONDS: Final = 15
"""For each of: connection, banner, sign-in, a channel."""
KEEPALIVE_SECONDS: Final = 15
NO_GATEWAY: Final = False
"""Tells fabric to take none, whatever the configuration says."""
_GRACE_SECONDS: Final = 10
"""How much later than on the host a command is given up here."""


# What paramiko has to say about a lost link is told by our errors, not by lines between them.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Shell:
    """One host's commands: one connection, opened when needed, and as many lines as needed."""

    def __init__(self, connection: Any, gateway: Shell | None = None) -> None:
        self._connection = connection
        self._gateway = gateway
        self._idle: list[Line] = []
        self._opening = threading.RLock()
        self._readying = threading.RLock()

    @property
    def host(self) -> str:
        """The host's name in the SSH configuration."""
        return str(self._connection.original_host)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_seconds: int = 60,
        sudo: str | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command there; `sudo` names another user to run it as.

        Raises:
            Unreachable: the host does not answer; the command did not begin.
            Unknown: no answer in time, or the link broke: it may have done its work.
            StepFailed: it ended with another status than 0 (only with `check`), or sudo refused.
        """
        words = as_user(sudo, argv) if sudo else argv
        command = shlex.join(words)
        line = self._line()
        try:
            given_up = timeout_seconds + _GRACE_SECONDS
            completed = line.ask(words, stdin, timeout_seconds, given_up)
        except (OSError, EOFError, paramiko.SSHException) as error:
            line.close()
            raise Unknown(
                f"No answer from `{command}` on {self.host}.",
                f"Seen within {timeout_seconds} s: {_words(error)}.",
                "It has been told to end; look at what it did before going on.",
            ) from error
        except BaseException:
            line.close()
            raise
        self._idle.append(line)
        _judge(completed, command, self.host, check=check, sudo=sudo)
        return completed

    def channel(self) -> paramiko.Channel:
        """A fresh channel, for a command that speaks in both directions.

        Raises:
            Unreachable: the host does not answer.
        """
        transport = self.transport()
        try:
            return transport.open_session(timeout=CONNECT_SECONDS)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.close()  # A link that is silent is not asked again.
            raise _unreachable(self.host, self._hop, error) from error

    def transport(self) -> paramiko.Transport:
        """The connection, opened anew when it is not there.

        Raises:
            Unreachable: no connection, an unknown host key, or nobody lets us in.
        """
        with self._opening:
            return self._connected()

    def _connected(self) -> paramiko.Transport:
        connection = self._connection
        if connection.is_connected:
            return _transport(connection)
        if self._gateway:
            self._gateway.transport()
        try:
            connection.open()
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.close()
            raise _unreachable(self.host, self._hop, error) from error
        transport = _transport(connection)
        transport.set_keepalive(KEEPALIVE_SECONDS)
        if isinstance(transport.sock, socket.socket):  # Not through the bastion.
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return transport

    def get_ready(self) -> None:
        """Open a line that the first command will find.

        Raises:
            Unreachable: the host does not answer.
        """
        with self._readying:
            self._idle.append(self._line())

    def close(self) -> None:
        """Hang up; what still runs there ends."""
        self._idle.clear()
        self._connection.client.close()

    def _line(self) -> Line:
        """A line with somebody at its other end: one that is idle, else a new one.

        Raises:
            Unreachable: the host does not answer.
        """
        with self._readying:  # Who comes while it is being opened waits for that one.
            pass
        while line := self._idle.pop() if self._idle else None:
            try:
                line.check(CONNECT_SECONDS)
            except TimeoutError:
                self.close()  # A link that is silent is not asked again.
            except (OSError, EOFError, paramiko.SSHException):
                line.close()
            else:
                return line
        channel = self.channel()
        try:
            line = Line(channel, CONNECT_SECONDS)
            line.check(CONNECT_SECONDS)
        except (OSError, EOFError, paramiko.SSHException) as error:
            channel.close()
            raise _unreachable(self.host, self._hop, error) from error
        return line

    @property
    def _hop(self) -> str:
        return f" through {self._gateway.host}" if self._gateway else ""


class Shells:
    """All hosts' shells: one connection to the bastion, one to each host through it."""

    def __init__(self, ssh_config: str, bastion: str) -> None:
        """Nothing is opened yet.

        `ssh_config`: path of the user's SSH configuration; `bastion`: a name in it, or nothing.

        Raises:
            Unreachable: the SSH configuration cannot be read.
        """
        path = Path(ssh_config).expanduser()
        try:
            parsed = paramiko.SSHConfig.from_path(str(path)) if path.exists() else None
        except (OSError, paramiko.ConfigParseError) as error:
            raise Unreachable(
                f"The SSH configuration {path} cannot be read.",
                f"Seen: {_words(error)}.",
                "Mend it, or name another one (option `ssh.config`).",
            ) from error
        # Lazy: of fabric's own configuration files none is read.
        self._config = fabric.Config(ssh_config=parsed or paramiko.SSHConfig(), lazy=True)
        self._gateway = self._connection(bastion, NO_GATEWAY) if bastion else NO_GATEWAY
        self._bastion = Shell(self._gateway) if bastion else None
        self._shells: dict[str, Shell] = {}
        self._making = threading.Lock()

    def shell(self, host: str) -> Shell:
        """The shell of the host that the SSH configuration knows by this name."""
        with self._making:
            if host not in self._shells:
                connection = self._connection(host, self._gateway)
                self._shells[host] = Shell(connection, self._bastion)
            return self._shells[host]

    def get_ready(self) -> None:
        """Open the connection to the bastion, if there is one.

        Raises:
            Unreachable: it does not answer.
        """
        if self._bastion:
            self._bastion.transport()

    def close(self) -> None:
        """Hang up everywhere."""
        for shell in self._shells.values():
            shell.close()
        self._shells.clear()
        if self._bastion:
            self._bastion.close()

    def _connection(self, host: str, gateway: Any) -> Any:
        settings = self._config.base_ssh_config.lookup(host)
        only_named = settings.get("identitiesonly", "no") == "yes"
        connection = fabric.Connection(
            host,
            config=self._config,
            gateway=gateway,
            connect_timeout=CONNECT_SECONDS,
            connect_kwargs={
                "banner_timeout": CONNECT_SECONDS,
                "auth_timeout": CONNECT_SECONDS,
                "channel_timeout": CONNECT_SECONDS,
                "allow_agent": not only_named,
                "look_for_keys": not only_named,
            },
        )
        # fabric would take any host key.
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for known in _known_hosts(settings):
            connection.client.load_system_host_keys(known)
        return connection


def _known_hosts(settings: paramiko.SSHConfigDict) -> list[str]:
    """The files of known host keys that OpenSSH would look into, as far as they exist."""
    user = settings.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    everyone = settings.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")
    paths = (Path(name).expanduser() for name in shlex.split(f"{user} {everyone}"))
    return [str(path) for path in paths if path.is_file()]


def _transport(connection: Any) -> paramiko.Transport:
    transport = connection.client.get_transport()
    assert isinstance(transport, paramiko.Transport)
    return transport


def _judge(done: Completed, command: str, host: str, *, check: bool, sudo: str | None) -> None:
    said = done.stderr.strip()
    if sudo and done.status and said.startswith("sudo:"):
        raise StepFailed(
            f"sudo on {host} does not let us run `{command}`.",
            f"It says: {said}",
            "Run playbooks/hosts.yml for this host, then `cellmove check`.",
        )
    if done.status == TIME_IS_OVER:
        raise Unknown(
            f"`{command}` on {host} was ended: its time was over.",
            "It may have done a part of its work.",
            "Look at the host's load and at what was done, then try again.",
        )
    if check and done.status:
        raise StepFailed(
            f"`{command}` on {host} failed.",
            f"Status {done.status}: {said or 'it said nothing'}",
            "Mend the cause on the host, then try again.",
        )


def _unreachable(host: str, hop: str, error: BaseException) -> Unreachable:
    return Unreachable(
        f"{host} cannot be reached{hop}.",
        f"Seen: {_words(error)}.",
        "Run `cellmove check`.",
    )


def _words(error: BaseException) -> str:
    """What an error of SSH means, in words of ours where those of the library say little."""
    if isinstance(error, paramiko.BadHostKeyException):
        return "its host key is not the one in known_hosts"
    if isinstance(error, paramiko.AuthenticationException):
        return "it does not accept our user and key"
    if isinstance(error, socket.timeout | TimeoutError):
        return str(error) or "no answer in time"
    if "not found in known_hosts" in str(error):
        return "its host key is not in known_hosts"
    return str(error) or type(error).__name__
