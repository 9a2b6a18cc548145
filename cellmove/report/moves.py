"""A move as answers show it: its facts, where its server is, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.table import Table

from cellmove.journal import Entry, State, Verb
from cellmove.model import Flavor, Host, Move
from cellmove.report.base import Document, facts, size

_STYLES = {
    State.OPEN: "yellow",
    State.UNDOING: "yellow",
    State.FINISHED: "green",
    State.TAKEN_BACK: "dim",
}


def move_document(move: Move) -> Document:
    """A move without what only its steps need."""
    return {
        "id": move.id,
        "request_id": move.request_id,
        "server": move.server,
        "name": move.name,
        "kind": move.kind,
        "migration": move.migration,
        "source": _side(move.source, move.old_flavor),
        "target": _side(move.target, move.new_flavor),
    }


def entry_document(entry: Entry) -> Document:
    """A move as the journal has it."""
    own = {
        "number": entry.number,
        "verb": entry.verb,
        "state": entry.state.value,
        "created_at": entry.created_at,
    }
    return own | move_document(entry.move)


def move_facts(verb: Verb, move: Move) -> Table:
    """What somebody wants to know before the steps."""
    table = facts()
    table.add_row("server", f"{move.name} ({move.server})")
    table.add_row("verb", _kind(verb, move))
    table.add_row("from", f"{place(move.source)}, flavor {move.old_flavor.name}")
    table.add_row("to", f"{place(move.target)}, flavor {move.new_flavor.name}")
    if verb == "resize":
        table.add_row("guest", _guest(move))
        table.add_row("to copy", _disks(move))
    return table


def copy_bytes(verb: Verb, move: Move) -> int:
    """What has to cross between the hosts."""
    return sum(disk.allocated_bytes for disk in move.disks) if verb == "resize" else 0


def place(host: Host) -> str:
    """A host with its cell: never one without the other."""
    return f"{host.name} in {host.cell.name}"


def state_text(state: State) -> tuple[str, str]:
    """A move's state and its style."""
    return state.value, _STYLES[state]


def where(verb: Verb, move: Move) -> tuple[Host, Flavor]:
    """Where the server is once the verb is done, and with which flavor."""
    if verb == "revert":
        return move.source, move.old_flavor
    return move.target, move.new_flavor


def arrived(verb: Verb, move: Move) -> str:
    """The sentence that ends a verb."""
    host, flavor = where(verb, move)
    here = f"{place(host)} with flavor {flavor.name}"
    if verb == "resize":
        return f"{move.name} is on {here} and waits to be confirmed (VERIFY_RESIZE)."
    if verb == "confirm":
        return f"{move.name} stays on {here}; nothing is left of it on {place(move.source)}."
    return f"{move.name} is back on {here}; nothing is left of it on {place(move.target)}."


def after_verb(verb: Verb, asked: str) -> list[str]:
    """The commands that can follow a finished verb."""
    if verb != "resize":
        return []
    return [f"cellmove {each} {shlex.quote(asked)}" for each in ("confirm", "revert")]


def warnings(verb: Verb, move: Move) -> list[str]:
    """What whoever ends a resize has to know: of these servers nova's own ways do it badly.

    nova 26, network/neutron.py: a revert without provider mappings is refused for such a port, and
    the server is left in ERROR.
    """
    if verb != "resize":
        return []
    told = []
    if any(port.has_resource_request for port in move.ports):
        told.append(
            "Revert it with cellmove alone: nova's own revert fails on ports with a guaranteed "
            "rate, and leaves the server in ERROR."
        )
    if move.nvram:
        told.append(
            f"Confirm it with cellmove: nova's own confirm leaves {move.nvram} on "
            f"{move.source.name}."
        )
    return told


def next_commands(entry: Entry, later: Sequence[Entry] = ()) -> list[str]:
    """What to type next for a move in the journal; `later` are its server's moves after it."""
    if entry.state is State.OPEN:
        return [f"cellmove resume {entry.number}", f"cellmove undo {entry.number}"]
    if entry.state is State.UNDOING:
        return [f"cellmove undo {entry.number}"]
    superseded = any(each.state is not State.TAKEN_BACK for each in later)
    if entry.state is State.TAKEN_BACK or superseded:
        return []
    return after_verb(entry.verb, entry.move.server)


def _kind(verb: Verb, move: Move) -> str:
    what = "resize" if move.kind == "resize" else "cold migration"
    return what if verb == "resize" else f"{verb} a {what}"


def _side(host: Host, flavor: Flavor) -> Document:
    return {"host": host.name, "cell": host.cell.name, "flavor": flavor.name}


def _guest(move: Move) -> str:
    if move.vm_state != "active":
        return "off, and stays off"
    if any(disk.warm for disk in move.disks):
        return "runs while its disks are copied; is shut down for the rest"
    return "runs; is shut down while its disks are copied"


def _disks(move: Move) -> str:
    return ", ".join(
        f"{disk.name}: {size(disk.allocated_bytes)} of {size(disk.size_bytes)}"
        for disk in move.disks
    )
