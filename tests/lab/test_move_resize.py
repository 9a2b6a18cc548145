"""A running server is resized into the other cell and confirmed: the main job, from end to end."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove, Completed
from tests.lab.kit.traces import CELLS, nothing_left, rows, traces, wait_counted

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
WISHES: dict[str, Any] = {
    "metadata": {"fill_mib": "16", "purpose": "shop"},
    "more": {
        "key_name": "lab",
        "tags": ["blue", "green"],
        "user_data": base64.b64encode(b"#!/bin/true\n").decode(),
    },
}
OF_THE_OWNER = (
    "id", "name", "created", "tenant_id", "user_id", "metadata", "tags", "key_name", "config_drive",
    "image", "addresses", "security_groups", "OS-EXT-SRV-ATTR:user_data", "accessIPv4",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resized:
    """What was seen of one resize; the server waits to be confirmed."""

    server: str
    guest: GuestWatch
    begun: float
    ended: float
    before: dict[str, Any]
    listings: list[list[str]]
    answer: Completed


@pytest.fixture(scope="module")
def cellmove(tmp_path_factory: pytest.TempPathFactory) -> Cellmove:
    return Cellmove(tmp_path_factory.mktemp("resize"))


@pytest.fixture(scope="module")
def resized(admin_nova: Nova, customer: Nova, cellmove: Cellmove) -> Iterator[Resized]:
    """The resize itself, once for all claims of this module."""
    with admin_nova.lent("resize", SOURCE, **WISHES) as server:
        guest = GuestWatch.of(admin_nova, server)
        admin_nova.wait_port(server, SOURCE)
        guest.wait_ready(SOURCE, since=0)
        guest.wait_told(SOURCE, "fill done")
        before = admin_nova.show(server)
        begun = time.time()
        with customer.watched(server) as listings:
            answer = cellmove("resize", server, "--flavor", "c2", "--to-host", TARGET)
            ended = time.time()
        guest.wait_ready(TARGET, begun)
        yield Resized(server, guest, begun, ended, before, listings, answer)


@pytest.mark.parametrize("who", ["admin_nova", "customer"])
def test_nova_says_verify_resize_and_the_new_flavor(
    resized: Resized, who: str, request: pytest.FixtureRequest
) -> None:
    shown = request.getfixturevalue(who).show(resized.server)
    assert shown["status"] == "VERIFY_RESIZE"
    assert shown["OS-EXT-STS:task_state"] is None
    assert shown["OS-EXT-STS:power_state"] == 1
    assert shown["flavor"]["original_name"] == "c2"
    assert (shown["flavor"]["ram"], shown["flavor"]["disk"]) == (160, 3)


def test_nova_says_the_new_host(resized: Resized, admin_nova: Nova) -> None:
    shown = admin_nova.show(resized.server)
    assert shown["OS-EXT-SRV-ATTR:host"] == TARGET
    assert shown["OS-EXT-SRV-ATTR:hypervisor_hostname"] == TARGET
    assert shown["hostId"] != resized.before["hostId"]


def test_what_the_owner_has_set_is_as_before(resized: Resized, admin_nova: Nova) -> None:
    shown = admin_nova.show(resized.server)
    changed = {
        key: (resized.before[key], shown[key])
        for key in OF_THE_OWNER
        if resized.before[key] != shown[key]
    }
    assert not changed
    assert shown["tags"] == ["blue", "green"]


def test_the_port_is_the_same_and_active_on_the_target(resized: Resized, admin_nova: Nova) -> None:
    admin_nova.wait_port(resized.server, TARGET)
    (port,) = admin_nova.ports(resized.server)
    assert port["mac_address"] == resized.guest.mac
    assert port["binding:vif_type"] == "ovs"


def test_the_guest_is_the_same_with_the_same_data(resized: Resized) -> None:
    guest = resized.guest
    assert (guest.record_found(TARGET) or 0) >= 3
    assert guest.golden(TARGET)
    assert guest.filled(TARGET)


def test_the_guest_found_its_disk_grown_to_the_new_flavor(resized: Resized) -> None:
    assert f"GUEST disk vda sectors {3 * 1024**3 // 512} " in resized.guest.console(TARGET)


def test_the_guest_never_ran_on_two_hypervisors(resized: Resized) -> None:
    beats = list(resized.guest.heartbeats(resized.begun))
    here = [beat.at for beat in beats if beat.host == SOURCE]
    there = [beat.at for beat in beats if beat.host == TARGET]
    assert here
    assert there
    assert max(here) < min(there)
    assert {beat.host for beat in beats} == {SOURCE, TARGET}


def test_nova_listed_the_server_exactly_once_all_along(resized: Resized) -> None:
    assert len(resized.listings) > 5
    assert [seen for seen in resized.listings if len(seen) != 1] == []
    told = {status for seen in resized.listings for status in seen}
    assert {"ACTIVE", "RESIZE"} <= told <= {"ACTIVE", "RESIZE", "VERIFY_RESIZE"}


def test_the_history_has_the_resize_with_all_its_events_finished(
    resized: Resized, admin_nova: Nova
) -> None:
    resize, create = admin_nova.actions(resized.server)
    assert (create["action"], resize["action"]) == ("create", "resize")
    events = admin_nova.events(resized.server, resize)
    assert {event["event"]: event["result"] for event in events} == {
        "conductor_migrate_server": "Success",
        "cold_migrate": "Success",
        "compute_prep_snapshot_based_resize_at_dest": "Success",
        "compute_finish_snapshot_based_resize_at_dest": "Success",
    }
    assert all(event["finish_time"] for event in events)


def test_the_last_lines_say_where_the_server_is_and_what_to_type(resized: Resized) -> None:
    last = resized.answer.stdout.splitlines()[-4:]
    assert f"is on {TARGET} in cell2 with flavor c2" in last[0]
    assert re.fullmatch(r"Its guest was off for \d+\.\d s, and then booted\.", last[1])
    assert last[2:] == [
        f"Next: cellmove confirm {resized.server}",
        f"  or: cellmove revert {resized.server}",
    ]


def test_a_second_resize_is_refused_until_this_one_is_ended(
    resized: Resized, cellmove: Cellmove
) -> None:
    refused = cellmove("resize", resized.server, "--to-host", SOURCE, check=False)
    assert refused.code == 1
    assert "Confirm or revert its last resize first." in refused.stderr


def test_novas_audit_counts_the_server_on_both_hosts_and_sets_nothing_to_error(
    resized: Resized, admin_nova: Nova
) -> None:
    for cell, host in (("cell1", SOURCE), ("cell2", TARGET)):
        wait_counted(cell, host, since=resized.ended)
    statuses = {
        cell: [row["status"] for row in rows(f"{cell}.{schema}", "migrations", _of(resized))]
        for cell, schema in CELLS.items()
    }
    assert statuses == {"cell1": ["post-migrating"], "cell2": ["finished"]}
    assert admin_nova.status(resized.server) == "VERIFY_RESIZE"


def test_once_confirmed_it_is_novas_alone_and_its_deletion_leaves_nothing(
    resized: Resized, admin_nova: Nova, cellmove: Cellmove
) -> None:
    server, guest = resized.server, resized.guest
    (done,) = json.loads(cellmove("confirm", server, "--yes", "--json").stdout)["results"]
    assert (done["exit_code"], done["host"], done["flavor"]) == (0, TARGET, "c2")
    assert admin_nova.show(server)["status"] == "ACTIVE"
    assert not [trace for trace in traces(server) if "cell1" in trace or SOURCE in trace]

    since = time.time()
    admin_nova.reboot(server, "HARD")
    guest.wait_ready(TARGET, since)
    assert guest.filled(TARGET)
    admin_nova.stop(server)
    since = time.time()
    admin_nova.start(server)
    guest.wait_heartbeat(TARGET, since)
    assert guest.heard_from(since) == {TARGET}
    admin_nova.delete(server)
    nothing_left(server)


def _of(resized: Resized) -> str:
    return f"instance_uuid = '{resized.server}'"
