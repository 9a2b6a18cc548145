"""The answer of a resize that nova has done itself, within the server's cell."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from cellmove.report.base import Document
from cellmove.report.outcomes import print_next


@dataclass(frozen=True, slots=True)
class Delegated:
    """What nova did, or would do."""

    server: str
    name: str
    cell: str
    host: str
    """Where it is now; of a dry run: the one that cellmove holds for the best."""
    flavor: str
    status: str
    """As nova's API has it; empty for a dry run."""

    def document(self) -> Document:
        """In docs/json.rst: "A resize within a cell"."""
        return {
            "command": "resize",
            "same_cell": True,
            "dry_run": not self.status,
            "exit_code": 0,
            "server": self.server,
            "name": self.name,
            "host": self.host,
            "cell": self.cell,
            "flavor": self.flavor,
            "status": self.status or None,
            "next": self._next(),
        }

    def print(self, console: Console) -> None:
        """What was done, and what to type next."""
        if not self.status:
            console.print(
                f"nova would be asked to resize {self.name} within {self.cell}; the best host is "
                f"{self.host}. Nothing was changed. Run it without --dry-run to do it."
            )
            return
        console.print(
            f"{self.name} is on {self.host} in {self.cell} with flavor {self.flavor}: nova has "
            f"moved it within its cell, and it waits to be confirmed ({self.status})."
        )
        print_next(console, self._next())

    def _next(self) -> list[str]:
        verbs = ("confirm", "revert") if self.status else ()
        return [f"openstack server resize {verb} {self.server}" for verb in verbs]
