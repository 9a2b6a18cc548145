"""The answer of `drain`: what has left, what is left and why, and how to retire what is empty."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from cellmove.draining.happenings import Kind, Outcome
from cellmove.draining.scope import Found, Scope
from cellmove.draining.wishes import Resident
from cellmove.errors import Exit
from cellmove.report.base import VERSION, Document
from cellmove.report.failures import error_document

MOST_NAMES = 10
"""In a sentence."""
_NOT_DONE: tuple[Kind, ...] = ("failed", "left", "stopped")


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended."""

    scope: Scope
    drain: int
    outcomes: Sequence[Outcome]
    found: Found
    """What is there now."""
    stopped: bool = False
    given_up: str = ""
    """Why it ended before its time; empty: it did not."""
    cordoned: Sequence[str] = ()
    """Hosts whose services this drain has disabled, or an earlier one."""

    @property
    def exit_code(self) -> Exit:
        """How the cloud stands."""
        kinds = {outcome.kind for outcome in self.last.values()}
        if self.stopped:
            return Exit.STOPPED
        if not kinds.isdisjoint(_NOT_DONE) or self.given_up:
            touched = any(outcome.number is not None for outcome in self.outcomes)
            return Exit.SOME_FAILED if touched or self.given_up else Exit.REFUSED
        return Exit.DONE

    @property
    def last(self) -> dict[str, Outcome]:
        """The newest outcome of each server: one that was moved may have been confirmed too."""
        return {outcome.server: outcome for outcome in self.outcomes}

    def count(self, *kinds: Kind) -> int:
        """How many servers ended like this."""
        return len({each.server for each in self.outcomes if each.kind in kinds})

    def document(self) -> Document:
        """In docs/json.rst: "A drain"."""
        return {
            "command": "drain",
            "exit_code": int(self.exit_code),
            "drain": self.drain,
            "scope": _scope_document(self.scope),
            "moved": self.count("done"),
            "confirmed": self.count("confirmed"),
            "failed": self.count("failed"),
            "left": self.count("left"),
            "results": [outcome_document(each) for each in self.outcomes],
            "remaining": [_resident(each) for each in (*self.found.wanted, *self.found.staying)],
            "open_moves": [entry.number for entry in self.found.begun],
            "waiting": [each.server for each in self.found.waiting],
            "given_up": self.given_up or None,
            "next": self.next_commands(),
        }

    def print(self, console: Console) -> None:
        """What is not done, with its reason; the counts; what to type next."""
        for outcome in self.last.values():
            if outcome.kind in _NOT_DONE:
                who = Text(f"{outcome.name} ({outcome.server}) ", style="bold red")
                console.print(who, Text(f"{outcome.kind}: {outcome.error or outcome.note}"), sep="")
        if self.given_up:
            console.print(Text(self.given_up))
        console.print(self._counts())
        console.print(self._remains())
        for lead, command in self.next_commands_said():
            console.print(f"{lead} {command}", soft_wrap=True)

    def next_commands(self) -> list[str]:
        """What can be typed next."""
        return [command for _, command in self.next_commands_said()]

    def next_commands_said(self) -> list[tuple[str, str]]:
        """The same, each with what it is for."""
        if self.stopped:
            return [("Go on:  run the same command again;", "cellmove moves"), *self._opened()]
        said: list[tuple[str, str]] = []
        waiting = " ".join(each.server for each in self.found.waiting)
        if waiting and not (self.found.wanted or self.found.begun):
            said.append(("Keep them there:", f"cellmove confirm {waiting}"))
        if self.found.empty:
            said += [("Retire it:", command) for command in retire_commands(self.scope)]
        else:
            said += self._opened()
        return said

    def _opened(self) -> list[tuple[str, str]]:
        """How hosts are used again that are not empty."""
        enable = "openstack compute service set --enable {} nova-compute"
        return [("Let it take servers again:", enable.format(host)) for host in self.cordoned]

    def _counts(self) -> str:
        moved, confirmed = self.count("done"), self.count("confirmed")
        parts = [f"{moved} moved", f"{confirmed} confirmed"]
        parts += [f"{self.count(kind)} {kind}" for kind in _NOT_DONE if self.count(kind)]
        return f"Drain {self.drain} of {self.scope.title}: {', '.join(parts)}."

    def _remains(self) -> str:
        found, title = self.found, self.scope.title
        if found.empty:
            return f"Nothing is left on {title}."
        parts = []
        here = [entry.move.name for entry in found.begun] + [each.name for each in found.wanted]
        if here:
            parts.append(f"{len(here)} still to move ({_some(here)})")
        if found.staying:
            parts.append(f"{len(found.staying)} that this drain is not to move")
        if found.waiting:
            parts.append(
                f"the old disks and records of {len(found.waiting)} that wait to be confirmed"
            )
        return f"Left on {title}: {', '.join(parts)}."


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The answer of `drain --dry-run`."""

    scope: Scope
    found: Found
    outcomes: Sequence[Outcome]
    """Of each server, as it was taken in now."""

    @property
    def exit_code(self) -> Exit:
        """Whether all of it could be done now."""
        return Exit.REFUSED if any(each.kind == "left" for each in self.outcomes) else Exit.DONE

    def document(self) -> Document:
        """In docs/json.rst: "A drain looked at"."""
        return {
            "command": "drain",
            "dry_run": True,
            "exit_code": int(self.exit_code),
            "scope": _scope_document(self.scope),
            "servers": [outcome_document(each) for each in self.outcomes],
            "open_moves": [entry.number for entry in self.found.begun],
            "waiting": [each.server for each in self.found.waiting],
            "staying": [_resident(each) for each in self.found.staying],
        }

    def print(self, console: Console) -> None:
        """A line a server; the last line says that this was only a look."""
        for entry in self.found.begun:
            console.print(f"{entry.move.name}: move {entry.number} ({entry.verb}) goes on")
        for each in self.outcomes:
            way = f"to {each.target.name} as it looks now" if each.target else str(each.error)
            console.print(Text(f"{each.name} ({each.server}): {way}"))
        console.print(
            f"{len(self.outcomes)} servers would leave {self.scope.title}, "
            f"{len(self.found.staying)} would stay, {len(self.found.waiting)} wait to be confirmed."
        )
        console.print("Nothing was changed. Run it without --dry-run to do it.")


def emit_line(drained: Drained) -> None:
    """The summary as the last of the JSON lines."""
    sys.stdout.write(json.dumps({"version": VERSION, "event": "over"} | drained.document()) + "\n")
    sys.stdout.flush()


def retire_commands(scope: Scope) -> list[str]:
    """How nova is told that the host or the cell is no more: cellmove does not do that itself."""
    cell, commands = scope.cell.uuid, []
    for host in scope.hosts:
        listed = f"openstack compute service list --host {host} --service nova-compute"
        commands += [
            f"openstack compute service set --disable {host} nova-compute",
            f"openstack compute service delete $({listed} -f value -c ID)",
            f"nova-manage cell_v2 delete_host --cell_uuid {cell} --host {host}",
        ]
    if scope.whole:
        commands.append(f"nova-manage cell_v2 delete_cell --cell_uuid {cell}")
    return commands


def outcome_document(outcome: Outcome) -> Document:
    """One server's."""
    return {
        "server": outcome.server,
        "name": outcome.name,
        "result": outcome.kind,
        "move": outcome.number,
        "source": outcome.source.name if outcome.source else None,
        "target": outcome.target.name if outcome.target else None,
        "error": error_document(outcome.error) if outcome.error else None,
        "note": outcome.note or None,
    }


def _scope_document(scope: Scope) -> Document:
    return {
        "cell": scope.cell.name or scope.cell.uuid,
        "host": None if scope.whole else scope.hosts[0],
        "hosts": list(scope.hosts),
        "to_cell": scope.to_cell.name or scope.to_cell.uuid,
    }


def _resident(each: Resident) -> Document:
    return {"server": each.server, "name": each.name, "host": each.host}


def _some(names: Sequence[str]) -> str:
    """All of them, or the first and how many more."""
    more = len(names) - MOST_NAMES
    return ", ".join([*names[:MOST_NAMES], *([f"and {more} more"] if more > 0 else [])])
