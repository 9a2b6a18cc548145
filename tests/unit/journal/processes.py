"""What other processes do in tests of the journal; each is a real one, to be stopped or killed."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from cellmove.errors import CellmoveError
from cellmove.journal import Busy, Caps, Journal, Mark, Turn, leases


@contextmanager
def started(work: Any, *args: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run `work(pipe, *args)` in a new process; it is gone after the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join(30)
        process.close()
        ours.close()


def elsewhere() -> None:
    """From now on this process is one of another machine, as far as the journal can tell."""
    leases.boot_of_this_machine = lambda: "another/1"


def hold_elsewhere(pipe: Connection, url: str, move: str) -> None:
    """The same on another machine, with a lease of 1.5 s."""
    elsewhere()
    hold(pipe, url, move, 1.5)


def hold(pipe: Connection, url: str, move: str, lease_seconds: float = 60) -> None:
    """Lease a move, say so, and write an event whenever told to; answers what came of it."""
    journal = Journal(url, lease_seconds=lease_seconds)
    with journal.lease(move) as lease:
        pipe.send("leased")
        while (step := pipe.recv()) != "end":
            try:
                journal.write(move, step, Mark.BEGUN)
                pipe.send("written")
            except CellmoveError as error:
                pipe.send(type(error).__name__)
            if step == "last":
                time.sleep(lease_seconds / 2)
                pipe.send(lease.lost)
    journal.close()


def take_turn_and_wait(pipe: Connection, url: str, drain: int, server: str) -> None:
    """Have a turn until killed."""
    journal = Journal(url)
    turn = journal.take_turn(drain, server, source="a", target="b", caps=Caps(1))
    pipe.send(isinstance(turn, Turn))
    pipe.recv()


def work_through(pipe: Connection, url: str, drain: int, count: int, caps: Caps) -> None:
    """A conductor with two workers: every server once, unless another conductor has it.

    Tells when it has had its first, and goes on when it is told to: a database may let one
    conductor wait until the other has had all.
    """
    journal = Journal(url)
    pipe.send("ready")
    pipe.recv()
    todo = deque(range(count))
    done: list[int] = []
    most: Counter[str] = Counter()
    begun, together = threading.Event(), threading.Event()

    def work() -> None:
        while todo:
            with suppress(IndexError):
                number = todo.popleft()
                result = _moved(journal, drain, number, caps, most)
                if result is True:
                    done.append(number)
                    begun.set()
                    together.wait(60)
                elif result not in (Busy.TAKEN, Busy.OVER):
                    todo.append(number)
                    time.sleep(0.002)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    pipe.send("begun" if begun.wait(60) else "starved")
    pipe.recv()
    together.set()
    for worker in workers:
        worker.join()
    pipe.send((done, dict(most)))
    journal.close()


def _moved(
    journal: Journal, drain: int, number: int, caps: Caps, most: Counter[str]
) -> Literal[True] | Busy:
    way = {"source": f"host-{number % 3}", "target": ""}
    turn = journal.take_turn(drain, f"server-{number}", caps=caps, **way)
    if not isinstance(turn, Turn):
        return turn
    # Now and then until another one is under way too: only then do the caps have work.
    until = time.monotonic() + 2 * (number % 40 == 0)
    while _note(most, journal.turns(drain)) < 2 and time.monotonic() < until:
        time.sleep(0.005)
    journal.end_turn(turn, "done", move=number)
    return True


def _note(most: Counter[str], turns: list[Turn]) -> int:
    now = [turn for turn in turns if turn.result is None]
    hosts = Counter(turn.source for turn in now)
    for name, number in {"total": len(now), "host": max(hosts.values())}.items():
        most[name] = max(most[name], number)
    return len(now)
