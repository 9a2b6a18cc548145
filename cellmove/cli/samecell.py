"""A server whose best host is in its own cell: nova is asked to resize it, and waited for."""

from __future__ import annotations

import time
from typing import Final

from cellmove.cli.desk import Desk
from cellmove.cli.planning import Wish
from cellmove.errors import (
    CellmoveError,
    Exit,
    Refusals,
    Refused,
    Stopped,
    TakenBack,
    UndoIncomplete,
)
from cellmove.intake.found import Placed, find, locate
from cellmove.intake.ranking import SameCell
from cellmove.intake.resize import wanted_flavor
from cellmove.opening import OpenCloud
from cellmove.report.samecell import Delegated
from cellmove.services.nova import Shown

REFUSE: Final = "refuse"
POLL_SECONDS: Final = 1.0
FAULT_SECONDS = 5
WAITING: Final = "VERIFY_RESIZE"
AT_WORK: Final = "RESIZE"


def within_cell(error: Refused) -> SameCell | None:
    """Whether a server was refused because its host would be in its own cell.

    What else speaks against a move of ours says nothing of nova's: nova judges that itself.
    """
    reasons = error.reasons if isinstance(error, Refusals) else (error,)
    return next((each for each in reasons if isinstance(each, SameCell)), None)


def by_nova(desk: Desk, asked: str, wish: Wish, best: SameCell, *, dry_run: bool) -> Exit:
    """Have nova do it, and wait until the server is to be confirmed.

    Raises:
        Refused: nova does not do it.
        TakenBack: nova has given up; the server is where it was.
        UndoIncomplete: nova has given up, and left the server in error.
        Stopped: on request; nova goes on by itself.
    """
    with desk.cloud() as opened:
        here = find(opened.cloud, locate(opened.cloud, asked))
        server, flavor = here.row["uuid"], wanted_flavor(opened.cloud, here, wish.flavor)
        if wish.flavor is not None and wish.to_host is not None:
            raise Refused(
                f"nova cannot be told the host {wish.to_host} for a resize within a cell.",
                "Its scheduler chooses; only a migration without a new flavor takes a host.",
                "Leave --to-host or --flavor away.",
            )
        status, host = "", best.host.name
        if not dry_run:
            if wish.flavor is None:
                opened.nova.migrate(server, best.host.name)
            else:
                opened.nova.resize(server, flavor.flavorid)
            shown = _waited(desk, opened, here)
            status, host = shown.status, shown.host
    name = here.row["display_name"] or server
    return desk.answer(Delegated(server, name, here.cell.name, host, flavor.name, status))


def _waited(desk: Desk, opened: OpenCloud, here: Placed) -> Shown:
    """The server once nova is done with it; every state on the way is said."""
    server, said = here.row["uuid"], ""
    try:
        while True:
            shown = opened.nova.show(server)
            if (state := shown.task_state or shown.status) != said:
                desk.remark(f"nova: {state}")
                said = state
            if not shown.task_state and shown.status != AT_WORK:
                break
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise Stopped(
            "Stopped waiting, as asked.",
            f"nova goes on by itself; its state was {said or 'not seen yet'}.",
            f"See `openstack server show {server}`.",
        ) from None
    if shown.status != WAITING:
        raise _given_up(opened, shown, here)
    return shown


def _given_up(opened: OpenCloud, shown: Shown, here: Placed) -> CellmoveError:
    server = here.row["uuid"]
    fault = shown.fault or _awaited_fault(opened, here) or "nova tells no fault."
    seen = f"It is {shown.status} on {shown.host}. {fault}"
    do = f"See `openstack server event list {server}` and nova's logs."
    if shown.status == "ERROR" or shown.host != here.host.name:
        return UndoIncomplete("nova did not resize the server, and left it so.", seen, do)
    return TakenBack("nova did not resize the server; it is where it was.", seen, do)


def _awaited_fault(opened: OpenCloud, here: Placed) -> str:
    """Nova writes it down a moment after it has given the server its state back."""
    deadline = time.monotonic() + FAULT_SECONDS
    while not (fault := _new_fault(opened, here)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return fault


def _new_fault(opened: OpenCloud, here: Placed) -> str:
    """What nova wrote down: its API shows faults only of servers in error."""
    before = {row["id"] for row in here.records.tables["instance_faults"]}
    with opened.cloud.cells[here.cell.uuid].read() as rows:
        found = rows.all("instance_faults", instance_uuid=here.row["uuid"], deleted=0)
    new = [str(row["message"] or "") for row in found if row["id"] not in before]
    return " ".join(new[-1].split()) if new else ""
