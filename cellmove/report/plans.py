"""The answer of `--dry-run`: what would be done, and what is there now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.errors import Exit
from cellmove.journal import Verb
from cellmove.model import Move
from cellmove.report.base import Document, table
from cellmove.report.moves import copy_bytes, move_document, move_facts
from cellmove.report.outcomes import Outcome
from cellmove.steps.base import Finding, Status, Step

_NOW = {
    Status.TODO: ("to do", ""),
    Status.DONE: ("there already", "green"),
    Status.BLOCKED: ("blocked", "bold red"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One server's move: its steps, each with what it sees now."""

    move: Move
    looks: Sequence[tuple[Step, Finding]]


@dataclass(frozen=True, slots=True)
class Plans:
    """What a verb would do with its servers."""

    verb: Verb
    plans: Sequence[Plan]
    refused: Sequence[Outcome] = ()

    @property
    def exit_code(self) -> Exit:
        """Whether all of it could be done."""
        return Exit.REFUSED if self.refused else Exit.DONE

    def document(self) -> Document:
        """In docs/json.rst: "A dry run"."""
        return {
            "command": self.verb,
            "dry_run": True,
            "exit_code": int(self.exit_code),
            "plans": [self._one(plan) for plan in self.plans],
            "refused": [outcome.document() for outcome in self.refused],
        }

    def _one(self, plan: Plan) -> Document:
        return {
            "move": move_document(plan.move),
            "copy_bytes": copy_bytes(self.verb, plan.move),
            "steps": [
                {
                    "number": number,
                    "name": step.name,
                    "does": step.describe(),
                    "reversible": step.reversible,
                    "status": look.status.value,
                    "why": look.why,
                }
                for number, (step, look) in enumerate(plan.looks, 1)
            ],
        }

    def print(self, console: Console) -> None:
        """Facts and a table for each server; the last line says that this was only a look."""
        for plan in self.plans:
            console.print(move_facts(self.verb, plan.move))
            console.print()
            steps = table("#", "step", "what it does", "now")
            for number, (step, look) in enumerate(plan.looks, 1):
                steps.add_row(str(number), step.name, step.describe(), _now(look))
            console.print(steps)
            console.print()
        for outcome in self.refused:
            outcome.print(console)
        console.print("Nothing was changed. Run it without --dry-run to do it.")


def _now(look: Finding) -> Text:
    word, style = _NOW[look.status]
    return Text(f"{word}: {look.why}" if look.why else word, style=style)
