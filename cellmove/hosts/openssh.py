"""OpenSSH's client: the configuration that bulk bytes want, and its command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BULK: Final = (
    "Ciphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com",
    "Compression no",
    "BatchMode yes",
    "StrictHostKeyChecking yes",
    "ConnectTimeout 15",
    "ServerAliveInterval 15",
    "ServerAliveCountMax 3",
    "ControlMaster no",
    "ClearAllForwardings yes",
)
"""What a connection for bulk is set to."""


def configuration(user_config: str, bastion: str, masters: str = "none") -> str:
    """An SSH configuration: the user's own, with what bulk needs before it (the first value wins).

    `masters`: a directory of connections that `Masters` keeps, to be used where there is one.

    A cipher on the command line would not reach the bastion's hop; here it does. AES-GCM makes
    twice what OpenSSH's default cipher does.
    """
    control = masters if masters == "none" else f"{masters}/%C"
    lines = ["Host *", *(f"  {setting}" for setting in (*BULK, f"ControlPath {control}"))]
    if bastion:
        lines += [f"Host * !{bastion}", f"  ProxyJump {bastion}"]
    path = Path(user_config).expanduser().absolute()
    return "\n".join([*lines, "Host *", f'  Include "{path}"', ""])


@contextlib.contextmanager
def written(text: str) -> Iterator[str]:
    """Path of a file with this configuration, while the block runs.

    It is in our memory alone, where other users cannot read it, and it goes with us however we end.
    """
    with os.fdopen(os.memfd_create("cellmove-ssh"), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def ssh(config_path: str, host: str, command: str) -> list[str]:
    """Run this on a host, without a terminal."""
    return ["ssh", "-F", config_path, "-T", "-e", "none", host, "--", command]


def resolved(config_path: str, host: str) -> dict[str, str]:
    """What the configuration says of a host: option -> its last value; empty: it says nothing."""
    command = ["ssh", "-F", config_path, "-G", "--", host]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {option: value for option, _, value in pairs}
