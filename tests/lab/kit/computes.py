"""When a nova-compute of the lab is ready: what its cell's database tells of it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from tests.lab.kit.places import sql
from tests.lab.kit.traces import CELLS

CELL_OF = {"cmp1a": "cell1", "cmp1b": "cell1", "cmp2a": "cell2", "cmp2b": "cell2"}


def clock(host: str) -> str:
    """The time in UTC by the database of the host's cell."""
    return _ask(host, "UTC_TIMESTAMP() FROM services WHERE")


def wait_reported(begun: Mapping[str, str], timeout_seconds: float = 120) -> None:
    """Wait until each of these hosts' nova-compute has reported since then.

    One that was restarted does so when its start is over: it has looked at all its servers.
    """
    deadline = time.monotonic() + timeout_seconds
    while late := [host for host, then in begun.items() if _seen(host) <= then]:
        if time.monotonic() > deadline:
            pytest.fail(f"nova-compute of {late} does not report")
        time.sleep(0.5)


def _seen(host: str) -> str:
    """When it last reported, in UTC."""
    return _ask(host, "last_seen_up FROM services WHERE deleted = 0 AND")


def _ask(host: str, query: str) -> str:
    cell = CELL_OF[host]
    own = f"host = '{host}' AND services.binary = 'nova-compute'"
    return sql(f"{cell}.{CELLS[cell]}", f"SELECT {query} {own}")[0][0]
