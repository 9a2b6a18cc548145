"""The server's history on its way home: actions that only the target cell has seen."""

from __future__ import annotations

from collections.abc import Sequence

from cellmove.dbcopy.database import Rows


def missing(there: Rows, home: Rows, server: str) -> list[str]:
    """Request ids of the actions that `there` has and `home` lacks, oldest first."""
    known = {row["request_id"] for row in home.all("instance_actions", instance_uuid=server)}
    actions = there.all("instance_actions", instance_uuid=server, deleted=0)
    return [row["request_id"] for row in actions if row["request_id"] not in known]


def carry(there: Rows, home: Rows, server: str) -> None:
    """Copy those actions with their events, in order; ids are the home cell's own."""
    requests = missing(there, home, server)
    actions = there.all("instance_actions", instance_uuid=server, request_id=requests, deleted=0)
    carried = [{key: value for key, value in row.items() if key != "id"} for row in actions]
    ids = home.insert("instance_actions", carried)
    new_id = {row["id"]: key for row, key in zip(actions, ids, strict=True)}
    events = there.all("instance_actions_events", action_id=list(new_id), deleted=0)
    home.insert(
        "instance_actions_events",
        [
            {key: value for key, value in row.items() if key != "id"}
            | {"action_id": new_id[row["action_id"]]}
            for row in events
        ],
    )


def drop_carried(home: Rows, server: str, requests: Sequence[str]) -> None:
    """Take those actions away again."""
    for row in home.all("instance_actions", instance_uuid=server, request_id=list(requests)):
        home.delete("instance_actions_events", action_id=row["id"])
        home.delete("instance_actions", id=row["id"])
