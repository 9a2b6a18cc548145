"""The command that joins two hosts on the bastion: bytes go from one to the other through it alone.

What it needs there: an SSH client, and an account that has the hosts' keys and may sign in to them,
by a key of its own or by an agent that the user's configuration forwards. Nothing is installed.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import Final

from cellmove.errors import StepFailed
from cellmove.hosts.disks import Argv
from cellmove.hosts.openssh import BULK, resolved, ssh, written

BROKEN: Final = "broken"
"""Said when the first of the two ends failed: a pipeline answers with the status of its last."""


def pipeline(config_path: str, source: tuple[str, Argv], target: tuple[str, Argv]) -> str:
    """What the bastion's shell is to run: one host's command into the other's.

    The hosts are named as in the user's SSH configuration; the bastion need not know these names.

    Raises:
        StepFailed: the configuration does not say where one of them is.
    """
    near, far = hop(config_path, *source), hop(config_path, *target)
    script = f"({shlex.join(near)} || echo cellmove-{BROKEN} $? >&2) | {shlex.join(far)}"
    return shlex.join(("exec", "sh", "-c", script))


def obstacle(ssh_config: str, bastion: str, *hosts: str) -> str:
    """Why the bastion cannot sign in to all of these; empty: it can. `ssh_config`: a text.

    Raises:
        StepFailed: the configuration does not say where one of them is.
    """
    with written(ssh_config) as path:
        script = " && ".join(shlex.join(hop(path, host, ("true",))) for host in hosts)
        tried = subprocess.run(
            ssh(path, bastion, shlex.join(("exec", "sh", "-c", script))),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    said = " ".join(tried.stderr.split()).rstrip(".") or f"status {tried.returncode}"
    return said if tried.returncode else ""


def hop(config_path: str, host: str, command: Sequence[str]) -> Argv:
    """`ssh` from the bastion to this host.

    Raises:
        StepFailed: the configuration does not say where it is.
    """
    said = resolved(config_path, host)
    if not {"user", "hostname", "port"} <= set(said):
        raise StepFailed(
            f"The SSH configuration does not say where {host} is.",
            f"`ssh -G {host}` tells no user, host name and port.",
            'Mend it, or have copies pass here: relay = "conductor" in [ssh].',
        )
    options = [
        part
        for setting in (*BULK, "ControlPath none", "ProxyJump none")
        for part in ("-o", setting)
    ]
    where = ("-l", said["user"], "-p", said["port"], "--", said["hostname"])
    return ("ssh", "-T", "-e", "none", *options, *where, shlex.join(command))
