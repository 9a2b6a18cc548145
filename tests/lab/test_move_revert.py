"""A running server is resized into the other cell, and reverted: it is the old one again."""

from __future__ import annotations

import time

import pytest

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, traces

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
FELT = {"updated", "OS-SRV-USG:launched_at"}
"""What nova's own revert changes too."""


def test_a_reverted_server_is_as_it_was_and_novas_alone(
    nova: Nova, customer: Nova, cellmove: Cellmove
) -> None:
    with nova.lent("revert", SOURCE, metadata={"fill_mib": "8"}) as server:
        guest = GuestWatch.of(nova, server)
        nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        guest.wait_told(SOURCE, "fill done")
        shown, left = nova.show(server), traces(server)

        begun = time.time()
        cellmove("resize", server, "--flavor", "c2", "--to-host", TARGET)
        guest.wait_ready(TARGET, begun)
        carried = guest.record_found(TARGET)
        assert carried
        time.sleep(3)  # a few records more, which the revert throws away

        begun = time.time()
        with customer.watched(server) as listings:
            answer = cellmove("revert", server, "--yes")
        assert f"is back on {SOURCE} in cell1 with flavor c1" in answer.stdout
        assert [seen for seen in listings if len(seen) != 1] == []
        guest.wait_ready(SOURCE, begun)
        assert guest.record_found(SOURCE) == carried
        assert guest.golden(SOURCE)
        assert guest.filled(SOURCE)

        nova.wait_port(server, SOURCE)
        assert nova.show(server) | _of(shown) == shown | _of(shown)
        assert traces(server) == left
        told = [action["action"] for action in nova.actions(server)]
        assert told == ["revertResize", "resize", "create"]

        since = time.time()
        nova.reboot(server, "HARD")
        guest.wait_ready(SOURCE, since)
        nova.stop(server)
        since = time.time()
        nova.start(server)
        guest.wait_heartbeat(SOURCE, since)
        assert guest.heard_from(since) == {SOURCE}
        nova.delete(server)
        nothing_left(server)


def _of(shown: dict[str, object]) -> dict[str, object]:
    return {key: shown[key] for key in FELT}
