"""One server: every reason for which it could not be moved, and where it would go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.errors import Refusals, Refused
from cellmove.intake.found import find, locate
from cellmove.model import Host, Move


@dataclass(frozen=True, slots=True)
class Looked:
    """A server where it is, and what a move of it would meet."""

    server: str
    name: str
    host: Host
    target: Host | None
    """Where it would go; None: nowhere, for these reasons."""
    reasons: Sequence[Refused]


def look(cloud: Cloud, asked: str, intake: Callable[[str], Move]) -> Looked:
    """Take the server in as a resize would, and collect what is against it; nothing is touched.

    `intake` is called with the server's uuid.

    Raises:
        Refused: there is no such server, or it is on no hypervisor.
    """
    here = find(cloud, locate(cloud, asked))
    server = here.row["uuid"]
    target: Host | None = None
    reasons: Sequence[Refused] = ()
    try:
        target = intake(server).target
    except Refusals as error:
        reasons = error.reasons
    except Refused as error:
        reasons = (error,)
    return Looked(server, here.row["display_name"] or server, here.host, target, reasons)
