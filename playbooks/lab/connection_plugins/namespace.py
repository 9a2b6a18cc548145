"""Ansible connection to a lab host: enters the namespaces of its first process."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: namespace
short_description: run commands inside a lab host
description: Runs commands through nsenter in the namespaces of a lab host, as root.
options:
  lab_dir:
    description: the lab's state directory
    vars: [{name: lab_dir}]
    default: /var/lib/cellmove-lab
"""


class Connection(ConnectionBase):
    """One lab host; every call is a process of its own, so there is nothing to keep open."""

    transport = "namespace"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(
        self,
        cmd: str,
        in_data: bytes | None = None,
        sudoable: bool = True,  # noqa: FBT001, FBT002 -- Ansible's interface
    ) -> tuple[int, bytes, bytes]:
        """Run a shell command line in the host; returns its exit code, output and errors."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._enter("/bin/sh", "-c", cmd, input=in_data)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of this machine into the host."""
        command = f"cat > {shlex.quote(out_path)}"
        done = self._enter("/bin/sh", "-c", command, input=Path(in_path).read_bytes())
        if done.returncode:
            raise AnsibleConnectionFailure(f"{out_path} was not written: {done.stderr.decode()}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of the host onto this machine."""
        done = self._enter("cat", in_path)
        if done.returncode:
            raise AnsibleConnectionFailure(f"{in_path} was not read: {done.stderr.decode()}")
        Path(out_path).write_bytes(done.stdout)

    def close(self) -> None:
        self._connected = False

    def _enter(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        program = Path(self.get_option("lab_dir")) / "bin" / "enter"
        host = self._play_context.remote_addr
        return subprocess.run([program, host, *argv], capture_output=True, check=False, **options)
