"""nova-compute of the lab's hypervisors: restarted, with periodic tasks that come at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.accept.expected import CELL_OF
from tests.lab.kit.places import host_run, sql
from tests.lab.kit.traces import CELLS

LOG = "/var/log/nova/nova-compute.log"
FOLDER = "/etc/nova/nova.conf.d"
PERIOD_SECONDS = 5
OFTEN = f"""
[DEFAULT]
periodic_fuzzy_delay = 0
update_resources_interval = {PERIOD_SECONDS}
sync_power_state_interval = {PERIOD_SECONDS}
heal_instance_info_cache_interval = {PERIOD_SECONDS}
instance_delete_interval = {PERIOD_SECONDS}
running_deleted_instance_poll_interval = {PERIOD_SECONDS}
resize_confirm_window = 1
[image_cache]
manager_interval = {PERIOD_SECONDS}
"""
"""Of those that cells without an API database may have; a window of 1 s confirms at once."""


@contextmanager
def in_a_hurry(hosts: Sequence[str]) -> Iterator[None]:
    """Every periodic task of nova-compute on these hosts comes within seconds."""
    try:
        for host in hosts:
            script = f'mkdir -p {FOLDER} && echo "$0" > {FOLDER}/accept.conf'
            host_run(host, ["sh", "-c", script, OFTEN])
        restart(hosts)
        yield
    finally:
        for host in hosts:
            host_run(host, ["rm", "-rf", FOLDER])
        restart(hosts)


def restart(hosts: Sequence[str], timeout_seconds: float = 120) -> None:
    """Restart nova-compute there, and wait until each has looked at its servers and reports."""
    for host in hosts:
        host_run(host, ["supervisorctl", "restart", "nova-compute"])
    begun = {host: _clock(host) for host in hosts}
    deadline = time.monotonic() + timeout_seconds
    while late := [host for host in hosts if _seen(host) <= begun[host]]:
        if time.monotonic() > deadline:
            pytest.fail(f"nova-compute of {late} does not report")
        time.sleep(0.5)


def _seen(host: str) -> str:
    """When it last reported, in UTC: it begins to when its start is over."""
    return _ask(host, "last_seen_up FROM services WHERE deleted = 0 AND")


def _clock(host: str) -> str:
    """The time in UTC by the database of the host's cell."""
    return _ask(host, "UTC_TIMESTAMP() FROM services WHERE")


def _ask(host: str, query: str) -> str:
    cell = CELL_OF[host]
    own = f"host = '{host}' AND services.binary = 'nova-compute'"
    return sql(f"{cell}.{CELLS[cell]}", f"SELECT {query} {own}")[0][0]


def size(host: str) -> int:
    """Bytes of nova-compute's log, to tell what is said later."""
    return int(host_run(host, ["stat", "--format=%s", LOG]))


def said(host: str, since: int) -> str:
    """What nova-compute has logged since its log was so large."""
    return host_run(host, ["tail", "-c", f"+{since + 1}", LOG])
