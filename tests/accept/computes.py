"""nova-compute of the lab's hypervisors: restarted, with periodic tasks that come at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.lab.kit.computes import clock, wait_reported
from tests.lab.kit.places import host_run

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


def restart(hosts: Sequence[str]) -> None:
    """Restart nova-compute there, and wait until each has looked at its servers and reports."""
    for host in hosts:
        host_run(host, ["supervisorctl", "restart", "nova-compute"])
    wait_reported({host: clock(host) for host in hosts})


def size(host: str) -> int:
    """Bytes of nova-compute's log, to tell what is said later."""
    return int(host_run(host, ["stat", "--format=%s", LOG]))


def said(host: str, since: int) -> str:
    """What nova-compute has logged since its log was so large."""
    return host_run(host, ["tail", "-c", f"+{since + 1}", LOG])
