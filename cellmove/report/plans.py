"""The answer of `--dry-run`: what would be done, and what is there now."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.errors import Exit
from cellmove.intake.estimate import Estimate
from cellmove.intake.explained import Explained
from cellmove.journal import Verb
from cellmove.model import Move
from cellmove.report.base import Document, size, table
from cellmove.report.explain import explained_document, print_explained
from cellmove.report.moves import copy_bytes, move_document, move_facts, warnings
from cellmove.report.outcomes import Outcome, print_next
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
    estimate: Estimate | None = None
    """What to expect of it; None of a verb that copies nothing."""


@dataclass(frozen=True, slots=True)
class Plans:
    """What a verb would do with its servers."""

    verb: Verb
    plans: Sequence[Plan]
    refused: Sequence[Outcome] = ()
    explained: Sequence[Explained] = ()
    """How each server's host was chosen, if that was asked for."""
    out: str = ""
    """The file that has the plan; empty: none was asked for."""

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
            "explained": [explained_document(each) for each in self.explained],
            "out": self.out or None,
        }

    def _one(self, plan: Plan) -> Document:
        return {
            "move": move_document(plan.move),
            "copy_bytes": copy_bytes(self.verb, plan.move),
            "estimate": _estimate_document(plan.estimate),
            "warnings": warnings(self.verb, plan.move),
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
        print_explained(console, self.explained)
        for plan in self.plans:
            about = move_facts(self.verb, plan.move)
            if plan.estimate is not None:
                about.add_row("to expect", _expected(plan.estimate))
            console.print(about)
            console.print()
            steps = table("#", "step", "what it does", "now")
            for number, (step, look) in enumerate(plan.looks, 1):
                steps.add_row(str(number), step.name, step.describe(), _now(look))
            console.print(steps)
            for each in warnings(self.verb, plan.move):
                console.print(Text(each, style="yellow"))
            console.print()
        for outcome in self.refused:
            outcome.print(console)
        if self.out:
            console.print(f"The plan is in {self.out}.")
            print_next(console, [f"cellmove resize --plan {shlex.quote(self.out)}"])
            return
        console.print("Nothing was changed. Run it without --dry-run to do it.")


def _expected(found: Estimate) -> str:
    """About how long; said as what it is."""
    off = f"{_about(found.downtime_seconds)} of it off" if found.downtime_seconds else "never off"
    by = f"as the last {found.measured} this way" if found.measured else "nothing measured yet"
    how = "measured" if found.rate_measured else "assumed"
    rate = f"{size(found.copy_bytes)} at {how} {size(found.bytes_per_second)}/s"
    return f"about {_about(found.seconds)}, {off} ({by}); {rate}"


def _about(seconds: float) -> str:
    minutes = -(-round(seconds) // 60)
    if seconds < 100:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _estimate_document(found: Estimate | None) -> Document | None:
    if found is None:
        return None
    return {
        "seconds": round(found.seconds, 1),
        "downtime_seconds": round(found.downtime_seconds, 1),
        "bytes_per_second": round(found.bytes_per_second),
        "rate_measured": found.rate_measured,
        "measured": found.measured,
    }


def _now(look: Finding) -> Text:
    word, style = _NOW[look.status]
    return Text(f"{word}: {look.why}" if look.why else word, style=style)
