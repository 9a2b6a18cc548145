"""nova's versioned notifications of a move, for those who listen to nova: off by default.

A move knows nothing of them: they are made of its steps as these are done, and whether they reach
anybody never changes how a move ends.
"""

from __future__ import annotations

from cellmove.notices.listener import Notices
from cellmove.notices.sender import Sender, open_sender

__all__ = ["Notices", "Sender", "open_sender"]
