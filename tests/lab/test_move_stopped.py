"""A stopped server: moved without a new flavor, kept off all the way; and the three dry runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmove.journal import Verb
from cellmove.plan import SCORES
from cellmove.steps import firmware, volumes
from tests.lab.kit.guest import INSTANCES, GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import OUTPUTS, host_run
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import content, dump_databases, dump_hosts, nothing_left, settled, traces

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
SHUT_DOWN = 4
ENDS: tuple[Verb, ...] = ("confirm", "revert")


@pytest.fixture(scope="module")
def cellmove(tmp_path_factory: pytest.TempPathFactory) -> Cellmove:
    return Cellmove(tmp_path_factory.mktemp("stopped"))


@pytest.fixture(scope="module")
def guest(admin_nova: Nova) -> Iterator[GuestWatch]:
    """Guest of a server that has run, and was stopped."""
    with admin_nova.lent("stopped", SOURCE) as server:
        guest = GuestWatch.of(admin_nova, server)
        guest.wait_ready(SOURCE, since=0)
        time.sleep(3)  # a few records
        admin_nova.stop(server)
        yield guest


@pytest.fixture
def home(admin_nova: Nova, cellmove: Cellmove, guest: GuestWatch) -> str:
    """The server, off where it was made."""
    if admin_nova.status(guest.server) == "VERIFY_RESIZE":
        cellmove("revert", guest.server, "--yes")
    assert (admin_nova.status(guest.server), admin_nova.host(guest.server)) == ("SHUTOFF", SOURCE)
    return guest.server


@pytest.fixture
def away(admin_nova: Nova, cellmove: Cellmove, guest: GuestWatch) -> str:
    """The server, off and waiting to be confirmed on the target."""
    if admin_nova.status(guest.server) == "SHUTOFF":
        cellmove("resize", guest.server, "--to-host", TARGET)
    return guest.server


def everything(server: str) -> dict[str, str]:
    """All databases and hosts, and the server's files byte for byte."""
    files = {
        f"{host} content": content(host, server)
        for host in (SOURCE, TARGET)
        if host_run(host, ["find", str(INSTANCES / server), "-maxdepth", "0"], check=False)
    }
    return dump_databases() | dump_hosts() | files  # fmt: skip


def this_servers(verb: Verb) -> list[str]:
    """Names of the steps that are not for servers with volumes or with firmware only."""
    others = (firmware.__name__, volumes.__name__)
    return [step.name for step in SCORES[verb] if step.applies.__func__.__module__ not in others]  # type: ignore[attr-defined]


def test_a_dry_run_of_a_resize_shows_the_plan_and_changes_nothing(
    home: str, tmp_path: Path
) -> None:
    looking = Cellmove(tmp_path)
    before = settled(lambda: everything(home))
    shown = looking("resize", home, "--flavor", "c2", "--to-host", TARGET, "--dry-run")
    document = looking(
        "resize", home, "--flavor", "c2", "--to-host", TARGET, "--dry-run", "--json"
    ).json()
    assert everything(home) == before
    assert not looking.journal.exists()
    names = this_servers("resize")
    assert [step["name"] for step in document["plans"][0]["steps"]] == names
    assert all(name in shown.stdout for name in names)
    assert "Nothing was changed." in shown.stdout.splitlines()[-1]


def test_a_stopped_server_arrives_off_with_the_same_disk(
    away: str, admin_nova: Nova, tmp_path: Path
) -> None:
    shown = admin_nova.show(away)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("VERIFY_RESIZE", SHUT_DOWN)
    assert shown["OS-EXT-SRV-ATTR:host"] == TARGET
    assert shown["flavor"]["original_name"] == "c1"
    assert admin_nova.actions(away)[0]["action"] == "migrate"
    assert host_run(TARGET, ["virsh", "domstate", away]).strip() == "shut off"
    for disk in ("disk", "disk.config"):
        assert same_content(away, disk)


def test_a_dry_run_of_either_end_shows_the_plan_and_changes_nothing(
    away: str, tmp_path: Path
) -> None:
    looking = Cellmove(tmp_path)
    before = settled(lambda: everything(away))
    shown = {verb: looking(verb, away, "--dry-run") for verb in ENDS}
    documents = {verb: looking(verb, away, "--dry-run", "--json").json() for verb in ENDS}
    assert everything(away) == before
    assert not looking.journal.exists()
    for verb in ENDS:
        (planned,) = documents[verb]["plans"]
        assert [step["name"] for step in planned["steps"]] == this_servers(verb)
        assert "Nothing was changed." in shown[verb].stdout.splitlines()[-1]


def test_reverted_it_is_off_at_home(away: str, cellmove: Cellmove, admin_nova: Nova) -> None:
    cellmove("revert", away, "--yes")
    shown = admin_nova.show(away)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("SHUTOFF", SHUT_DOWN)
    assert shown["OS-EXT-SRV-ATTR:host"] == SOURCE
    assert not [trace for trace in traces(away) if "cell2" in trace or TARGET in trace]


def test_nova_itself_reverts_what_cellmove_has_resized(away: str, admin_nova: Nova) -> None:
    admin_nova.revert(away)
    assert (admin_nova.status(away), admin_nova.host(away)) == ("SHUTOFF", SOURCE)
    assert not [trace for trace in traces(away) if "cell2" in trace or TARGET in trace]


def test_confirmed_it_is_off_on_the_target_and_starts_with_its_data(
    away: str, cellmove: Cellmove, admin_nova: Nova, guest: GuestWatch
) -> None:
    cellmove("confirm", away, "--yes")
    assert (admin_nova.status(away), admin_nova.host(away)) == ("SHUTOFF", TARGET)
    assert not [trace for trace in traces(away) if "cell1" in trace or SOURCE in trace]
    since = time.time()
    admin_nova.start(away)
    guest.wait_ready(TARGET, since)
    assert (guest.record_found(TARGET) or 0) >= 3
    assert guest.golden(TARGET)
    assert guest.heard_from(since) == {TARGET}
    admin_nova.delete(away)
    nothing_left(away)


def same_content(server: str, disk: str) -> bool:
    """Whether the guest would see the same on both hosts; `qemu-img compare` on the source."""
    path, copy = str(INSTANCES / server / disk), f"/tmp/{server}-{disk}"
    enter = str(OUTPUTS / "enter")
    there = subprocess.run([enter, TARGET, "cat", path], capture_output=True, check=True).stdout
    subprocess.run([enter, SOURCE, "tee", copy], input=there, check=True, stdout=subprocess.DEVNULL)
    try:
        said = host_run(SOURCE, ["qemu-img", "compare", path, copy], check=False)
    finally:
        host_run(SOURCE, ["rm", "-f", copy])
    return "Images are identical." in said
