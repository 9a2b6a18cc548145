"""Who resizes and who ends it: each of nova and cellmove, for each kind of server."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import pytest

from tests.accept.failing import taken_back
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, traces
from tests.lab.kit.volumes import attachments, from_image

pytestmark = [
    pytest.mark.lab,
    pytest.mark.alone,
    pytest.mark.skipif(not os.environ.get("CELLMOVE_LONG"), reason="make accept-long"),
]

ENDS = ("cmp1a", "cmp2a")
WHO = ("cellmove", "nova")


@pytest.fixture(
    scope="module",
    params=itertools.product(("image", "volume"), ("running", "stopped")),
    ids="-".join,
)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    root, state = request.param
    return root, state


@pytest.fixture(scope="module")
def guest(kind: tuple[str, str], nova: Nova, cellmove: Cellmove) -> Iterator[GuestWatch]:
    """A server of this kind, which goes through all legs, and leaves nothing in the end."""
    root, state = kind
    more = from_image(nova) if root == "volume" else {}
    with (
        nova.lent("matrix", ENDS[0], config_drive=False, more=more) as server,
        taken_back(cellmove),
    ):
        guest = GuestWatch.of(nova, server)
        guest.wait_ready(ENDS[0], since=0)
        time.sleep(2)  # a few records
        if state == "stopped":
            nova.stop(server)
        yield guest
        nova.delete(server)
        nothing_left(server)
        assert attachments(server) == {}


@pytest.mark.parametrize("ended_by", WHO)
@pytest.mark.parametrize("resized_by", WHO)
@pytest.mark.parametrize("end", ["revert", "confirm"])
def test_what_either_has_resized_either_ends(
    kind: tuple[str, str],
    guest: GuestWatch,
    nova: Nova,
    cellmove: Cellmove,
    end: str,
    resized_by: str,
    ended_by: str,
) -> None:
    server = guest.server
    source = nova.host(server)
    target = ENDS[1 - ENDS.index(source)]
    status = nova.status(server)

    since = time.time()
    if resized_by == "nova":
        nova.migrate(server, target)
    else:
        cellmove("resize", server, "--to-host", target)
    assert (nova.status(server), nova.host(server)) == ("VERIFY_RESIZE", target)
    _ready(guest, kind, target, since)

    since = time.time()
    if ended_by == "nova":
        getattr(nova, end)(server)
    else:
        cellmove(end, server, "--yes")
    there, left = (target, source) if end == "confirm" else (source, target)
    assert (nova.status(server), nova.host(server)) == (status, there)
    assert not [each for each in traces(server) if f"cell{left[3]}" in each or left in each]
    if end == "revert":
        _ready(guest, kind, source, since)
    assert all(where == [("attached", there)] for where in attachments(server).values())


def _ready(guest: GuestWatch, kind: tuple[str, str], host: str, since: float) -> None:
    if kind[1] == "running":
        guest.wait_ready(host, since)
        assert guest.golden(host)
        assert guest.record_found(host)
