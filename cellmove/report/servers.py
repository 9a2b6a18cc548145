"""The answers of `list` and `compare`: servers, and what two cells say of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from cellmove.errors import Exit
from cellmove.intake.copies import Compared
from cellmove.intake.listing import Listed
from cellmove.model import Cell
from cellmove.report.base import Document, one_line, table

COLUMNS = ("server", "name", "project", "status", "host", "cell", "flavor")


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers over all cells."""

    servers: Sequence[Listed]

    def document(self) -> Document:
        """In docs/json.rst: "The servers"."""
        return {
            "command": "list",
            "servers": [
                {
                    "server": each.server,
                    "name": each.name,
                    "project_id": each.project_id,
                    "status": each.status,
                    "host": each.host or None,
                    "cell": _name(each.cell),
                    "flavor": each.flavor,
                }
                for each in self.servers
            ],
        }

    def print(self, console: Console) -> None:
        """One line a server, as long as it gets: there may be many thousands."""
        lines = [COLUMNS, *map(_line, self.servers)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        head, *body = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        console.out(head, style="bold", highlight=False)
        if body:
            console.out("\n".join(body), highlight=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two copies of one server."""

    compared: Compared

    @property
    def exit_code(self) -> Exit:
        """A difference is a finding."""
        return Exit.FINDINGS if self.compared.found else Exit.DONE

    def document(self) -> Document:
        """In docs/json.rst: "A comparison"."""
        compared = self.compared
        return {
            "command": "compare",
            "exit_code": int(self.exit_code),
            "server": compared.server,
            "name": compared.name,
            "cell": _name(compared.here),
            "other_cell": _name(compared.there),
            "differences": [
                {
                    "table": each.table,
                    "key": each.key,
                    "column": each.column or None,
                    "here": each.here,
                    "there": each.there,
                }
                for each in compared.found
            ],
        }

    def print(self, console: Console) -> None:
        """A table, if there is anything to tell; the last line counts."""
        compared = self.compared
        here, there = _name(compared.here), _name(compared.there)
        if compared.found:
            rows = table("table", "row", "column", here, there)
            for each in compared.found:
                rows.add_row(each.table, each.key, each.column, each.here, each.there)
            console.print(rows)
        console.print(
            f"{compared.name} ({compared.server}): {len(compared.found)} difference(s) between "
            f"{here}, which owns it, and {there}."
        )


def _line(each: Listed) -> tuple[str, ...]:
    return (
        each.server,
        one_line(each.name),
        each.project_id,
        each.status,
        each.host or "-",
        _name(each.cell),
        each.flavor,
    )


def _name(cell: Cell) -> str:
    return cell.name or cell.uuid
