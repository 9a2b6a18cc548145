"""The journal's contract on the lab's MariaDB, and what only MariaDB does."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from cellmove.errors import Unreachable
from cellmove.journal import Journal, Mark, State
from tests.lab.kit.places import OUTPUTS
from tests.unit import samples
from tests.unit.journal.contract import *  # noqa: F403 - its tests are found here
from tests.unit.journal.places import Place

pytestmark = pytest.mark.lab

OLD = Path(__file__).parents[1] / "data" / "journal-1.sql"
SERVER = "10.98.0.30"


def as_root(text: str, database: str = "") -> None:
    argv = [str(OUTPUTS / "sql"), "api", *([database] if database else [])]
    subprocess.run(argv, check=True, input=text, text=True, capture_output=True)


@dataclass(frozen=True)
class Account:
    """May do what it likes in databases whose names begin with its own."""

    name: str
    password: str

    def url(self, database: str, *, bare: bool = False) -> str:
        secret = "" if bare else f":{self.password}"
        return f"mysql+pymysql://{self.name}{secret}@{SERVER}:3306/{database}"


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    made = Account(f"cellmove_j_{uuid.uuid4().hex[:8]}", secrets.token_hex(12))
    as_root(
        f"CREATE USER {made.name} IDENTIFIED BY '{made.password}';"
        rf"GRANT ALL ON `{made.name.replace('_', chr(92) + '_')}\_%`.* TO {made.name}"
    )
    yield made
    as_root(f"DROP USER {made.name}")


@pytest.fixture
def database(account: Account) -> Iterator[str]:
    """A new one, of the worst character set that is still met."""
    name = f"{account.name}_{uuid.uuid4().hex[:8]}"
    as_root(f"CREATE DATABASE {name} CHARACTER SET latin1")
    yield name
    as_root(f"DROP DATABASE {name}")


@pytest.fixture
def place(account: Account, database: str) -> Iterator[Place]:
    made = Place(account.url(database))
    yield made
    made.close()


def test_what_was_committed_is_not_written_twice_when_the_answer_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = place.journal()
    move = samples.move()
    journal.open_move("resize", move)
    dialect: Any = journal._engine.dialect
    commit = dialect.do_commit

    def lost(connection: Any) -> None:
        commit(connection)
        monkeypatch.setattr(dialect, "do_commit", commit)
        connection.dbapi_connection.close()
        raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")

    with journal.lease(move.id):
        monkeypatch.setattr(dialect, "do_commit", lost)
        journal.write(move.id, "one", Mark.BEGUN)
    assert [event.step for event in journal.entry("1").events] == ["one"]


def test_connections_that_the_server_ended_are_made_anew(place: Place, account: Account) -> None:
    """As after its restart: each connection of ours is gone, and nobody said so."""
    journal = place.journal()
    move = samples.move()
    journal.open_move("resize", move)
    with journal.lease(move.id):
        as_root(f"KILL USER {account.name}")
        journal.write(move.id, "one", Mark.BEGUN)
    assert journal.entry("1").last("one") is Mark.BEGUN


def test_a_journal_of_format_1_is_brought_up_in_place(place: Place, database: str) -> None:
    """Its TEXT ended at 64 KiB, in whatever character set the server had."""
    as_root(_as_mariadb(OLD.read_text()), database)
    as_root(f"UPDATE leases SET host = '{os.uname().nodename}'", database)
    journal = place.journal()
    states = [entry.state for entry in journal.entries()]
    assert states == [State.FINISHED, State.OPEN, State.UNDOING, State.TAKEN_BACK]
    entry = journal.entry("2")
    note = "🚚" * 40_000
    with journal.lease(entry.move.id):
        journal.write(entry.move.id, "two", Mark.FAILED, note=note)
    assert journal.entry("2").events[-1].note == note


def _as_mariadb(dump: str) -> str:
    """SQLite's dump with MariaDB's keys."""
    tables: list[str] = []
    rows: list[str] = []
    for statement in dump.replace("BEGIN TRANSACTION;", "").replace("COMMIT;", "").split(";\n"):
        text = statement.strip()
        kept = tables if text.startswith("CREATE TABLE") else rows
        kept.append(text.replace("\tid INTEGER NOT NULL", "\tid INTEGER NOT NULL AUTO_INCREMENT"))
    # SQLite's strings: JSON's backslashes in them are not escapes.
    modes = "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'"
    begin = f"SET NAMES utf8mb4; SET foreign_key_checks = 0, {modes}"
    tables = [f"{text} CHARACTER SET utf8mb3" for text in tables]
    return ";\n".join([begin, *tables, *(row for row in rows if row)])


def test_the_program_takes_the_password_from_a_file(
    place: Place, account: Account, database: str, tmp_path: Path
) -> None:
    place.journal().open_move("resize", samples.move())
    secret = tmp_path / "password"
    secret.write_text(account.password + "\n")
    secret.chmod(0o600)
    config = tmp_path / "cellmove.toml"
    url = account.url(database, bare=True)
    config.write_text(f'[journal]\nurl = "{url}"\npassword_file = "{secret}"\n')
    argv = [str(OUTPUTS / "cellmove"), "--config", str(config), "moves", "--json"]
    ran = subprocess.run(argv, check=True, capture_output=True, text=True)
    document = json.loads(ran.stdout)
    assert [each["number"] for each in document["moves"]] == [1]
    assert account.password not in ran.stdout + ran.stderr
    assert document["journal"] == url


def test_a_wrong_password_is_one_clear_error_that_does_not_show_it(
    account: Account, database: str
) -> None:
    url = account.url(database, bare=True)
    with pytest.raises(Unreachable, match="Access denied") as error:
        Journal(url, password=lambda: "hunter2")
    assert "hunter2" not in str(error.value)
