"""The journal on a real disk, with a second process where there is one in the claim."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmove.errors import Refused, Unreachable
from cellmove.journal import Event, Journal, Mark, State, default_path
from tests.unit import samples


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def test_a_move_is_read_back_as_it_was_written(journal: Journal) -> None:
    move = samples.move()
    number = journal.open_move("resize", move)
    assert journal.entry(str(number)).move == move
    assert journal.entry(move.id).number == number


def test_moves_are_numbered_from_one_upwards(journal: Journal) -> None:
    numbers = [journal.open_move("resize", samples.move(f"web-{n}")) for n in range(3)]
    assert numbers == [1, 2, 3]
    assert [entry.number for entry in journal.entries()] == numbers


def test_an_event_is_on_disk_when_write_returns(journal: Journal, path: Path) -> None:
    """Read by another connection, as after a crash of this process."""
    move = samples.move()
    journal.open_move("resize", move)
    journal.write(move.id, "one", Mark.BEGUN, {"key": ["value"]})
    rows = sqlite3.connect(path).execute("select step, mark, saved from events").fetchall()
    assert rows == [("one", "begun", json.dumps({"key": ["value"]}))]


def test_an_event_outlives_a_process_that_is_killed(path: Path) -> None:
    move = samples.move()
    code = (
        "import os, pickle, sys\n"
        "from cellmove.journal import Journal, Mark\n"
        "from tests.unit import samples\n"
        f"journal = Journal({str(path)!r})\n"
        "move = samples.move()\n"
        "journal.open_move('resize', move)\n"
        "journal.write(move.id, 'one', Mark.BEGUN)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    journal = Journal(path)
    (entry,) = journal.entries()
    assert entry.last("one") is Mark.BEGUN
    assert entry.move.name == move.name
    journal.close()


def test_the_disk_is_told_to_keep_what_it_was_given(journal: Journal) -> None:
    with journal._engine.connect() as db:
        assert db.exec_driver_sql("pragma synchronous").scalar() == 2
        assert db.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def test_nobody_else_may_read_it(journal: Journal, path: Path) -> None:
    journal.open_move("resize", samples.move())
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_journal_left_readable_is_closed_to_others(path: Path) -> None:
    Journal(path).close()
    path.chmod(0o644)
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_of_another_format_is_refused(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("update format set version = 99")
    with pytest.raises(Refused) as refused:
        Journal(path)
    assert "99" in refused.value.seen


def test_a_file_that_is_no_journal_is_refused_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are not the events you are looking for. " * 100)
    path.chmod(0o644)
    with pytest.raises(Refused) as refused:
        Journal(path)
    assert "not a database" in refused.value.seen
    assert path.read_text().startswith("These are not")
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_device_or_pipe_of_that_name_is_refused_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    path.chmod(0o666)
    with pytest.raises(Refused, match="It is not a file"):
        Journal(path)
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_place_that_cannot_hold_a_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable) as unreachable:
        Journal(tmp_path / "file" / "journal.db")
    assert str(tmp_path / "file") in unreachable.value.seen


def test_a_journal_is_also_found_by_url(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path}/by-url.db")
    assert journal.open_move("resize", samples.move()) == 1
    journal.close()


def test_a_password_in_the_url_is_not_shown() -> None:
    with pytest.raises(Unreachable) as unreachable:
        Journal("mysql+pymysql://me:hunter2@127.0.0.1:1/journal")
    assert "hunter2" not in str(unreachable.value)


def test_a_server_has_one_open_move_at_a_time(journal: Journal) -> None:
    first = samples.move()
    journal.open_move("resize", first)
    with pytest.raises(Refused) as refused:
        journal.open_move("resize", samples.move())
    assert "cellmove resume 1" in refused.value.do
    journal.write(first.id, "", Mark.TAKEN_BACK)
    assert journal.open_move("resize", samples.move()) == 2


def test_two_processes_cannot_open_two_moves_of_one_server(path: Path) -> None:
    """The look and the write are one: whoever comes second sees the first."""
    Journal(path).close()
    outcomes: list[object] = []

    def attempt() -> None:
        journal = Journal(path)
        try:
            outcomes.append(journal.open_move("resize", samples.move()))
        except Refused:
            outcomes.append("refused")
        journal.close()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["1", *["refused"] * 7]


@pytest.mark.parametrize("key", ["7", "no-such-id", "9" * 30, "-1", ""])
def test_a_move_that_is_not_there_is_refused(journal: Journal, key: str) -> None:
    with pytest.raises(Refused) as refused:
        journal.entry(key)
    assert "cellmove moves" in refused.value.do


@pytest.mark.parametrize(
    ("marks", "state"),
    [
        ([], State.OPEN),
        ([Mark.BEGUN], State.OPEN),
        ([Mark.BEGUN, Mark.FAILED], State.OPEN),
        ([Mark.BEGUN, Mark.DONE], State.OPEN),
        ([Mark.BEGUN, Mark.UNDOING], State.UNDOING),
        ([Mark.BEGUN, Mark.UNDOING, Mark.FAILED], State.UNDOING),
        ([Mark.BEGUN, Mark.UNDOING, Mark.UNDONE], State.UNDOING),
        ([Mark.BEGUN, Mark.DONE, Mark.FINISHED], State.FINISHED),
        ([Mark.BEGUN, Mark.UNDOING, Mark.UNDONE, Mark.TAKEN_BACK], State.TAKEN_BACK),
    ],
)
def test_the_state_is_derived_from_the_events(
    journal: Journal, marks: list[Mark], state: State
) -> None:
    move = samples.move()
    journal.open_move("resize", move)
    for mark in marks:
        whole = mark in (Mark.FINISHED, Mark.TAKEN_BACK)
        journal.write(move.id, "" if whole else "one", mark)
    entry = journal.entry("1")
    assert entry.state is state
    assert entry.is_open is (state in (State.OPEN, State.UNDOING))


def test_the_first_look_is_the_one_that_counts(journal: Journal) -> None:
    move = samples.move()
    journal.open_move("resize", move)
    journal.write(move.id, "one", Mark.BEGUN, {"host": ["old"]})
    journal.write(move.id, "one", Mark.BEGUN, {"host": ["ours"]})
    assert journal.entry("1").saved("one") == {"host": ["old"]}


def test_a_failure_does_not_hide_that_a_step_was_begun(journal: Journal) -> None:
    move = samples.move()
    journal.open_move("resize", move)
    journal.write(move.id, "one", Mark.BEGUN)
    journal.write(move.id, "one", Mark.FAILED, note="it broke")
    entry = journal.entry("1")
    assert entry.last("one") is Mark.BEGUN
    assert entry.events[-1] == Event(entry.events[-1].at, "one", Mark.FAILED, {}, "it broke")


def test_a_leased_move_is_refused_to_another_living_process(path: Path) -> None:
    """The holder is a real process that waits."""
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    move = samples.move()
    journal = Journal(path)
    journal.open_move("resize", move)
    holder = context.Process(target=_hold, args=(str(path), move.id, ready, leave))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(Refused) as refused, journal.lease(move.id):
        pass
    assert str(holder.pid) in refused.value.seen
    leave.set()
    holder.join(30)
    with journal.lease(move.id):
        pass
    journal.close()


def test_the_lease_of_a_killed_process_is_taken_over(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    move = samples.move()
    journal = Journal(path)
    journal.open_move("resize", move)
    holder = context.Process(target=_hold, args=(str(path), move.id, ready, leave))
    holder.start()
    assert ready.wait(30)
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    with journal.lease(move.id):
        pass
    journal.close()


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ("boot = 'another/1'", True),
        ("born = '1'", True),
        ("pid = pid + 4000000", True),
        ("beat_at = 0", False),
        ("host = 'another', boot = 'another/1'", False),
        ("host = 'another', boot = 'another/1', beat_at = beat_at - 61", True),
        ("boot = substr(boot, 1, 36) || '/[1]'", False),
    ],
)
def test_a_holder_is_dead_only_when_that_is_certain(
    journal: Journal, path: Path, change: str, free: bool
) -> None:
    """Another boot, or another process with the same number: dead, and alive only while it lives.

    Of another machine, or of another container of this one, only its heartbeat is known.
    """
    move = samples.move()
    journal.open_move("resize", move)
    with journal.lease(move.id):
        with sqlite3.connect(path) as db:
            db.execute(f"update holders set {change}")
        other = Journal(path)
        if free:
            with other.lease(move.id):
                pass
        else:
            with pytest.raises(Refused) as refused, other.lease(move.id):
                pass
            assert f"Process {os.getpid()}" in refused.value.seen
        other.close()


def test_a_process_has_a_move_once(journal: Journal) -> None:
    move = samples.move()
    journal.open_move("resize", move)
    with (
        journal.lease(move.id),
        pytest.raises(Refused, match="This process"),
        journal.lease(move.id),
    ):
        pass


def test_a_lease_ends_with_its_block_even_when_that_fails(journal: Journal) -> None:
    move = samples.move()
    journal.open_move("resize", move)
    with pytest.raises(RuntimeError), journal.lease(move.id):
        raise RuntimeError
    with journal.lease(move.id):
        pass


def test_the_default_place_follows_xdg() -> None:
    assert default_path({"HOME": "/h"}) == Path("/h/.local/state/cellmove/journal.db")
    assert default_path({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == Path("/s/cellmove/journal.db")


def _hold(path: str, move: str, ready: threading.Event, leave: threading.Event) -> None:
    journal = Journal(path)
    with journal.lease(move):
        ready.set()
        leave.wait(60)
    journal.close()
