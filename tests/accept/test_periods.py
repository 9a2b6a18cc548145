"""A move goes on beside nova-compute that restarts, and whose periodic tasks come in seconds.

The program is stopped at each checkpoint until nova-compute of both hosts has started anew and has
done all its periodic tasks there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cellmove.journal import Verb
from tests.accept.computes import PERIOD_SECONDS, in_a_hurry, restart, said, size
from tests.accept.expected import guests
from tests.accept.failing import taken_back
from tests.lab.kit.clean import assert_whole
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import sql
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, traces, usage
from tests.lab.test_move_stopped import this_servers

pytestmark = [
    pytest.mark.lab,
    pytest.mark.alone,
    pytest.mark.skipif(not os.environ.get("CELLMOVE_LONG"), reason="make accept-long"),
]

SOURCE, TARGET = "cmp1b", "cmp2b"
BOTH = (SOURCE, TARGET)
FEW = 6
"""Every so many steps one is a checkpoint."""
TRANSACTIONS = """
SELECT COUNT(*) FROM information_schema.innodb_trx JOIN information_schema.processlist ON id =
trx_mysql_thread_id WHERE user = 'cellmove'
"""
"""How many of ours are open on a database's server."""


@pytest.fixture(scope="module")
def guest(nova: Nova) -> Iterator[GuestWatch]:
    with nova.lent("periods", SOURCE, config_drive=False) as server:
        guest = GuestWatch.of(nova, server)
        nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        with in_a_hurry(BOTH):
            yield guest


def disturbed(folder: Path, verb: Verb, *argv: str) -> None:
    """Run it, stop it at each checkpoint for as long as nova-compute needs for all it does."""
    cellmove = Cellmove(folder)
    with taken_back(cellmove):
        process = cellmove.start(verb, *argv)
        for step in this_servers(verb)[1::FEW]:
            _wait_reached(cellmove, process, step)
            with standing_still(process):
                restart(BOTH)
                time.sleep(2 * PERIOD_SECONDS)
        done = cellmove.wait(process)
        assert done.code == 0, done


@contextmanager
def standing_still(process: subprocess.Popen[str]) -> Iterator[None]:
    """Between two transactions: MariaDB rolls one back with which nobody goes on."""
    process.send_signal(signal.SIGSTOP)
    try:
        while any(sql(server, TRANSACTIONS) != [["0"]] for server in ("api", "cell1", "cell2")):
            process.send_signal(signal.SIGCONT)
            time.sleep(0.005)
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _wait_reached(cellmove: Cellmove, process: subprocess.Popen[str], step: str) -> None:
    """Until the step has any mark; what is found done already has no beginning."""
    deadline = time.monotonic() + 300
    while step not in {name for name, _ in cellmove.marks()}:
        assert process.poll() is None, cellmove.wait(process)
        assert time.monotonic() < deadline, f"{step}: {cellmove.marks()}"
        time.sleep(0.005)


def require_counted(timeout_seconds: float = 60) -> None:
    """nova-compute counts on both hosts what their servers take, and goes on doing so."""
    deadline = time.monotonic() + timeout_seconds
    while counts := [each for host in BOTH for each in [usage(f"cell{host[3]}", host)]]:
        if all(taken == counted for taken, counted in counts):
            return
        if time.monotonic() > deadline:
            pytest.fail(f"taken and counted on {BOTH}: {counts}")
        time.sleep(1)


def complaints(server: str, since: dict[str, int]) -> list[str]:
    """What nova-compute of both hosts has logged of this server as an error."""
    lines = (line for host in BOTH for line in said(host, since[host]).splitlines())
    return [line for line in lines if server in line and " ERROR " in line]


def test_a_move_is_not_felt_by_nova_nor_nova_by_it(
    guest: GuestWatch, nova: Nova, tmp_path: Path
) -> None:
    server = guest.server
    begun = {host: size(host) for host in BOTH}
    since = time.time()
    disturbed(tmp_path / "resize", "resize", server, "--flavor", "c2", "--to-host", TARGET)
    guest.wait_ready(TARGET, since)
    assert guest.golden(TARGET)
    require_counted()
    assert complaints(server, begun) == []
    assert guests(server) == {TARGET: "running"}


def test_no_auto_confirm_comes_from_a_cell_without_an_api_database(
    guest: GuestWatch, nova: Nova
) -> None:
    before = size(TARGET)
    deadline = time.monotonic() + 150
    while "Error auto-confirming resize" not in said(TARGET, before):
        assert time.monotonic() < deadline, said(TARGET, before)
        time.sleep(1)
    assert nova.status(guest.server) == "VERIFY_RESIZE"


def test_nor_is_a_revert(guest: GuestWatch, nova: Nova, tmp_path: Path) -> None:
    server, since = guest.server, time.time()
    begun = {host: size(host) for host in BOTH}
    disturbed(tmp_path / "revert", "revert", server, "--yes")
    guest.wait_ready(SOURCE, since)
    assert guest.golden(SOURCE)
    require_counted()
    assert complaints(server, begun) == []
    assert not [each for each in traces(server) if "cell2" in each or TARGET in each]


def test_nor_is_a_confirm(guest: GuestWatch, nova: Nova, tmp_path: Path) -> None:
    server = guest.server
    begun = {host: size(host) for host in BOTH}
    Cellmove(tmp_path)("resize", server, "--to-host", TARGET)
    disturbed(tmp_path / "confirm", "confirm", server, "--yes")
    require_counted()
    assert complaints(server, begun) == []
    assert nova.status(server) == "ACTIVE"
    cellmove = Cellmove(tmp_path)
    # nova-compute plugs, as it starts, the ports of all servers that it has read before.
    cellmove("audit", "--server", server, "--mend", "--yes")
    assert_whole(cellmove, server)
    nova.delete(server)
    nothing_left(server)
