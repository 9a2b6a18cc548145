"""The answer of `check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.check import Finding, Result
from cellmove.errors import Exit
from cellmove.report.base import Document, table

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
