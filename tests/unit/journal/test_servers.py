"""A journal on a database server: what only a server does to its clients."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from cellmove.errors import Refused, Unreachable
from cellmove.journal import Caps, Journal, Mark, Turn
from cellmove.journal.leases import LEASE_SECONDS
from cellmove.journal.patience import PATIENCE_SECONDS
from tests.unit import samples
from tests.unit.journal.places import Place, PostgreSQL


@pytest.fixture
def place(postgresql: PostgreSQL) -> Iterator[Place]:
    made = Place(postgresql.create())
    yield made
    made.close()


def lose_the_answer(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit is done, but the connection is gone before anybody hears of it."""
    dialect: Any = journal._engine.dialect
    commit = dialect.do_commit

    def lost(connection: Any) -> None:
        commit(connection)
        monkeypatch.setattr(dialect, "do_commit", commit)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(dialect, "do_commit", lost)


def test_what_was_committed_is_not_written_twice_when_the_answer_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.journal()
    move = samples.move()
    lose_the_answer(journal, monkeypatch)
    assert journal.open_move("resize", move) == 1
    lose_the_answer(journal, monkeypatch)
    with journal.lease(move.id):
        lose_the_answer(journal, monkeypatch)
        journal.write(move.id, "one", Mark.BEGUN)
    assert [event.step for event in journal.entry("1").events] == ["one"]
    lose_the_answer(journal, monkeypatch)
    drain = journal.open_drain("host:a")
    assert journal.open_drain("host:a") == drain
    lose_the_answer(journal, monkeypatch)
    turn = journal.take_turn(drain, "s", source="a", target="b", caps=Caps(1))
    assert isinstance(turn, Turn)
    lose_the_answer(journal, monkeypatch)
    journal.end_turn(turn, "done", move=1)
    lose_the_answer(journal, monkeypatch)
    assert journal.close_drain(drain)


def test_an_event_whose_answer_was_lost_counts_even_when_the_lease_is_lost_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written while the move was ours: only the next one is fenced."""
    journal, other = place.journal(), place.journal()
    move = samples.move()
    journal.open_move("resize", move)
    with journal.lease(move.id):
        lose_the_answer(journal, monkeypatch)
        lost = journal._engine.dialect.do_commit

        def lost_and_taken(connection: Any) -> None:
            try:
                lost(connection)
            finally:
                place.send_away(journal, silent_seconds=61)
                with other.lease(move.id):
                    pass

        monkeypatch.setattr(journal._engine.dialect, "do_commit", lost_and_taken)
        journal.write(move.id, "one", Mark.BEGUN)
    assert [event.step for event in other.entry("1").events] == ["one"]


def test_a_journal_outlives_a_restart_of_its_server(place: Place, postgresql: PostgreSQL) -> None:
    """One event after it, one while it is away; the server does not even say goodbye."""
    journal = place.journal()
    move = samples.move()
    journal.open_move("resize", move)
    with journal.lease(move.id):
        postgresql.stop(signal.SIGQUIT)
        postgresql.start()
        journal.write(move.id, "one", Mark.BEGUN)
        postgresql.stop()
        again = threading.Timer(0.5, postgresql.start)
        again.start()
        journal.write(move.id, "two", Mark.BEGUN)
        again.join()
    assert [event.step for event in journal.entry("1").events] == ["one", "two"]


def test_a_server_that_stays_away_is_one_clear_error(
    place: Place, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.journal()
    move = samples.move()
    journal.open_move("resize", move)
    monkeypatch.setattr(journal, "_patience_seconds", 0.3)
    postgresql.stop()
    try:
        with pytest.raises(Unreachable, match="did not take that one is begun"):
            journal.write(move.id, "one", Mark.BEGUN)
        with pytest.raises(Unreachable, match="cannot be opened"):
            Journal(place.url)
    finally:
        postgresql.start()


def test_another_programs_database_is_refused_as_it_is(place: Place) -> None:
    engine = sa.create_engine(place.url)
    with engine.begin() as db:
        db.execute(sa.text("create table instances (id integer)"))
    with pytest.raises(Refused, match="another program: instances"):
        Journal(place.url)
    assert sa.inspect(engine).get_table_names() == ["instances"]
    engine.dispose()


def test_the_password_is_asked_for_a_url_without_one_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[sa.URL] = []
    real = sa.create_engine

    def spy(url: sa.URL, **settings: Any) -> sa.Engine:
        made.append(url)
        return real(url, **settings)

    monkeypatch.setattr(sa, "create_engine", spy)
    for bare in ("", ":hunter2"):
        url = f"mariadb://me{bare}@127.0.0.1:1/journal?ssl_key_password=hunter3"
        with pytest.raises(Unreachable) as unreachable:
            Journal(url, password=lambda: "hunter4")
        assert "hunter" not in str(unreachable.value)
    assert [url.password for url in made] == ["hunter4", "hunter2"]
    assert {url.drivername for url in made} == {"mariadb+pymysql"}


def test_the_place_is_shown_without_password_and_options(place: Place) -> None:
    url = place.url.replace("cellmove@", "cellmove:hunter2@")
    journal = Journal(url)
    place.opened.append(journal)
    assert journal.where.startswith("postgresql+psycopg://cellmove@/journal_")
    assert "hunter2" not in journal.where
    assert "?" not in journal.where


@pytest.mark.parametrize(
    "url",
    ["oracle://me:hunter2@h/x", "nonsense://hunter2", "postgresql://me:hunter2@h:port/x", "://"],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Refused, match="URL cannot be used") as refused:
        Journal(url)
    assert "hunter2" not in str(refused.value)


def test_a_missing_driver_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(Refused, match=r"pip install 'cellmove\[postgresql\]'"):
        Journal("postgresql://me@127.0.0.1/journal")


def test_patience_ends_before_the_lease_does() -> None:
    assert PATIENCE_SECONDS <= LEASE_SECONDS / 2
