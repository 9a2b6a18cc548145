"""Eight servers leave their hypervisors: killed in the middle, on alternates, by two at once."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import OUTPUTS, host_run, run
from tests.lab.kit.program import Cellmove, Completed

pytestmark = [pytest.mark.lab, pytest.mark.alone]

DATABASE_SERVER = "10.98.0.30"
TARGETS = ("cmp2a", "cmp2b")


@dataclass(frozen=True, slots=True)
class Herd:
    """Four servers on cmp1a, then four on cmp1b; nobody else's bear such names."""

    nova: Nova
    prefix: str
    booting: tuple[Future[GuestWatch], ...]
    """The later ones boot while the first are drained."""
    begun: float

    def name(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def guest(self, number: int) -> GuestWatch:
        """Waits until it is there."""
        return self.booting[number].result()

    def server(self, number: int) -> str:
        return self.guest(number).server

    def all_there(self, *numbers: int) -> None:
        for number in numbers:
            self.guest(number)


@pytest.fixture(scope="module")
def herd(admin_nova: Nova) -> Iterator[Herd]:
    prefix = f"drain-{uuid.uuid4().hex[:6]}"
    begun = time.time()

    novas = [Nova(lab_session(project="demo")) for _ in range(8)]

    def boot(number: int) -> GuestWatch:
        nova = novas[number]
        host = "cmp1a" if number < 4 else "cmp1b"
        server = nova.boot(f"{prefix}-{number}", host, config_drive=False)
        guest = GuestWatch.of(nova, server)
        guest.wait_ready(host, since=begun, timeout_seconds=400)
        return guest

    def discard(nova: Nova) -> None:
        for server in nova.servers:
            nova.discard(server)

    pool = ThreadPoolExecutor(4)
    try:
        yield Herd(admin_nova, prefix, tuple(pool.submit(boot, each) for each in range(8)), begun)
    finally:
        pool.shutdown(cancel_futures=True)
        with ThreadPoolExecutor(8) as cleaning:
            list(cleaning.map(discard, novas))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Cellmove:
    """The program with the journal that all tests of this file but those of two conductors use."""
    return Cellmove(tmp_path_factory.mktemp("drain"))


@dataclass(frozen=True, slots=True)
class Shared:
    """A journal in the lab's MariaDB."""

    url: str
    environ: dict[str, str]
    """Where its password is."""


@pytest.fixture(scope="module")
def shared_journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A journal that several conductors use."""
    name = f"cellmove_drain_{uuid.uuid4().hex[:8]}"
    password = uuid.uuid4().hex
    _api_sql(
        f"CREATE DATABASE {name}; CREATE USER '{name}'@'%' IDENTIFIED BY '{password}';"
        f" GRANT ALL ON {name}.* TO '{name}'@'%'"
    )
    try:
        secret = tmp_path_factory.mktemp("secret") / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        yield Shared(
            f"mysql+pymysql://{name}@{DATABASE_SERVER}:3306/{name}",
            {"CELLMOVE_JOURNAL_PASSWORD_FILE": str(secret)},
        )
    finally:
        _api_sql(f"DROP DATABASE {name}; DROP USER '{name}'@'%'")


def test_a_host_is_drained_though_the_drain_is_killed_and_one_server_needs_an_alternate(
    herd: Herd, home: Cellmove
) -> None:
    herd.all_there(*range(4))
    drain = ("drain", "--host", "cmp1a", "--name", f"{herd.prefix}-*", "--to-cell", "cell2")
    looked = home(*drain, "--dry-run", "--parallel", "4", "--json").json()
    assert len(looked["servers"]) == 4
    first_target = {each["name"]: each["target"] for each in looked["servers"]}
    unlucky = herd.name(3)
    with blocked(herd.server(3), first_target[unlucky]):
        killed = home.start(*drain, "--parallel", "3", "--yes")
        home.reached("copy-disks", "begun")
        killed.send_signal(signal.SIGKILL)
        home.wait(killed)
        assert any(each["state"] == "open" for each in home("moves", "--json").json()["moves"])
        over = _events(home(*drain, "--parallel", "3", "--yes", "--json"))[-1]
    assert (over["failed"], over["left"], over["remaining"]) == (0, 0, [])
    assert set(over["waiting"]) == {herd.server(number) for number in range(4)}
    for number in range(4):
        _arrived(herd, number)
    moves = home("moves", "--json").json()["moves"]
    tried = [each for each in moves if each["server"] == herd.server(3)]
    assert [each["state"] for each in tried][-1] == "finished"
    if len(tried) > 1:  # it was not under way when the drain was killed
        assert tried[0]["target"]["host"] != tried[-1]["target"]["host"]


def test_a_cell_is_drained_by_two_conductors_at_once_and_one_server_fails_for_good(
    herd: Herd, home: Cellmove, tmp_path: Path, shared_journal: Shared
) -> None:
    herd.all_there(*range(8))
    drain = ("drain", "--cell", "cell1", "--name", f"{herd.prefix}-*", "--to-cell", "cell2")
    share = ("--parallel", "2", "--yes", "--json", "--journal", shared_journal.url)
    others = [Cellmove(tmp_path / str(number), shared_journal.environ) for number in range(2)]
    with blocked(herd.server(4), *TARGETS):
        running = [other.start(*drain, *share) for other in others]
        ended = [other.wait(process) for other, process in zip(others, running, strict=True)]
    assert [each.code for each in ended] == [6, 6], ended
    told = [_events(each) for each in ended]
    moved = [{each["server"] for each in events if each["event"] == "done"} for events in told]
    assert moved[0] | moved[1] == {herd.server(number) for number in (5, 6, 7)}
    (reason,) = {
        result["note"] or result["error"]["seen"]
        for events in told
        for result in events[-1]["results"]
        if result["result"] == "failed" and result["error"]
    }
    assert all(host in reason for host in TARGETS)
    for number in (5, 6, 7):
        _arrived(herd, number)
    assert herd.nova.host(herd.server(4)) == "cmp1b"
    assert herd.nova.status(herd.server(4)) == "ACTIVE"

    # What stood in the way is gone: a later drain takes the last one along.
    over = _events(others[0](*drain, *share))[-1]
    assert over["moved"] == 1
    _arrived(herd, 4)
    listed = others[0]("moves", "--json", "--journal", shared_journal.url).json()["moves"]
    finished = [each["server"] for each in listed if each["state"] == "finished"]
    assert sorted(finished) == sorted(herd.server(number) for number in range(4, 8))


def test_afterwards_each_is_confirmed_and_there_once_with_its_data(
    herd: Herd, home: Cellmove, tmp_path: Path, shared_journal: Shared
) -> None:
    drain = ("drain", "--cell", "cell1", "--name", f"{herd.prefix}-*", "--to-cell", "cell2")
    other = Cellmove(tmp_path, shared_journal.environ)
    confirm = (*drain, "--confirm-after", "1s", "--parallel", "4", "--yes", "--json")
    running = [home.start(*confirm), other.start(*confirm, "--journal", shared_journal.url)]
    for each in (home.wait(running[0]), other.wait(running[1])):
        assert each.code == 0, each
        assert _events(each)[-1]["confirmed"] == 4
    for number in range(8):
        assert herd.nova.listed(herd.server(number)) == ["ACTIVE"]
        assert herd.nova.host(herd.server(number)) in TARGETS
        host_run("cmp1a" if number < 4 else "cmp1b", ["test", "!", "-e", _directory(herd, number)])


def test_a_closed_host_keeps_its_window_stops_when_asked_and_goes_on(
    herd: Herd, home: Cellmove
) -> None:
    hosts = [herd.nova.host(herd.server(number)) for number in range(8)]
    host = max(TARGETS, key=hosts.count)
    pair = [number for number, its in enumerate(hosts) if its == host][:2]
    names = [word for number in pair for word in ("--name", herd.name(number))]
    drain = ("drain", "--host", host, *names, "--to-cell", "cell1", "--cordon", "--yes")
    before = len(home("moves", "--json").json()["moves"])
    try:
        waiting = home.start(*drain, "--window", _another_day())
        assert waiting.stderr is not None
        assert any("nothing is begun until" in line for line in waiting.stderr)
        service = herd.nova.service(host)
        assert service["status"] == "disabled"
        assert service["disabled_reason"].startswith("cellmove drain ")
        waiting.send_signal(signal.SIGINT)
        ended = home.wait(waiting)
        assert (ended.code, len(home("moves", "--json").json()["moves"])) == (5, before), ended
        assert f"openstack compute service set --enable {host} nova-compute" in ended.stdout

        stopping = home.start(*drain, "--parallel", "1", "--confirm-after", "1s", "--json")
        _told(stopping, "copy-disks", "begun")
        stopping.send_signal(signal.SIGINT)
        over = _events(home.wait(stopping))[-1]
        assert (over["exit_code"], over["moved"], len(over["open_moves"])) == (5, 0, 1)
        (stopped,) = over["results"]
        assert stopped["result"] == "stopped"
        other = {herd.server(number) for number in pair} - {stopped["server"]}
        assert other <= {each["server"] for each in over["remaining"]}

        over = _events(home(*drain, "--confirm-after", "1s", "--json"))[-1]
        assert (over["moved"], over["confirmed"], over["left"]) == (2, 2, 0)
        assert herd.nova.service(host) == service
    finally:
        _enable(herd.nova, host)
    for number in pair:
        assert herd.nova.listed(herd.server(number)) == ["ACTIVE"]
        _whole(herd, number, "cmp1a", "cmp1b")
        host_run(host, ["test", "!", "-e", _directory(herd, number)])


def test_a_drain_that_is_killed_while_it_takes_a_move_back_tries_the_alternate(
    nova: Nova, cellmove: Cellmove
) -> None:
    name = f"undone-{uuid.uuid4().hex[:6]}"
    server = nova.boot(name, "cmp1a")
    nova.stop(server)
    drain = ("drain", "--host", "cmp1a", "--name", f"{name}*", "--to-cell", "cell2")
    (looked,) = cellmove(*drain, "--dry-run", "--json").json()["servers"]
    with blocked(server, looked["target"]):
        killed = cellmove.start(*drain, "--yes")
        cellmove.reached("make-target-directory", "undoing", moving=killed)
        killed.send_signal(signal.SIGKILL)
        cellmove.wait(killed)
        (begun,) = cellmove("moves", "--json").json()["moves"]
        assert begun["state"] == "undoing"
        over = _events(cellmove(*drain, "--yes", "--json"))[-1]
    assert (over["moved"], over["failed"], over["left"]) == (1, 0, 0)
    assert server not in {each["server"] for each in over["remaining"]}
    moves = cellmove("moves", "--json").json()["moves"]
    assert [each["state"] for each in moves] == ["taken back", "finished"]
    (other,) = set(TARGETS) - {looked["target"]}
    assert (nova.host(server), nova.status(server)) == (other, "VERIFY_RESIZE")


@contextmanager
def blocked(server: str, *hosts: str) -> Iterator[None]:
    """The server's directory cannot be made there, which nobody sees before it is tried."""
    path = str(INSTANCES / server)
    for host in hosts:
        host_run(host, ["ln", "-s", "/nowhere", path])
    try:
        yield
    finally:
        for host in hosts:
            host_run(host, ["sh", "-c", 'if [ -L "$1" ]; then rm "$1"; fi', "sh", path])


def _arrived(herd: Herd, number: int) -> None:
    """nova lists it once, where it runs with what its guest wrote before."""
    assert herd.nova.listed(herd.server(number)) == ["VERIFY_RESIZE"]
    _whole(herd, number, *TARGETS)


def _whole(herd: Herd, number: int, *hosts: str) -> None:
    """It runs on one of these hosts, with what its guest wrote before."""
    guest = herd.guest(number)
    host = herd.nova.host(guest.server)
    assert host in hosts
    beat = guest.wait_heartbeat(host, since=herd.begun, timeout_seconds=120)
    guest.wait_told(host, "GUEST ready", timeout_seconds=120)
    assert beat.host == host
    assert guest.golden(host)
    assert guest.record_found(host) is not None


def _another_day() -> str:
    """A window that is shut now."""
    later = dt.datetime.now() + dt.timedelta(days=3)  # noqa: DTZ005 - windows are local time
    return f"{later:%a} 03:00-03:01"


def _told(process: subprocess.Popen[str], step: str, mark: str) -> None:
    """Wait until a drain with --json tells this of one of its servers."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if (event.get("step"), event.get("mark")) == (step, mark):
            return
    pytest.fail(f"it ended before {step} was {mark}")


def _enable(nova: Nova, host: str) -> None:
    path = f"/os-services/{nova.service(host)['id']}"
    assert nova._compute.send("PUT", path, {"status": "enabled"}).ok


def _directory(herd: Herd, number: int) -> str:
    return str(INSTANCES / herd.server(number))


def _events(done: Completed) -> list[dict[str, Any]]:
    """Standard output: a JSON document a line."""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "over", done
    return events


def _api_sql(statements: str) -> None:
    run([str(OUTPUTS / "sql"), "api", "-e", statements])
