"""How long a move kept its guest off: what its users felt, without the guest's own boot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from cellmove.journal import Entry, Mark, Verb

_OFF: Final[Mapping[Verb, tuple[str, str]]] = {
    "resize": ("stop-source-guest", "start-target-guest"),
    "revert": ("stop-target-guest", "start-source-guest"),
}
"""The step that shuts the guest down, and the one that lets it run again."""


def downtime_seconds(entry: Entry) -> float | None:
    """From asking the guest to shut down until it runs on the other host.

    None: it was off before, the verb does not stop it, or it does not run again yet. After an undo
    it was the source's own start that ended it, which no step's end tells exactly: None, too.
    """
    stop, start = _OFF.get(entry.verb, ("", ""))
    began = [e.at for e in entry.events if e.step == stop and e.mark is Mark.BEGUN]
    ended = [e.at for e in entry.events if e.step == start and e.mark is Mark.DONE]
    undone = any(e.step == start and e.mark is Mark.UNDOING for e in entry.events)
    if entry.move.vm_state != "active" or not began or not ended or undone:
        return None
    return (datetime.fromisoformat(ended[-1]) - datetime.fromisoformat(began[0])).total_seconds()
