"""The journal: what was begun, what was there before, how far it went; written before the touch.

Append-only events beside the frozen move they belong to. Its state is never stored, only derived:
a crash can leave the last event missing but never a wrong summary.
"""

from cellmove.journal.database import default_path
from cellmove.journal.entries import Entry, Event, Mark, Saved, State, Verb, under_way
from cellmove.journal.store import Journal

__all__ = [
    "Entry",
    "Event",
    "Journal",
    "Mark",
    "Saved",
    "State",
    "Verb",
    "default_path",
    "under_way",
]
