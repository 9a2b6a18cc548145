"""A server that goes through much: killed moves, broken links; and what of it is looked at."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import host_run


@dataclass
class Ordeal:
    """One server for all cases of a file, and what came of it."""

    nova: Nova
    guest: GuestWatch
    folder: Path
    home: list[str]
    """Its traces before anything was tried."""
    lines: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def server(self) -> str:
        return self.guest.server

    def new_folder(self) -> Path:
        """For the journal of one case."""
        folder = self.folder / str(next(self.numbers))
        folder.mkdir()
        return folder

    def runs_on(self, *hosts: str) -> list[str]:
        """Those of these hosts on which its guest is up."""
        listed = ["virsh", "list", "--uuid"]
        return [host for host in hosts if self.server in host_run(host, listed)]

    def half_done(self, *hosts: str) -> list[str]:
        """Checkpoints, half copies and processes of a move on these hosts."""
        found = []
        for host in hosts:
            listed = ["virsh", "-q", "checkpoint-list", "--name", self.server]
            found += host_run(host, listed, check=False).split()
            files = ["find", str(INSTANCES / self.server), "-name", "*.cellmove"]
            found += host_run(host, files, check=False).split()
            running = host_run(host, ["pgrep", "-fa", f"qemu-nbd.*{self.server}"], check=False)
            found += running.splitlines()
        return found

    def tell(self) -> None:
        """Print the table, and the counts as one JSON object."""
        print("\n".join(["", *self.lines, json.dumps(self.counted)]))  # noqa: T201 - its product
