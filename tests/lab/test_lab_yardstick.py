"""nova's own cross-cell migration in this lab: the yardstick, and the proof of the kit."""

from __future__ import annotations

import time
import uuid

import pytest

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.traces import CELLS, nothing_left, rows, traces

pytestmark = [pytest.mark.lab, pytest.mark.alone]


def living(server: str) -> dict[str, bool]:
    """Cell -> whether the server's row there is hidden; cells without a row are left out."""
    found = {}
    for cell, schema in CELLS.items():
        for row in rows(f"{cell}.{schema}", "instances", f"uuid = '{server}' AND deleted = 0"):
            found[cell] = bool(row["hidden"])
    return found


def test_nova_moves_a_server_to_the_other_cell_and_leaves_nothing(nova: Nova) -> None:
    server = nova.boot(f"yardstick-{uuid.uuid4().hex[:8]}", "cmp1a")
    (port,) = nova.ports(server)
    guest = GuestWatch(server, port["mac_address"])
    nova.wait_port(server, "cmp1a")
    begun = time.time()
    first = guest.wait_ready("cmp1a", begun)
    assert guest.record_found("cmp1a") is None
    assert living(server) == {"cell1": False}
    time.sleep(5)  # a few records

    nova.migrate(server, "cmp2a")
    assert nova.host(server) == "cmp2a"
    second = guest.wait_ready("cmp2a", begun)
    assert second.boot != first.boot
    assert living(server) == {"cell1": True, "cell2": False}
    assert (guest.record_found("cmp2a") or 0) >= 5
    assert guest.golden("cmp2a")
    assert guest.heard_from(begun) == {"cmp1a", "cmp2a"}
    assert guest.longest_silence_seconds(begun) > 1

    nova.confirm(server)
    assert living(server) == {"cell2": False}
    assert any("cmp2a has the guest" in trace for trace in traces(server))
    nova.delete(server)
    nothing_left(server)
