"""The journal: what was begun, what was there before, how far it went; written before the touch.

Append-only events beside the frozen move they belong to. Its state is never stored, only derived:
a crash can leave the last event missing but never a wrong summary. Beside them stands who works on
what: leases of moves, and the turns of drains that several conductors share.
"""

from cellmove.journal.database import default_path
from cellmove.journal.entries import Entry, Event, Mark, Saved, State, Verb
from cellmove.journal.heart import Lease
from cellmove.journal.leases import TakenOver
from cellmove.journal.queue import Busy, Caps, Result, Turn
from cellmove.journal.store import Journal

__all__ = [
    "Busy",
    "Caps",
    "Entry",
    "Event",
    "Journal",
    "Lease",
    "Mark",
    "Result",
    "Saved",
    "State",
    "TakenOver",
    "Turn",
    "Verb",
    "default_path",
]
