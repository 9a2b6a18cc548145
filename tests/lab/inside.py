"""Hosts of the lab for testinfra: as root inside one, or as cellmove's account over SSH."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

OUTPUTS = Path(__file__).resolve().parents[2] / "lab"
HYPERVISORS = ("cmp1a", "cmp1b", "cmp2a", "cmp2b")


class _Through(BaseBackend):  # type: ignore[misc]
    """Runs every command of testinfra behind a command of this machine."""

    NAME = "through"

    def __init__(self, name: str, prefix: str) -> None:
        super().__init__(name)
        self._prefix = prefix

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        inner = shlex.quote(self.quote(command, *args))
        return self.run_local(f"{self._prefix} {inner}")


def inside(name: str) -> Host:
    """Root inside a host, the services (`ctl`), or a bare namespace (`cond`, `net`)."""
    return Host(_Through(name, f"{OUTPUTS}/enter {name} sh -c"))


def as_cellmove(name: str) -> Host:
    """Cellmove's account on a host, logged in from the conductor's side through the bastion."""
    return Host(_Through(name, f"{OUTPUTS}/enter cond ssh -F {OUTPUTS}/ssh_config {name}"))
