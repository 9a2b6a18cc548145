"""nova's versioned objects: edited in place, never newer than found, and stable when nothing is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cellmove import errors
from cellmove.dbcopy import objects
from tests.fakes.databases import C1, C2, envelope, flavor_envelope, request_spec
from tests.unit.dbcopy.conftest import SERVER

DATA = "nova_object.data"
PLAIN = json.dumps({"cur": flavor_envelope(C1), "old": None, "new": None})


def slots(text: str) -> dict[str, str | None]:
    parsed = json.loads(text)
    return {slot: each and each[DATA]["name"] for slot, each in parsed.items()}


def test_a_flavor_is_read_as_it_was_written() -> None:
    assert objects.flavor_of(PLAIN) == C1
    assert objects.flavor_of(PLAIN, "old") is None


def test_only_the_slots_asked_for_change() -> None:
    claimed = objects.flavors(PLAIN, new=C2)
    assert slots(claimed) == {"cur": "c1", "old": None, "new": "c2"}
    resized = objects.flavors(claimed, cur=C2, old=C1, new=C2)
    assert slots(resized) == {"cur": "c2", "old": "c1", "new": "c2"}
    ended = objects.flavors(resized, old=None, new=None)
    assert slots(ended) == {"cur": "c2", "old": None, "new": None}
    assert objects.flavor_of(ended) == C2


def test_a_new_flavor_looks_as_nova_26_would_have_written_it() -> None:
    written = json.loads(objects.flavors(PLAIN, new=C2))["new"]
    assert written == flavor_envelope(C2)
    assert list(written[DATA]) == list(flavor_envelope(C2)[DATA])


def test_a_flavor_that_is_there_is_taken_as_it_stands() -> None:
    odd = flavor_envelope(C1)
    odd[DATA]["projects"] = ["p"]
    odd["nova_object.changes"] = ["extra_specs"]
    text = json.dumps({"cur": odd, "old": None, "new": None})
    assert json.loads(objects.flavors(text, old=C1))["old"] == odd


def test_a_flavor_is_never_newer_than_the_one_found() -> None:
    old = flavor_envelope(C1)
    old["nova_object.version"] = "1.1"
    del old[DATA]["description"]
    new = json.loads(objects.flavors(json.dumps({"cur": old, "old": None, "new": None}), new=C2))[
        "new"
    ]
    assert new["nova_object.version"] == "1.1"
    assert new[DATA].keys() == old[DATA].keys()


@pytest.mark.parametrize("text", [PLAIN, PLAIN.replace(", ", ",")])
def test_an_edit_that_changes_nothing_gives_the_same_text(text: str) -> None:
    assert objects.flavors(text, cur=C1, old=None) is text
    again = objects.flavors(text, old=C1, new=C2)
    assert objects.flavors(again, old=C1, new=C2) == again


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", None])
def test_what_nova_never_wrote_is_refused(text: Any) -> None:
    with pytest.raises(errors.StepFailed, match="not what nova writes"):
        objects.flavors(text, new=C2)


def resized_spec() -> dict[str, Any]:
    """What nova 26 saves after a resize: requests for PCI devices now bear the server's uuid."""
    spec = request_spec(SERVER, C2)
    spec[DATA]["pci_requests"][DATA]["instance_uuid"] = SERVER
    return spec


def test_a_request_spec_gets_the_flavor_and_keeps_the_rest() -> None:
    before = request_spec(SERVER, C1)
    after = json.loads(objects.spec_with_flavor(json.dumps(before), C2))
    assert after == resized_spec()


def test_what_nova_does_not_keep_between_requests_is_emptied() -> None:
    before = request_spec(SERVER, C1)
    before[DATA] |= {"ignore_hosts": ["cmp1a"], "network_metadata": {"x": 1}}
    after = json.loads(objects.spec_with_flavor(json.dumps(before), C2))
    assert after == resized_spec()


def test_a_request_spec_that_has_the_flavor_stays_the_same_text() -> None:
    text = json.dumps(request_spec(SERVER, C1), indent=1)
    assert objects.spec_with_flavor(text, C1) is text


def test_a_migration_context_is_what_nova_26_writes() -> None:
    """Taken from a cross-cell migration by nova 26.2 (the order of changes is a set's there)."""
    requests = {"instance_uuid": SERVER, "requests": []}
    data = {
        "instance_uuid": SERVER,
        "migration_id": 41,
        "new_numa_topology": None,
        "old_numa_topology": None,
        "new_pci_devices": envelope("PciDeviceList", "1.3", {"objects": []}, "objects"),
        "old_pci_devices": envelope("PciDeviceList", "1.3", {"objects": []}),
        "new_pci_requests": envelope("InstancePCIRequests", "1.1", requests, *requests),
        "old_pci_requests": envelope("InstancePCIRequests", "1.1", requests),
        "new_resources": None,
        "old_resources": None,
    }
    written = json.loads(objects.migration_context(SERVER, 41))
    changes = written.pop("nova_object.changes")
    assert written == envelope("MigrationContext", "1.2", data)
    assert sorted(changes) == sorted(data)
