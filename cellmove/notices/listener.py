"""Listens to a move's steps, and says of each what nova would say."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cellmove.cloud import Cloud
from cellmove.journal import Mark, Verb
from cellmove.model import Move
from cellmove.notices.events import EVENTS, Event
from cellmove.notices.payload import payload
from cellmove.notices.sender import Notice, Sender
from cellmove.steps.base import Step


@dataclass(frozen=True, slots=True)
class Notices:
    """A `conductor.Watch`. The rows are read when a step is done: later they say something else."""

    cloud: Cloud
    verb: Verb
    move: Move
    sender: Sender

    def __call__(self, step: Step, mark: Mark) -> None:
        """Send what belongs to this; never raises."""
        for event in EVENTS.get((self.verb, step.name, mark), ()):
            try:
                self.sender.send(self._notice(event))
            except Exception as error:  # noqa: BLE001 - a move never fails for what is said of it
                self.sender.lose(f"{type(error).__name__}: {error}")

    def _notice(self, event: Event) -> Notice:
        move = self.move
        database = (self.cloud.source if event.cell == "source" else self.cloud.target)(move)
        with database.read() as rows:
            content = payload(event, move, rows, dt.datetime.now(dt.UTC))
        publishers = {"source": move.source.name, "target": move.target.name}
        context = {
            "request_id": move.request_id,
            "user_id": move.actor_user_id,
            "project_id": move.actor_project_id,
        }
        publisher = f"nova-compute:{publishers.get(event.publisher, move.conductor)}"
        return Notice(publisher, event.name, context, content)
