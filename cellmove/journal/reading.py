"""Moves are read back: all of them, or as much as a list needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

import sqlalchemy as sa

from cellmove.errors import Refused
from cellmove.journal.entries import Entry, Event, Mark, Saved, Verb, move_of
from cellmove.journal.tables import EVENTS, MOVES

_ENDS = (Mark.FINISHED.value, Mark.TAKEN_BACK.value)
_TELLING = (*_ENDS, Mark.UNDOING.value)
"""The marks that decide how a move stands."""


def still_open() -> sa.ColumnElement[bool]:
    """Of moves that are neither finished nor taken back."""
    ended = sa.select(EVENTS.c.move_id).where(EVENTS.c.mark.in_(_ENDS))
    return MOVES.c.id.not_in(ended)


def newest(db: sa.Connection, last: int) -> sa.ColumnElement[bool]:
    """Of the last so many moves."""
    numbers = sa.select(MOVES.c.number).order_by(MOVES.c.number.desc()).limit(last)
    return MOVES.c.number >= min(db.scalars(numbers), default=0)


def read(db: sa.Connection, where: sa.ColumnElement[bool], *, brief: bool = False) -> list[Entry]:
    """The moves, oldest first; `brief`: of their events only those that decide how they stand.

    Raises:
        Refused: what is written there is no move.
    """
    events: dict[str, list[Event]] = {}
    ids = sa.select(MOVES.c.id).where(where)
    query = EVENTS.select().where(EVENTS.c.move_id.in_(ids)).order_by(EVENTS.c.id)
    if brief:
        query = query.where(EVENTS.c.mark.in_(_TELLING))
    for row in db.execute(query):
        events.setdefault(row.move_id, []).append(_event(row))
    moves = db.execute(MOVES.select().where(where).order_by(MOVES.c.number))
    return [_entry(row, events.get(row.id, ())) for row in moves]


def _event(row: sa.Row[Any]) -> Event:
    try:
        datetime.fromisoformat(row.at)
        saved: Saved = {
            str(key): [str(each) for each in value] for key, value in json.loads(row.saved).items()
        }
        return Event(row.at, row.step, Mark(row.mark), saved, row.note)
    except _ILLEGIBLE as error:
        raise _damaged(f"event {row.id}", error) from error


def _entry(row: sa.Row[Any], events: Sequence[Event]) -> Entry:
    try:
        datetime.fromisoformat(row.created_at)
        if row.verb not in get_args(Verb) or not isinstance(row.number, int):
            raise ValueError(row.verb)
        return Entry(row.number, row.verb, move_of(row.move), row.created_at, tuple(events))
    except _ILLEGIBLE as error:
        raise _damaged(f"move {row.number}", error) from error


_ILLEGIBLE = (ValueError, KeyError, TypeError, AttributeError)
"""What reading back raises of a text that is not what was written."""


def _damaged(what: str, error: Exception) -> Refused:
    return Refused(
        "The journal is damaged.",
        f"What it has as {what} cannot be read ({type(error).__name__}).",
        "Bring the journal back from a copy; nothing was changed.",
    )
