"""A host as the check sees it, over SSH."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from cellmove.hosts.guests import Guests
from cellmove.hosts.shell import Completed, Shell

COMMAND_SECONDS: Final = 30
_ONE_AT_A_TIME: Final = threading.Lock()
"""libvirt's event loop is started by the first connection, which must not be two."""


class RemoteFar:
    """`check.hosts.Far` over a shell."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._guests = Guests(shell)

    def connect(self) -> None:
        """Make sure of the connection.

        Raises:
            Unreachable: there is none, or the host key is not known.
        """
        self._shell.transport()

    def run(self, argv: Sequence[str]) -> Completed:
        """Run a command, whatever its status.

        Raises:
            Unknown: no answer in time.
        """
        return self._shell.run(argv, timeout_seconds=COMMAND_SECONDS, check=False)

    def libvirt_version(self) -> int:
        """9000000 is 9.0.0.

        Raises:
            Unreachable: libvirt does not answer.
        """
        with _ONE_AT_A_TIME:
            return self._guests.version()

    def close(self) -> None:
        """Hang up."""
        self._guests.close()
