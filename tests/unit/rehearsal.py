"""A verb run from end to end over the fake cloud, by the real conductor with the real journal."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cellmove.conductor import Conductor
from cellmove.intake import intake_resize
from cellmove.journal import Entry, Journal, Mark, Verb
from cellmove.model import Move
from cellmove.plan import plan
from cellmove.steps.base import Step
from tests.fakes.databases import BORN
from tests.fakes.world import ACTOR, REQUESTS, SERVER, State, World

TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")


class MemoryJournal(Journal):
    """A journal that is put aside and taken up again as bytes; on disk it is tested elsewhere."""

    def __init__(self) -> None:
        super().__init__("sqlite://")

    def take_up(self, content: bytes) -> None:
        """Hold this instead of what is written in it."""
        with closing(self._engine.raw_connection()) as connection:
            self._of(connection).deserialize(content)

    def content(self) -> bytes:
        """All that is written in it."""
        with closing(self._engine.raw_connection()) as connection:
            return self._of(connection).serialize()

    def _of(self, connection: Any) -> sqlite3.Connection:
        raw = connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        return raw


def taken_in(world: World, *, cold: bool = False, flatten: bool = False) -> Move:
    """A cold migration of the world's server to a named host, taken in and not begun."""
    world._report_services()
    return intake_resize(
        world.cloud,
        SERVER,
        flavor=None,
        to_host="cmp2a",
        to_cell=None,
        actor=ACTOR,
        request_id=REQUESTS["resize"],
        cold=cold,
        flatten=flatten,
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """The world between two steps, and what the journal says there."""

    state: State
    journal: bytes
    snapshot: dict[str, Any]


@dataclass
class Rehearsal:
    """One verb, run undisturbed, with every moment between two steps kept."""

    world: World
    verb: Verb
    flavor: str | None = "c2"
    after_step: Callable[[Step], None] = lambda step: None
    moments: list[Moment] = field(default_factory=list)
    """Before the first step, and after each."""

    def __post_init__(self) -> None:
        request_id = f"req-{uuid.uuid4()}"
        self.move = replace(self.world.move(self.verb, self.flavor), request_id=request_id)
        self.steps = plan(self.verb, self.move)
        self.journal = MemoryJournal()
        self.number = self.journal.open_move(self.verb, self.move)
        self._keep()
        self.conductor(self._watch).conduct(self.number, self.steps, take_back=False)
        self.end = Moment(self.world.save(), self.journal.content(), self.world.snapshot())

    @property
    def entry(self) -> Entry:
        return self.journal.entry(str(self.number))

    def conductor(
        self,
        watch: Callable[[Step, Mark], None] = lambda step, mark: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Conductor:
        """A new one, as after a crash: it knows what the journal says and no more."""
        return Conductor(self.journal, self.world.cloud, watch, should_stop)

    def back_to(self, moment: Moment) -> None:
        """The world and the journal as they were."""
        self.world.load(moment.state)
        self.take_up(moment.journal)

    def take_up(self, journal: bytes) -> None:
        """Go on with what a journal's file holds."""
        self.journal.take_up(journal)

    def _watch(self, step: Step, mark: Mark) -> None:
        if mark in (Mark.DONE, Mark.FOUND):
            self.after_step(step)
            self._keep()

    def _keep(self) -> None:
        self.moments.append(
            Moment(self.world.save(), self.journal.content(), self.world.snapshot())
        )


def rehearsed(
    folder: Path, verb: Verb, vm_state: str = "active", flavor: str | None = "c2"
) -> Rehearsal:
    """This verb in a new world; what must come before it has been done."""
    world = World(folder, vm_state)
    if verb != "resize":
        Rehearsal(world, "resize", flavor)
    return Rehearsal(world, verb, flavor)


def timeless(value: Any) -> Any:
    """The same with every time that is not of the server's birth made equal."""
    if isinstance(value, str):
        return TIME.sub(lambda at: at[0] if at[0].startswith(f"{BORN:%Y-%m-%d}") else "NOW", value)
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        made = [timeless(each) for each in value]
        # Rows come sorted by all they hold, their times too: a slow run has them otherwise.
        return sorted(made, key=repr) if all(isinstance(each, list) for each in made) else made
    return value
