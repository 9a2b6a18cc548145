"""The answer of `audit`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.audit import Audit, Finding, Severity
from cellmove.errors import Exit
from cellmove.report.base import Document, one_line, table

_STYLES = {
    Severity.LOST: "bold red",
    Severity.DOUBLE: "bold red",
    Severity.LEFT_OVER: "yellow",
    Severity.ODD: "cyan",
}


@dataclass(frozen=True, slots=True)
class Audited:
    """What is not whole, what is under way, and what was mended."""

    audit: Audit

    @property
    def exit_code(self) -> Exit:
        """What is under way is no finding; what was mended is none any more."""
        return Exit.FINDINGS if self.audit.findings else Exit.DONE

    def document(self) -> Document:
        """In docs/json.rst: "The audit"."""
        audit = self.audit
        return {
            "command": "audit",
            "exit_code": int(self.exit_code),
            "servers": audit.servers,
            "hosts": audit.hosts,
            "findings": [_document(each) for each in audit.findings],
            "under_way": [
                {"server": each.server, "name": each.name, "why": each.why, "do": each.do}
                for each in audit.under_way
            ],
            "mended": [
                _document(each.finding) | {"error": str(each.error) if each.error else None}
                for each in audit.mended
            ],
        }

    def print(self, console: Console) -> None:
        """A finding a paragraph, for its commands are to be copied; the last line counts."""
        audit = self.audit
        for each in audit.mended:
            what = f"{each.finding.code} of {_who(each.finding)}"
            told = (
                f"Could not be mended: {what}: {each.error}" if each.error else f"Mended: {what}."
            )
            console.print(Text(told, style="red" if each.error else "green"), soft_wrap=True)
        for finding in audit.findings:
            _print(console, finding)
        if audit.under_way:
            rows = table("under way", "name", "what works on it", "see")
            for way in audit.under_way:
                rows.add_row(way.server, one_line(way.name), way.why, way.do)
            console.print(rows)
        safe = sum(1 for each in audit.findings if each.mend)
        hint = f", {safe} of which --mend mends" if safe else ""
        console.print(
            f"{audit.servers} server(s) and {audit.hosts} host(s) looked at:"
            f" {len(audit.findings)} finding(s){hint}; {len(audit.under_way)} under way."
        )


def _print(console: Console, finding: Finding) -> None:
    head = Text.assemble(
        (finding.severity.value, _STYLES[finding.severity]), f"  {finding.code}  {_who(finding)}"
    )
    console.print(head, soft_wrap=True)
    console.print(Text(f"  {one_line(finding.seen)}"), soft_wrap=True)
    for command in finding.do:
        console.print(Text(f"    {command}"), soft_wrap=True)


def _who(finding: Finding) -> str:
    name = (
        f"{one_line(finding.where.name)} ({finding.where.server})"
        if finding.where.name
        else finding.where.server
    )
    where = f"on {finding.where.host}" if finding.where.host else ""
    return " ".join(filter(None, (name or finding.thing, where)))


def _document(finding: Finding) -> Document:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "server": finding.where.server or None,
        "name": finding.where.name or None,
        "cell": finding.where.cell or None,
        "host": finding.where.host or None,
        "thing": finding.thing or None,
        "seen": finding.seen,
        "do": list(finding.do),
        "safe": finding.mend is not None,
    }
