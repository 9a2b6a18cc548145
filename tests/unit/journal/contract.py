"""What a journal is in every database: run here on SQLite and PostgreSQL, in the lab on MariaDB."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from cellmove.errors import Refused
from cellmove.journal import Busy, Caps, Journal, Lease, Mark, State, TakenOver, Turn
from cellmove.model import Move
from tests.unit import samples
from tests.unit.journal import processes
from tests.unit.journal.places import Place

ANY = Caps(100)


def opened(journal: Journal) -> Move:
    move = samples.move()
    journal.open_move("resize", move)
    return move


def steps(journal: Journal, move: Move) -> list[str]:
    return [event.step for event in journal.entry(move.id).events]


def at_once(*work: Callable[[], object]) -> list[object]:
    """What each gives, or the name of what it raises; all run side by side."""
    results: list[object] = [None] * len(work)

    def run(index: int) -> None:
        try:
            results[index] = work[index]()
        except Refused as error:
            results[index] = type(error).__name__

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return results


def test_a_move_and_its_events_are_read_back_whatever_their_size_and_letters(place: Place) -> None:
    """MariaDB's TEXT would end at 64 KiB, its utf8 at three bytes a letter."""
    journal = place.journal()
    name = "wéb-🚚-" + "x" * 300_000
    move = replace(samples.move(), name=name)
    journal.open_move("resize", move)
    journal.write(move.id, "one", Mark.BEGUN, {"kéy": [name]}, note=name)
    entry = place.journal().entry("1")
    assert entry.move == move
    assert entry.saved("one") == {"kéy": [name]}
    assert entry.events[0].note == name


def test_of_many_who_open_a_move_of_one_server_one_succeeds(place: Place) -> None:
    journals = [place.journal() for _ in range(6)]
    results = at_once(*(lambda j=j: j.open_move("resize", samples.move()) for j in journals))
    assert sorted(map(str, results)) == ["1", *["Refused"] * 5]


def test_moves_that_are_opened_at_once_have_numbers_of_their_own(place: Place) -> None:
    journal = place.journal()
    moves = [samples.move(f"web-{n}") for n in range(6)]
    results = at_once(*(lambda m=m: journal.open_move("resize", m) for m in moves))
    assert sorted(map(str, results)) == ["1", "2", "3", "4", "5", "6"]


def test_many_can_open_a_new_journal_at_once(place: Place) -> None:
    results = at_once(*(lambda: place.journal().entries() for _ in range(4)))
    assert results == [[]] * 4


def test_a_lease_on_another_machine_holds_as_long_as_it_is_fresh(place: Place) -> None:
    holder, other = place.journal(), place.journal()
    move = opened(holder)
    with holder.lease(move.id):
        place.send_away(holder, silent_seconds=50)
        with pytest.raises(Refused, match="ops-2") as refused, other.lease(move.id):
            pass
        assert "60 s" in refused.value.do


def test_who_lost_the_lease_writes_no_more_not_even_when_its_taker_is_done(place: Place) -> None:
    """The fence: an earlier holder, cut off or asleep, learns it before its next write."""
    asleep, other = place.journal(), place.journal()
    move = opened(asleep)
    with asleep.lease(move.id):
        asleep.write(move.id, "before", Mark.BEGUN)
        place.send_away(asleep, silent_seconds=61)
        with other.lease(move.id):
            other.write(move.id, "taken", Mark.BEGUN)
            with pytest.raises(TakenOver, match="took the move over"):
                asleep.write(move.id, "fenced", Mark.BEGUN)
        with pytest.raises(TakenOver):
            asleep.write(move.id, "fenced", Mark.BEGUN)
    assert steps(other, move) == ["before", "taken"]
    with other.lease(move.id):
        pass


def test_who_lost_the_lease_does_not_give_back_that_of_its_taker(place: Place) -> None:
    asleep, other, third = place.journal(), place.journal(), place.journal()
    move = opened(asleep)
    lease = asleep.lease(move.id)
    lease.__enter__()
    place.send_away(asleep, silent_seconds=61)
    with other.lease(move.id):
        lease.__exit__(None, None, None)
        with pytest.raises(Refused), third.lease(move.id):
            pass


def test_nobody_writes_past_somebody_elses_lease(place: Place) -> None:
    holder, other = place.journal(), place.journal()
    move = opened(holder)
    with holder.lease(move.id), pytest.raises(TakenOver):
        other.write(move.id, "one", Mark.BEGUN)


def test_a_beating_heart_keeps_the_lease(place: Place) -> None:
    """Twice as long as the lease, seen from another machine."""
    holder, other = place.journal(lease_seconds=2.0), place.journal()
    move = opened(holder)
    with holder.lease(move.id) as lease:
        place.send_away(holder)
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            with pytest.raises(Refused), other.lease(move.id):
                pass
            time.sleep(0.1)
        assert not lease.lost
        holder.write(move.id, "one", Mark.BEGUN)


def test_a_holder_who_only_copies_learns_that_its_lease_is_lost(place: Place) -> None:
    asleep, other = place.journal(), place.journal()
    move = opened(asleep)
    with asleep.lease(move.id) as lease:
        lease.require()
        place.send_away(asleep, silent_seconds=61)
        with other.lease(move.id):
            asleep._heart.beat()
            assert lease.lost
            with pytest.raises(TakenOver):
                lease.require()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(place: Place) -> None:
    journal = place.journal()
    move = opened(journal)
    with processes.started(processes.hold, place.url, move.id) as (process, pipe):
        assert pipe.recv() == "leased"
        with pytest.raises(Refused, match=f"Process {process.pid}"), journal.lease(move.id):
            pass
        with pytest.raises(Refused, match=f"is open. Process {process.pid}.*Wait for it"):
            opened(journal)
        (entry,) = journal.entries()
        assert f"Process {process.pid}" in journal.refusal(entry).seen
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        _wait_until_dead(process.pid)  # not reaped: a zombie does not hold anything
        with pytest.raises(Refused, match=r"is open. Run `cellmove resume 1` or `cellmove undo"):
            opened(journal)
        with journal.lease(move.id):
            pass


def test_a_stopped_process_is_fenced_when_it_is_continued(place: Place) -> None:
    journal = place.journal()
    move = opened(journal)
    with processes.started(processes.hold_elsewhere, place.url, move.id) as (process, pipe):
        assert pipe.recv() == "leased"
        pipe.send("first")
        assert pipe.recv() == "written"
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
        lease = _leased_in_time(journal, move)
        os.kill(process.pid, signal.SIGCONT)
        pipe.send("last")
        assert pipe.recv() == "TakenOver"
        assert pipe.recv() is True
        assert steps(journal, move) == ["first"]
        journal.write(move.id, "ours", Mark.BEGUN)
        lease.__exit__(None, None, None)


def _leased_in_time(journal: Journal, move: Move) -> AbstractContextManager[Lease]:
    until = time.monotonic() + 60
    while True:
        lease = journal.lease(move.id)
        try:
            lease.__enter__()
        except Refused:
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            return lease


def _wait_until_dead(pid: int) -> None:
    until = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)


def take(journal: Journal, drain: int, server: str, caps: Caps = ANY, **way: str) -> Turn | Busy:
    ends = {"source": "a", "target": "b"} | way
    return journal.take_turn(drain, server, caps=caps, **ends)


def taken(journal: Journal, drain: int, server: str, caps: Caps = ANY, **way: str) -> Turn:
    turn = take(journal, drain, server, caps, **way)
    assert isinstance(turn, Turn)
    return turn


def test_conductors_of_one_scope_share_a_drain_until_it_is_closed(place: Place) -> None:
    one, other = place.journal(), place.journal()
    first, second = at_once(lambda: one.open_drain("host:a"), lambda: other.open_drain("host:a"))
    assert first == second
    assert one.open_drain("host:b") != first
    assert isinstance(first, int)
    assert other.close_drain(first)
    assert one.open_drain("host:a") != first
    assert take(one, first, "s") is Busy.OVER


def test_a_server_has_one_turn_until_it_is_left(place: Place) -> None:
    one, other = place.journal(), place.journal()
    drain = one.open_drain("host:a")
    turn = taken(one, drain, "s")
    assert take(other, drain, "s") is Busy.TAKEN
    assert take(one, drain, "s") is Busy.TAKEN
    one.end_turn(turn, "left", move=None, note="stopped")
    again = taken(other, drain, "s")
    other.end_turn(again, "done", move=7)
    assert take(one, drain, "s") is Busy.OVER
    (shown,) = one.turns(drain)
    assert (shown.result, shown.move, shown.note) == ("done", 7, "")
    assert shown.by_whom.startswith(f"{os.getpid()} on ")
    assert shown.ended_at


def test_a_failed_server_is_over_in_this_drain_and_free_in_the_next(place: Place) -> None:
    journal = place.journal()
    drain = journal.open_drain("host:a")
    journal.end_turn(taken(journal, drain, "s"), "failed", move=1, note="why")
    assert take(journal, drain, "s") is Busy.OVER
    assert journal.close_drain(drain)
    taken(journal, journal.open_drain("host:a"), "s")


def test_caps_hold_over_all_conductors(place: Place) -> None:
    one, other = place.journal(), place.journal()
    drain = one.open_drain("cell:1")
    caps = Caps(3, per_host=1)
    cells = {"source_cell": "1", "target_cell": "2"}
    first = taken(one, drain, "s1", caps, source="a", target="x")
    assert take(other, drain, "s2", caps, source="b", target="x") is Busy.HOST
    assert take(other, drain, "s2", caps, source="x", target="") is Busy.HOST
    taken(other, drain, "s2", caps, source="b", target="y")
    taken(other, drain, "s3", caps, source="c", target="")
    assert take(one, drain, "s4", caps, source="d", target="") is Busy.TOTAL
    one.end_turn(first, "done", move=1)
    taken(one, drain, "s4", caps, source="d", target="", **cells)
    assert take(one, drain, "s5", Caps(9, per_cell=1), source_cell="2") is Busy.CELL


def test_a_turn_gets_another_target_only_where_there_is_room(place: Place) -> None:
    journal = place.journal()
    drain = journal.open_drain("host:a")
    caps = Caps(9, per_host=1)
    taken(journal, drain, "s1", caps, source="a", target="x")
    turn = taken(journal, drain, "s2", caps, source="b", target="")
    assert journal.aim_turn(turn, target="x", caps=caps) is Busy.HOST
    aimed = journal.aim_turn(turn, target="y", caps=caps)
    assert isinstance(aimed, Turn)
    assert {each.server: each.target for each in journal.turns(drain)} == {"s1": "x", "s2": "y"}
    journal.end_turn(aimed, "done", move=2)


def test_a_silent_conductors_turn_is_free_and_its_end_is_refused(place: Place) -> None:
    asleep, other = place.journal(), place.journal()
    drain = asleep.open_drain("host:a")
    turn = taken(asleep, drain, "s", Caps(1))
    place.send_away(asleep, silent_seconds=50)
    assert take(other, drain, "s", Caps(1)) is Busy.TAKEN
    assert take(other, drain, "s2", Caps(1)) is Busy.TOTAL
    place.send_away(asleep, silent_seconds=20)
    taken(other, drain, "s", Caps(1))
    with pytest.raises(TakenOver):
        asleep.end_turn(turn, "done", move=1)
    with pytest.raises(TakenOver):
        asleep.aim_turn(turn, target="c", caps=ANY)
    assert [each.result for each in other.turns(drain)] == [None]


def test_the_turn_of_a_killed_conductor_is_free(place: Place) -> None:
    journal = place.journal()
    drain = journal.open_drain("host:a")
    args = (place.url, drain, "s")
    with processes.started(processes.take_turn_and_wait, *args) as (process, pipe):
        assert pipe.recv() is True
        assert take(journal, drain, "s") is Busy.TAKEN
        assert not journal.close_drain(drain)
        process.kill()
        assert process.pid
        _wait_until_dead(process.pid)
        taken(journal, drain, "s")


def test_a_drain_that_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(Refused, match="no drain 99"):
        take(place.journal(), 99, "s")


def test_two_conductors_take_each_server_once_and_keep_the_caps(place: Place) -> None:
    """Four workers in two processes, each of which tries all of 200 servers."""
    drain = place.journal().open_drain("cell:1")
    args = (place.url, drain, 200, Caps(3, per_host=2))
    with (
        processes.started(processes.work_through, *args) as (_, one),
        processes.started(processes.work_through, *args) as (_, other),
    ):
        assert (one.recv(), other.recv()) == ("ready", "ready")
        one.send("go")
        other.send("go")
        assert (one.recv(), other.recv()) == ("begun", "begun")
        one.send("go on")
        other.send("go on")
        (first, most), (second, most_too) = one.recv(), other.recv()
    assert sorted(first + second) == list(range(200))
    assert first
    assert second
    for each in (most, most_too):
        assert each["total"] <= 3
        assert each["host"] <= 2
    assert max(most["total"], most_too["total"]) > 1
    assert {turn.result for turn in place.journal().turns(drain)} == {"done"}


def test_lists_come_without_the_events_that_they_do_not_need(place: Place) -> None:
    journal = place.journal()
    moves = [samples.move(f"web-{n}") for n in range(3)]
    for move in moves:
        journal.open_move("resize", move)
        journal.write(move.id, "one", Mark.BEGUN)
    journal.write(moves[0].id, "", Mark.FINISHED)
    journal.write(moves[1].id, "one", Mark.UNDOING)
    brief = journal.entries(brief=True)
    assert [entry.state for entry in brief] == [State.FINISHED, State.UNDOING, State.OPEN]
    assert sum(len(entry.events) for entry in brief) == 2
    assert [entry.number for entry in journal.entries(last=2)] == [2, 3]
    assert [entry.number for entry in journal.entries(only_open=True)] == [2, 3]
    assert [entry.number for entry in journal.entries(only_open=True, last=1)] == [3]
