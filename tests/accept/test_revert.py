"""A server that boots from a volume: resizes that fail, one that its flavor leads, and a revert."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from cellmove.services.session import Session
from tests.accept.expected import Resize, claimed, guests, require_ended, require_resized, room
from tests.accept.failing import guest_cannot_start, port_stays_plugged, taken_back
from tests.accept.life import Life
from tests.accept.watch import asked
from tests.lab.kit.clean import assert_whole
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import MICROVERSION, Nova, lab_session
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, rows, traces
from tests.lab.kit.trouble import room_taken
from tests.lab.kit.volumes import Volumes, attachments, from_image

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET, SIBLING = "cmp1a", "cmp2b", "cmp1b"
LONG = bool(os.environ.get("CELLMOVE_LONG"))
EVENTS = {
    "conductor_revert_snapshot_based_resize",
    "compute_revert_snapshot_based_resize_at_dest",
    "compute_finish_revert_snapshot_based_resize_at_source",
}


@dataclass
class Lived:
    """The server that goes through it all, its root volume, and two more volumes."""

    life: Life
    move: Resize
    root: str
    before: str
    """Attached before the resize, detached while resized."""
    later: str
    """Attached while resized."""

    @property
    def server(self) -> str:
        return self.life.server

    @property
    def port(self) -> str:
        return str(self.life.nova.ports(self.server)[0]["id"])


@contextmanager
def leading_flavor(session: Session) -> Iterator[str]:
    """A flavor as large as c2 that only the target's aggregate has."""
    compute = session.service("compute", MICROVERSION)
    name = f"accept-{uuid.uuid4().hex[:8]}"
    answer = compute.send("POST", "/os-aggregates", {"aggregate": {"name": name}})
    aggregate = f"/os-aggregates/{answer.body['aggregate']['id']}"
    body = {"flavor": {"name": name, "ram": 160, "vcpus": 1, "disk": 3}}
    flavor = compute.send("POST", "/flavors", body).body["flavor"]["id"]
    try:
        assert compute.send("POST", f"{aggregate}/action", {"add_host": {"host": TARGET}}).ok
        told = {"set_metadata": {"metadata": {name: "yes"}}}
        assert compute.send("POST", f"{aggregate}/action", told).ok
        specs = {"extra_specs": {f"aggregate_instance_extra_specs:{name}": "yes"}}
        assert compute.send("POST", f"/flavors/{flavor}/os-extra_specs", specs).ok
        yield name
    finally:
        compute.send("POST", f"{aggregate}/action", {"remove_host": {"host": TARGET}})
        compute.send("DELETE", aggregate)
        compute.send("DELETE", f"/flavors/{flavor}")


@pytest.fixture(scope="module")
def lived(session: Session, nova: Nova, volumes: Volumes, cellmove: Cellmove) -> Iterator[Lived]:
    """The only server of this file: its tests use it one after the other, in their order."""
    networks = nova._network.get("/networks", name="flat1").body["networks"]
    wish = from_image(nova)
    wish["block_device_mapping_v2"][0]["tag"] = "root"
    wish |= {"tags": ["blue"], "networks": [{"uuid": networks[0]["id"], "tag": "private"}]}
    with (
        volumes.lent() as before,
        volumes.lent() as later,
        leading_flavor(session) as flavor,
        nova.lent("accept", SOURCE, config_drive=False, more=wish) as server,
        taken_back(cellmove),
    ):
        (root,) = volumes.shown(server)
        guest = GuestWatch.of(nova, server)
        volumes.attach(server, before)
        nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        life = Life(session, nova, volumes, guest, SOURCE)
        move = Resize(server, SOURCE, TARGET, "c1", flavor, volume_root=True)
        yield Lived(life, move, root, before, later)


def require_home(lived: Lived, nova: Nova, cellmove: Cellmove) -> None:
    """A resize has failed: the server runs at home with all it had, and nothing else has it."""
    server, move = lived.server, lived.move
    nova.wait_port(server, SOURCE)
    shown = nova.show(server)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert rows(move.here, "migrations", f"instance_uuid = '{server}'") == []
    assert claimed(server) == {SOURCE: room("c1", volume_root=True)}
    tried = cellmove("moves", "--json").json()["moves"]
    assert [claimed(each["migration"]) for each in tried] == [{}] * len(tried)
    assert guests(server) == {SOURCE: "running"}
    at_home = [("attached", SOURCE)]
    assert attachments(server) == {lived.root: at_home, lived.before: at_home}
    assert not [each for each in traces(server) if "cell2" in each or TARGET in each]


def test_a_guest_that_cannot_start_at_the_target_runs_on_at_home(
    lived: Lived, nova: Nova, cellmove: Cellmove
) -> None:
    with guest_cannot_start(TARGET, lived.port):
        failed = cellmove("resize", lived.server, "--to-host", TARGET, check=False)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    require_home(lived, nova, cellmove)
    lived.life.felt(lambda: nova.reboot(lived.server, "HARD"))


def test_a_guest_that_cannot_be_taken_from_the_source_runs_on_there(
    lived: Lived, nova: Nova, cellmove: Cellmove
) -> None:
    with port_stays_plugged(SOURCE, lived.port):
        moving = cellmove.start("resize", lived.server, "--to-host", TARGET)
        cellmove.reached("unplug-source-ports", "failed", timeout_seconds=400)
    failed = cellmove.wait(moving)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    require_home(lived, nova, cellmove)


def test_then_it_goes_where_the_metadata_of_an_aggregate_leads_its_flavor(
    lived: Lived, nova: Nova, session: Session, cellmove: Cellmove
) -> None:
    with asked(session, lived.server) as seen:
        cellmove("resize", lived.server, "--flavor", lived.move.new)
    seen.require_swapped_once(lived.server, cellmove.journal, "resize")
    lived.life.guest.wait_ready(TARGET, since=0)
    nova.wait_port(lived.server, TARGET)
    require_resized(nova, session, lived.move, running=True)
    both = [("attached", TARGET), ("reserved", "-")]
    assert attachments(lived.server) == {lived.root: both, lived.before: both}


def test_reverted_it_is_home_with_the_volumes_that_it_has_now(
    lived: Lived, nova: Nova, session: Session, volumes: Volumes, cellmove: Cellmove
) -> None:
    server = lived.server
    volumes.detach(server, lived.before)
    volumes.attach(server, lived.later)
    with room_taken(lab_session(), SOURCE, "MEMORY_MB"), asked(session, server) as seen:
        cellmove("revert", server, "--yes")
    seen.require_swapped_once(server, cellmove.journal, "revert")
    assert nova.status(server) == "ACTIVE"
    require_ended(nova, lived.move, session, "revert", EVENTS)
    volumes.wait_status(lived.before, "available")
    at_home = [("attached", SOURCE)]
    assert attachments(server) == {lived.root: at_home, lived.later: at_home}
    assert not [each for each in traces(server) if "cell2" in each or TARGET in each]


@pytest.mark.skipif(not LONG, reason="make accept-long")
def test_nova_does_all_it_can_with_a_reverted_server(lived: Lived) -> None:
    """Of what boots from a volume it rescues nothing whose image has no rescue device."""
    life = lived.life
    life.guest.wait_ready(SOURCE, since=0)
    life.tell_console()
    life.reboot()
    life.change_volumes(lived.later)
    life.change_interfaces()
    life.stop_and_start()
    life.snapshot()
    life.resize_within_cell(SIBLING)
    life.shelve()


def test_deleted_it_leaves_nothing(
    lived: Lived, nova: Nova, volumes: Volumes, cellmove: Cellmove
) -> None:
    assert_whole(cellmove, lived.server)
    nova.delete(lived.server)
    nothing_left(lived.server)
    assert_whole(cellmove, lived.server)
    assert attachments(lived.server) == {}
    assert volumes.status(lived.root) == "gone"
