"""Servers with volumes: every byte arrives, and no attachment is left on any way."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, traces
from tests.lab.kit.volumes import (
    Volumes,
    attachments,
    from_image,
    named,
    read_only,
    records_found,
)

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1a", "cmp2a"
WISH = ("--flavor", "c2", "--to-host", TARGET)
AT_SOURCE, AT_TARGET, RESERVED = ("attached", SOURCE), ("attached", TARGET), ("reserved", "-")


@pytest.fixture(scope="module")
def volumes(admin_nova: Nova) -> Volumes:
    return Volumes(lab_session(project="demo"), admin_nova)


@pytest.fixture
def lent(volumes: Volumes) -> Iterator[list[str]]:
    """Four volumes, the second of a type that several servers may share."""
    with ExitStack() as stack:
        made = []
        for kind in ("nfs", "shared", "nfs", "nfs"):
            made.append(volumes.ask(kind))
            stack.callback(volumes.delete, made[-1])
        for volume in made:
            volumes.wait_status(volume, "available")
        yield made


def test_volumes_go_along_and_come_home_with_what_was_attached_detached_and_swapped(
    nova: Nova, volumes: Volumes, lent: list[str], cellmove: Cellmove
) -> None:
    first, shared, later, swapped = lent
    with nova.lent("volumes", SOURCE) as server:
        for volume in (first, shared):
            volumes.attach(server, volume)
        guest = GuestWatch.of(nova, server)
        nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        time.sleep(3)  # a few records on each

        begun = time.time()
        cellmove("resize", server, *WISH)
        guest.wait_ready(TARGET, begun)
        assert nova.status(server) == "VERIFY_RESIZE"
        both = {first: [AT_TARGET, RESERVED], shared: [AT_TARGET, RESERVED]}
        assert attachments(server) == both
        assert named(server, "cell2") == {first: AT_TARGET, shared: AT_TARGET}
        assert named(server, "cell1") == {first: RESERVED, shared: RESERVED}
        assert all(records_found(guest, TARGET, {first, shared}).values())

        volumes.detach(server, shared)
        volumes.attach(server, later)
        volumes.swap(server, first, swapped)
        begun = time.time()
        cellmove("revert", server, "--yes")
        guest.wait_ready(SOURCE, begun)
        home = {swapped, later}
        assert volumes.shown(server) == home
        assert attachments(server) == {volume: [AT_SOURCE] for volume in home}
        assert named(server, "cell1") == dict.fromkeys(home, AT_SOURCE)
        assert all(records_found(guest, SOURCE, home).values())
        for volume in (first, shared):
            volumes.wait_status(volume, "available")

        since = time.time()
        nova.reboot(server, "HARD")
        guest.wait_ready(SOURCE, since)
        assert all(records_found(guest, SOURCE, home).values())
        nova.delete(server)
        nothing_left(server)
        assert attachments(server) == {}


def test_an_undo_from_the_last_moment_leaves_one_attachment_at_home(
    nova: Nova, volumes: Volumes, blank: str, cellmove: Cellmove
) -> None:
    with (
        volumes.lent() as volume,
        nova.lent("volume-undo", SOURCE, more={"imageRef": blank}) as server,
    ):
        volumes.attach(server, volume)
        nova.wait_port(server, SOURCE)
        before = traces(server)
        moving = cellmove.start("resize", server, *WISH)
        cellmove.reached("start-target-guest", "begun", timeout_seconds=400)
        moving.send_signal(signal.SIGINT)
        stopped = cellmove.wait(moving)
        assert stopped.code == 5, stopped
        cellmove("undo", "1")
        nova.wait_port(server, SOURCE)
        assert traces(server) == before
        assert attachments(server) == {volume: [AT_SOURCE]}
        assert named(server, "cell1") == {volume: AT_SOURCE}
        assert nova.status(server) == "ACTIVE"


def test_a_server_that_boots_from_a_volume_moves_without_a_copy(
    nova: Nova, volumes: Volumes, cellmove: Cellmove
) -> None:
    with nova.lent("volume-root", SOURCE, config_drive=False, more=from_image(nova)) as server:
        (root,) = volumes.shown(server)
        guest = GuestWatch.of(nova, server)
        guest.wait_ready(SOURCE, since=0)
        time.sleep(3)
        begun = time.time()
        cellmove("resize", server, *WISH)
        guest.wait_ready(TARGET, begun)
        assert guest.golden(TARGET)
        assert guest.record_found(TARGET)
        cellmove("confirm", server, "--yes")
        assert attachments(server) == {root: [AT_TARGET]}
        assert named(server, "cell2") == {root: AT_TARGET}
        nova.delete(server)
        nothing_left(server)
        assert (attachments(server), volumes.status(root)) == ({}, "gone")


def test_what_one_of_nova_and_cellmove_resizes_the_other_finishes(
    nova: Nova, volumes: Volumes, blank: str, cellmove: Cellmove
) -> None:
    more = from_image(nova, blank, delete_on_termination=False)
    with (
        volumes.lent() as frozen,
        nova.lent("volume-mixed", SOURCE, config_drive=False, more=more) as server,
    ):
        volumes.freeze(frozen)
        (root,) = volumes.shown(server)
        nova.stop(server)
        volumes.attach(server, frozen)
        at_source = {volume: [AT_SOURCE] for volume in (root, frozen)}
        at_target = {volume: [AT_TARGET] for volume in (root, frozen)}
        resized = {volume: [AT_TARGET, RESERVED] for volume in (root, frozen)}

        nova.migrate(server, TARGET)
        assert attachments(server) == resized
        cellmove("revert", server, "--yes")
        assert attachments(server) == at_source
        assert read_only(SOURCE, server) == {frozen}

        cellmove("resize", server, *WISH)
        assert attachments(server) == resized
        assert read_only(TARGET, server) == {frozen}
        nova.revert(server)
        assert attachments(server) == at_source

        nova.migrate(server, TARGET)
        cellmove("confirm", server, "--yes")
        assert attachments(server) == at_target

        cellmove("resize", server, "--to-host", SOURCE)
        nova.confirm(server)
        assert attachments(server) == at_source

        cellmove("resize", server, *WISH)
        assert attachments(server) == resized
        nova.delete(server)
        nothing_left(server)
        assert attachments(server) == {}
        assert (volumes.status(root), volumes.status(frozen)) == ("available", "available")
        volumes.delete(root)
