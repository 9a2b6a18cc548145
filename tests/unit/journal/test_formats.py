"""Journals of older and newer versions."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cellmove.errors import Refused
from cellmove.journal import Journal, Mark, State
from cellmove.journal.leases import boot_of_this_machine, born
from tests.unit import samples

OLD = Path(__file__).parents[2] / "data" / "journal-1.sql"
"""As version 0.1.0 wrote it: four moves, each standing another way, and a dead process's lease."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(OLD.read_text())
        db.execute(f"update leases set host = '{os.uname().nodename}'")
        db.commit()
    return path


def states(journal: Journal) -> list[State]:
    return [entry.state for entry in journal.entries()]


STATES = [State.FINISHED, State.OPEN, State.UNDOING, State.TAKEN_BACK]


def test_a_journal_of_format_1_is_read_and_gone_on_with(old: Path) -> None:
    journal = Journal(old)
    assert states(journal) == STATES
    second = journal.entry("2")
    assert second.saved("guard-server") == {"task_state": ["None"]}
    assert second.events[-1].note == "MariaDB cannot be reached: “no route”."
    with journal.lease(second.move.id):
        journal.write(second.move.id, "", Mark.FINISHED)
    assert journal.open_move("revert", samples.move("web-9")) == 5
    assert journal.turns(journal.open_drain("host:a")) == []
    journal.close()


def test_an_upgraded_journal_has_the_same_tables_as_a_new_one(old: Path, tmp_path: Path) -> None:
    Journal(old).close()
    new = tmp_path / "new.db"
    Journal(new).close()

    def shape(path: Path) -> dict[str, set[tuple[object, ...]]]:
        with closing(sqlite3.connect(path)) as db:
            tables = [name for (name,) in db.execute("select name from sqlite_master")]
            return {
                table: {tuple(row[1:4]) for row in db.execute(f"pragma table_info({table})")}
                for table in tables
            }

    assert shape(old) == shape(new)


def test_many_can_upgrade_at_once(old: Path) -> None:
    found: list[list[State]] = []

    def look() -> None:
        with closing(Journal(old)) as journal:
            found.append(states(journal))

    threads = [threading.Thread(target=look) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [STATES] * 6


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_it_is_not_upgraded_under_an_older_version_at_work(old: Path, where: str) -> None:
    """That one knows no fence; on another machine it may live."""
    boot = boot_of_this_machine().partition("/")[0]
    mine = f"boot = '{boot}', pid = {os.getpid()}, born = '{born(os.getpid())}'"
    change = mine if where == "here" else "host = 'ops-7'"
    with closing(sqlite3.connect(old)) as db:
        db.execute(f"update leases set {change}")
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(Refused, match="new format now"):
        Journal(old)
    with closing(sqlite3.connect(old)) as db:
        assert list(db.iterdump()) == before


@pytest.mark.parametrize("version", ["3", "0", "-1", "99"])
def test_another_format_is_refused_as_it_is(tmp_path: Path, version: str) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"update format set version = {version}")
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(Refused, match=f"format is {version}"):
        Journal(path)
    with closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before
