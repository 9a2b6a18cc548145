"""Files that are no journal, or one no more: one clear error, and nothing touched."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cellmove.errors import CellmoveError, Refused, Unreachable
from cellmove.journal import Entry, Journal, Mark
from tests.unit import samples


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Some moves with events, all in one file."""
    path = tmp_path_factory.mktemp("good") / "journal.db"
    with closing(Journal(path)) as journal:
        for number in range(5):
            move = samples.move(f"web-{number}")
            journal.open_move("resize", move)
            for step in ("one", "two", "three"):
                journal.write(move.id, step, Mark.BEGUN, {"key": ["value"]})
    return path.read_bytes()


def read(path: Path) -> list[Entry]:
    with closing(Journal(path)) as journal:
        return journal.entries()


def test_a_journal_that_was_cut_anywhere_is_refused_and_left_alone(
    good: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    length = len(good)
    cuts = {*range(1, 200, 7), *range(200, length - 1, length // 80), length - 1}
    for cut in sorted(cuts):
        path.write_bytes(good[:cut])
        with pytest.raises(CellmoveError) as error:
            read(path)
        assert error.value.seen, cut
        assert path.read_bytes() == good[:cut], cut


def test_a_journal_with_changed_bytes_is_read_or_refused(good: bytes, tmp_path: Path) -> None:
    """Never another error, never a traceback; whoever opens it for reading leaves it as it is."""
    chance = random.Random(20)
    path = tmp_path / "journal.db"
    refused = 0
    for _ in range(250):
        bad = bytearray(good)
        for _ in range(chance.choice((1, 3, 40))):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        path.write_bytes(bad)
        try:
            entries = read(path)
        except CellmoveError as error:
            refused += bool(error.seen)
        else:
            assert len(entries) <= 5
        assert path.read_bytes() == bytes(bad)
        for rest in tmp_path.glob("journal.db-*"):
            rest.unlink()
    assert 20 < refused < 250


def test_another_programs_database_is_refused_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "cookies.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table cookies (name text)")
        db.commit()
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(Refused, match="another program's"):
        Journal(path)
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_half_made_journal_is_finished(tmp_path: Path) -> None:
    """Killed while its tables were made, as databases do it that commit each by itself."""
    path = tmp_path / "journal.db"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as db:
        for table in ("turns", "format"):
            db.execute(f"drop table {table}")
        db.commit()
    assert read(path) == []


def test_a_value_that_is_no_move_names_the_move(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for change in ("move = '{}'", "move = '[]'", "move = 'x'", "verb = 'x'", "created_at = ''"):
        path.write_bytes(good)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"update moves set {change} where number = 3")
            db.commit()
        with pytest.raises(Refused, match="move 3"):
            read(path)


def test_an_event_that_is_none_is_named(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for change in ("mark = 'x'", "saved = '[]'", "saved = '{'", "at = 'x'", "saved = '{\"a\": 1}'"):
        path.write_bytes(good)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"update events set {change} where id = 7")
            db.commit()
        with pytest.raises(Refused, match="event 7"):
            read(path)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")


@root_only
def test_a_full_disk_is_one_clear_error_and_what_was_written_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "300k") as disk:
        path = disk / "journal.db"
        with closing(Journal(path)) as journal:
            move = samples.move()
            journal.open_move("resize", move)
            with pytest.raises(Unreachable, match="did not take that one is begun") as error:
                fill(journal, move.id)
            assert "full" in error.value.seen
            written = len(journal.entry("1").events)
            assert written > 3
        subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
        with closing(Journal(path)) as journal:
            assert [event.step for event in journal.entry("1").events] == ["one"] * written
            journal.write(move.id, "two", Mark.BEGUN)


def fill(journal: Journal, move: str) -> None:
    for _ in range(500):
        journal.write(move, "one", Mark.BEGUN, note="x" * 2000)


@root_only
def test_a_read_only_disk_is_one_clear_error(good: bytes, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "journal.db").write_bytes(good)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for name in ("journal.db", "new.db"):
            with pytest.raises(Unreachable, match="cannot be opened"):
                Journal(disk / name)
        assert (disk / "journal.db").read_bytes() == good
