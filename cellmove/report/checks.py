"""The answer of `check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.check import Finding, Looked, Result
from cellmove.errors import Exit
from cellmove.report.base import Document, table
from cellmove.report.moves import place

_STYLES = {Result.OK: "green", Result.WARN: "yellow", Result.FAIL: "bold red"}


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether this machine can do its work."""

    findings: Sequence[Finding]

    @property
    def exit_code(self) -> Exit:
        """A failure is a finding; a warning is not."""
        failed = any(each.result is Result.FAIL for each in self.findings)
        return Exit.FINDINGS if failed else Exit.DONE

    def document(self) -> Document:
        """In docs/json.rst: "The check"."""
        return {
            "command": "check",
            "exit_code": int(self.exit_code),
            "findings": [
                {"what": f.what, "result": f.result.value, "seen": f.seen, "do": f.do}
                for f in self.findings
            ],
        }

    def print(self, console: Console) -> None:
        """A table; the last line counts."""
        rows = table("", "what", "seen", "what to do")
        for each in self.findings:
            rows.add_row(
                Text(each.result.value, style=_STYLES[each.result]), each.what, each.seen, each.do
            )
        console.print(rows)
        count = {r: sum(1 for each in self.findings if each.result is r) for r in Result}
        console.print(
            f"{count[Result.OK]} are well, {count[Result.WARN]} want a look, "
            f"{count[Result.FAIL]} failed."
        )


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """Whether a server can be moved."""

    looked: Looked

    @property
    def exit_code(self) -> Exit:
        """A reason against it is a finding."""
        return Exit.FINDINGS if self.looked.reasons else Exit.DONE

    def document(self) -> Document:
        """In docs/json.rst: "The check of a server"."""
        looked = self.looked
        return {
            "command": "check",
            "exit_code": int(self.exit_code),
            "server": looked.server,
            "name": looked.name,
            "host": looked.host.name,
            "cell": looked.host.cell.name,
            "to_host": looked.target and looked.target.name,
            "to_cell": looked.target and looked.target.cell.name,
            "reasons": [{"what": r.what, "seen": r.seen, "do": r.do} for r in looked.reasons],
        }

    def print(self, console: Console) -> None:
        """A table of what is against it; the first line says whether anything is."""
        looked = self.looked
        whole = f"{looked.name} ({looked.server}) on {place(looked.host)}"
        if looked.target is not None:
            console.print(f"{whole} can be moved to {place(looked.target)}.")
            return
        console.print(f"{whole} cannot be moved:")
        rows = table("#", "what", "seen", "what to do")
        for number, each in enumerate(looked.reasons, 1):
            rows.add_row(str(number), each.what, each.seen, each.do)
        console.print(rows)
