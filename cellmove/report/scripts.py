"""The answer of `completion`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from cellmove.report.base import Document


@dataclass(frozen=True, slots=True)
class Completion:
    """A shell's completion script."""

    shell: str
    script: str

    def document(self) -> Document:
        """In docs/json.rst: "A completion script"."""
        return {"command": "completion", "shell": self.shell, "script": self.script}

    def print(self, console: Console) -> None:
        """The script as it is."""
        console.file.write(f"{self.script}\n")
