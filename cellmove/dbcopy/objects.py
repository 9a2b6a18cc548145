"""nova's versioned objects as JSON text: edited in place, keeping versions and fields found.

Every edit is the identity when the text already says so: the same text comes back, byte for byte.
An object newer than a cell's nova would be refused by it, so none is ever made newer than found.
"""

from __future__ import annotations

import copy
import enum
import json
from collections.abc import Mapping
from typing import Any, Literal

from cellmove import errors
from cellmove.model import Flavor

Slot = Literal["cur", "old", "new"]
Envelope = dict[str, Any]
"""`nova_object.name`, `.namespace`, `.version`, `.data` and perhaps `.changes`."""

DATA = "nova_object.data"
CHANGES = "nova_object.changes"


class Keep(enum.Enum):
    """The default of an argument that may be None."""

    KEEP = "keep"


KEEP = Keep.KEEP


def flavor_of(text: str, slot: Slot = "cur") -> Flavor | None:
    """The flavor in one slot of `instance_extra.flavor`.

    Raises:
        StepFailed: the text is no flavor of nova's.
    """
    envelope = _parsed(text, "instance_extra.flavor")[slot]
    return None if envelope is None else _flavor(envelope)


def flavors(
    text: str,
    *,
    cur: Flavor | Keep = KEEP,
    old: Flavor | Keep | None = KEEP,
    new: Flavor | Keep | None = KEEP,
) -> str:
    """`instance_extra.flavor` with these slots set.

    A flavor that the text already has is taken as it stands there; another one gets the version
    and the fields of `cur`. nova 26: objects/instance.py:Instance._save_flavor.
    """
    before: dict[str, Envelope | None] = _parsed(text, "instance_extra.flavor")
    after = dict(before)
    wanted: dict[str, Flavor | Keep | None] = {"cur": cur, "old": old, "new": new}
    for slot, flavor in wanted.items():
        if flavor is None:
            after[slot] = None
        elif flavor is not KEEP:
            candidates = [before[name] for name in (slot, "cur", "new", "old")]
            known = (each for each in candidates if each is not None and _flavor(each) == flavor)
            after[slot] = copy.deepcopy(next(known, None)) or _envelope(flavor, before["cur"] or {})
    return text if after == before else json.dumps(after)


def spec_with_flavor(text: str, flavor: Flavor) -> str:
    """`request_specs.spec` with another flavor, as the conductor saves it after a resize.

    What nova does not keep between two requests is emptied, as its own save does. The requested
    availability zone stays what the owner asked for.
    nova 26: objects/request_spec.py:RequestSpec._get_update_primitives.
    """
    spec = _parsed(text, "request_specs.spec")
    after = copy.deepcopy(spec)
    data = after[DATA]
    if _flavor(data["flavor"]) != flavor:
        data["flavor"] = _envelope(flavor, data["flavor"])
        if data.get("pci_requests"):
            # Made anew for the new flavor, this time with the server's name on it.
            data["pci_requests"][DATA]["instance_uuid"] = data["instance_uuid"]
    for name in (
        "retry",
        "requested_destination",
        "requested_resources",
        "ignore_hosts",
    ):
        if data.get(name):
            data[name] = None
    for name in ("network_metadata", "requested_networks", "request_level_params"):
        if data.get(name):
            del data[name]
    return text if after == spec else json.dumps(after)


def migration_context(server: str, migration_id: int, version: str = "1.2") -> str:
    """`instance_extra.migration_context` of a server without NUMA topology, PCI or vPMEM.

    `migration_id` is `migrations.id` of the same cell: nova-compute sets a migration to `error`
    when the server's context names another one.
    nova 26: compute/resource_tracker.py:ResourceTracker._move_claim.
    """
    data: dict[str, Any] = {"instance_uuid": server, "migration_id": migration_id}
    for side in ("new", "old"):
        # What nova-compute makes is marked as changed; what it loads is not.
        mark = side == "new"
        requests = {"instance_uuid": server, "requests": []}
        data |= {
            f"{side}_numa_topology": None,
            f"{side}_pci_devices": _new("PciDeviceList", "1.3", {"objects": []}, changed=mark),
            f"{side}_pci_requests": _new("InstancePCIRequests", "1.1", requests, changed=mark),
            f"{side}_resources": None,
        }
    return json.dumps(_new("MigrationContext", version, data, changed=True))


def _parsed(text: str, column: str) -> Any:
    try:
        parsed = json.loads(text)
    except (TypeError, ValueError):
        parsed = None
    if isinstance(parsed, dict) and (DATA in parsed or "cur" in parsed):
        return parsed
    raise errors.StepFailed(
        f"{column} of the server is not what nova writes.",
        f"It begins with {str(text)[:40]!r}.",
        "Look at the row; `nova-manage` may have an online data migration to run.",
    )


def _new(name: str, version: str, data: Mapping[str, Any], *, changed: bool) -> Envelope:
    made = {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        DATA: dict(data),
    }
    return made | ({CHANGES: list(data)} if changed else {})


def _envelope(flavor: Flavor, like: Envelope) -> Envelope:
    """A flavor with the version and the fields of `like`; the description is never kept."""
    values = _values(flavor)
    made = {name: value for name, value in like.items() if name != CHANGES}
    made[DATA] = {name: values.get(name) for name in like[DATA]}
    return made


_FIELDS = {
    "id": "id",
    "name": "name",
    "memory_mb": "memory_mb",
    "vcpus": "vcpus",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
    "flavorid": "flavorid",
    "swap": "swap_mb",
    "rxtx_factor": "rxtx_factor",
    "vcpu_weight": "vcpu_weight",
    "disabled": "disabled",
    "is_public": "is_public",
    "extra_specs": "extra_specs",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
"""Field of nova's Flavor -> ours."""


def _values(flavor: Flavor) -> dict[str, Any]:
    values = {theirs: getattr(flavor, ours) for theirs, ours in _FIELDS.items()}
    return values | {"extra_specs": dict(flavor.extra_specs), "deleted": False}


def _flavor(envelope: Envelope) -> Flavor:
    data = envelope[DATA]
    return Flavor(**{ours: data[theirs] for theirs, ours in _FIELDS.items() if theirs in data})
