"""A server's action and its events, as nova has them in `instance_actions` and `..._events`.

nova finds an action by the server and the request id; cellmove uses one request id per command.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cellmove.dbcopy.database import Row, Rows, now
from cellmove.model import Move


def find_action(rows: Rows, move: Move) -> Row | None:
    """The action row of this move's command, if it is there."""
    return rows.one("instance_actions", instance_uuid=move.server, request_id=move.request_id)


def find_event(rows: Rows, move: Move, event: str) -> Row | None:
    """One event of that action, if it is there."""
    action = find_action(rows, move)
    if action is None:
        return None
    return rows.one("instance_actions_events", action_id=action["id"], event=event)


@dataclass(frozen=True, slots=True)
class ActionStarted:
    """The server's history has this command; nova-api never sets an action's finish time."""

    move: Move
    action: str

    @property
    def key(self) -> str:
        return "action"

    def holds(self, rows: Rows) -> bool:
        return find_action(rows, self.move) is not None

    def remember(self, rows: Rows) -> Sequence[str]:
        return ["there"] if self.holds(rows) else []

    def apply(self, rows: Rows) -> None:
        if self.holds(rows):
            return
        rows.insert(
            "instance_actions",
            [
                {
                    "instance_uuid": self.move.server,
                    "request_id": self.move.request_id,
                    "action": self.action,
                    "user_id": self.move.actor_user_id,
                    "project_id": self.move.actor_project_id,
                    "start_time": self.move.started_at,
                }
            ],
        )

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        action = find_action(rows, self.move)
        if action is not None and not kept:
            rows.delete("instance_actions_events", action_id=action["id"])
            rows.delete("instance_actions", id=action["id"])


@dataclass(frozen=True, slots=True)
class EventStarted:
    """The action has this event, begun on `host`."""

    move: Move
    event: str
    host: str

    @property
    def key(self) -> str:
        return f"started-{self.event}"

    def holds(self, rows: Rows) -> bool:
        return find_event(rows, self.move, self.event) is not None

    def remember(self, rows: Rows) -> Sequence[str]:
        return ["there"] if self.holds(rows) else []

    def apply(self, rows: Rows) -> None:
        action = find_action(rows, self.move)
        if action is None or self.holds(rows):
            return
        started = {"start_time": now(), "host": self.host}
        row = {"action_id": action["id"], "event": self.event, **started}
        rows.insert("instance_actions_events", [row])
        rows.change("instance_actions", {"updated_at": now()}, id=action["id"])

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        event = find_event(rows, self.move, self.event)
        if event is not None and not kept:
            rows.delete("instance_actions_events", id=event["id"])


@dataclass(frozen=True, slots=True)
class EventFinished:
    """The event has ended well."""

    move: Move
    event: str

    @property
    def key(self) -> str:
        return f"finished-{self.event}"

    def holds(self, rows: Rows) -> bool:
        event = find_event(rows, self.move, self.event)
        return event is not None and event["result"] == "Success"

    def remember(self, rows: Rows) -> Sequence[str]:
        event = find_event(rows, self.move, self.event)
        if event is None:
            return []
        old = {"finish_time": event["finish_time"], "result": event["result"]}
        return [json.dumps(old, default=str)]

    def apply(self, rows: Rows) -> None:
        event = find_event(rows, self.move, self.event)
        if event is None or self.holds(rows):
            return
        values = {"finish_time": now(), "result": "Success"}
        rows.change("instance_actions_events", values, id=event["id"])
        rows.change("instance_actions", {"updated_at": now()}, id=event["action_id"])

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        event = find_event(rows, self.move, self.event)
        if event is not None and kept:
            rows.change("instance_actions_events", json.loads(kept[0]), id=event["id"])
