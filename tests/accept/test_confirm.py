"""One server is resized into the other cell and confirmed while clients ask; then it is nova's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cellmove.services.session import Session
from tests.accept.expected import Resize, migrations, require_ended, require_resized
from tests.accept.failing import taken_back
from tests.accept.life import Life
from tests.accept.tools import tool
from tests.accept.watch import asked
from tests.lab.kit.clean import assert_whole
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import sql
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import CELLS, nothing_left, traces
from tests.lab.kit.volumes import Volumes, attachments, records_found

pytestmark = [pytest.mark.lab, pytest.mark.alone]

LONG = pytest.mark.skipif(not os.environ.get("CELLMOVE_LONG"), reason="make accept-long")
SOURCE, TARGET, SIBLING = "cmp1b", "cmp2b", "cmp2a"


@dataclass
class Lived:
    """The server that goes through it all, and a volume for it."""

    life: Life
    move: Resize
    volume: str

    @property
    def server(self) -> str:
        return self.life.server


@pytest.fixture(scope="module")
def lived(session: Session, nova: Nova, volumes: Volumes, cellmove: Cellmove) -> Iterator[Lived]:
    """The only server of this file: its tests use it one after the other, in their order."""
    networks = nova._network.get("/networks", name="flat1").body["networks"]
    more = {"tags": ["blue"], "networks": [{"uuid": networks[0]["id"], "tag": "private"}]}
    with (
        volumes.lent() as volume,
        nova.lent("accept", SOURCE, more=more) as server,
        taken_back(cellmove),
    ):
        guest = GuestWatch.of(nova, server)
        nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        life = Life(session, nova, volumes, guest, SOURCE)
        move = Resize(server, SOURCE, TARGET, "c1", "c2", volume_root=False)
        yield Lived(life, move, volume)


def test_while_it_is_resized_it_is_listed_once_and_counted_once(
    lived: Lived, session: Session, cellmove: Cellmove
) -> None:
    with asked(session, lived.server) as seen:
        cellmove("resize", lived.server, "--flavor", "c2", "--to-host", TARGET)
    seen.require_swapped_once(lived.server, cellmove.journal, "resize")
    assert set(seen.statuses) <= {"ACTIVE", "RESIZE", "VERIFY_RESIZE"}
    lived.life.host = TARGET


def test_resized_it_is_all_that_novas_own_test_asks(
    lived: Lived, nova: Nova, session: Session
) -> None:
    lived.life.guest.wait_ready(TARGET, since=0)
    nova.wait_port(lived.server, TARGET)
    require_resized(nova, session, lived.move, running=True)
    assert len(migrations(session, lived.server)) == 1
    images = session.service("image").get("/images", owner=session.who.project_id).body["images"]
    assert images == []


def test_a_volume_is_attached_while_it_is_resized(lived: Lived, volumes: Volumes) -> None:
    volumes.attach(lived.server, lived.volume)
    assert attachments(lived.server) == {lived.volume: [("attached", TARGET)]}


def test_while_it_is_confirmed_it_is_listed_once_and_counted_once(
    lived: Lived, nova: Nova, session: Session, cellmove: Cellmove
) -> None:
    with asked(session, lived.server) as seen:
        cellmove("confirm", lived.server, "--yes")
    seen.require_once(lived.server)
    assert nova.status(lived.server) == "ACTIVE"
    events = {
        "conductor_confirm_snapshot_based_resize",
        "compute_confirm_snapshot_based_resize_at_source",
    }
    require_ended(nova, lived.move, session, "confirm", events)
    assert not [each for each in traces(lived.server) if "cell1" in each or SOURCE in each]
    assert attachments(lived.server) == {lived.volume: [("attached", TARGET)]}


def test_novas_tools_find_nothing_of_it(lived: Lived) -> None:
    assert lived.server not in tool("nova-manage", "placement", "audit", "--verbose", ends=(0, 3))
    wish = ("placement", "heal_allocations", "--dry-run", "--verbose", "--instance", lived.server)
    assert "Nothing to be healed." in tool("nova-manage", *wish, ends=(4,))


@LONG
def test_nova_reboots_stops_starts_and_changes_what_is_plugged(lived: Lived) -> None:
    life = lived.life
    life.tell_console()
    life.reboot()
    assert all(records_found(life.guest, TARGET, {lived.volume}).values())
    life.change_volumes(lived.volume)
    life.change_interfaces()
    life.stop_and_start()


@LONG
def test_nova_snapshots_rescues_shelves_and_moves_it_within_its_cell(lived: Lived) -> None:
    life = lived.life
    life.snapshot()
    life.rescue()
    life.resize_within_cell(SIBLING)
    life.shelve()
    life.rebuild()
    assert life.where() == "running"


def test_deleted_and_archived_nothing_of_it_is_left(
    lived: Lived, nova: Nova, cellmove: Cellmove
) -> None:
    server = lived.server
    assert_whole(cellmove, server)
    nova.delete(server)
    nothing_left(server)
    assert_whole(cellmove, server)
    assert attachments(server) == {}
    tool(
        "nova-manage", "db", "archive_deleted_rows", "--all-cells", "--until-complete", ends=(0, 1)
    )
    assert archived(server) == {"cell1": (0, 0), "cell2": (0, 1)}
    for table in ("instance_mappings", "request_specs"):
        query = f"SELECT COUNT(*) FROM {table} WHERE instance_uuid = '{server}'"
        assert sql("api.nova_api", query) == [["0"]]


def archived(server: str) -> dict[str, tuple[int, int]]:
    """Cell -> rows of the server among the instances, and among those that were archived."""
    found = {}
    for cell, schema in CELLS.items():
        counts = []
        for table in ("instances", "shadow_instances"):
            query = f"SELECT COUNT(*) FROM {table} WHERE uuid = '{server}'"
            counts.append(int(sql(f"{cell}.{schema}", query)[0][0]))
        found[cell] = (counts[0], counts[1])
    return found


def test_novas_upgrade_check_is_content() -> None:
    said = tool("nova-status", "upgrade", "check")
    assert said.count("Result: Success") == said.count("Check: ")
