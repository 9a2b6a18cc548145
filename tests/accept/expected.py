"""What nova's own functional tests ask of a server that was resized into another cell.

Source: nova 26, tests/functional/test_cross_cell_migrate.py, `_resize_and_validate` and the
assertions of its scenarios.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cellmove.services.session import Session
from tests.lab.kit.computes import CELL_OF
from tests.lab.kit.nova import MICROVERSION, Nova
from tests.lab.kit.places import host_run, sql
from tests.lab.kit.traces import CELLS, rows

SMALL, LARGE = (128, 1, 2), (160, 1, 3)
"""MiB of memory, VCPUs and GB of root disk of flavor c1, and of c2 and what these tests make."""


@dataclass(frozen=True, slots=True)
class Resize:
    """A resize of one server as its test has asked for it."""

    server: str
    source: str
    target: str
    old: str
    new: str
    volume_root: bool

    @property
    def here(self) -> str:
        """The source cell's database."""
        return f"{CELL_OF[self.source]}.{CELLS[CELL_OF[self.source]]}"

    @property
    def there(self) -> str:
        """The target cell's database."""
        return f"{CELL_OF[self.target]}.{CELLS[CELL_OF[self.target]]}"


def migrations(session: Session, server: str) -> list[dict[str, Any]]:
    """The server's migrations as nova's API shows them, newest first."""
    compute = session.service("compute", MICROVERSION)
    found = compute.get("/os-migrations", instance_uuid=server).body["migrations"]
    return sorted(found, key=lambda each: str(each["created_at"]), reverse=True)


def claimed(consumer: str) -> dict[str, dict[str, int]]:
    """Host -> what Placement holds there for a consumer."""
    query = (
        "SELECT rp.name, rc.name, a.used FROM allocations a"
        " JOIN resource_providers rp ON rp.id = a.resource_provider_id"
        " JOIN resource_classes rc ON rc.id = a.resource_class_id"
        f" WHERE a.consumer_id = '{consumer}'"
    )
    found: dict[str, dict[str, int]] = {}
    for host, resource, used in sql("api.placement", query):
        found.setdefault(host, {})[resource] = int(used)
    return found


def size(flavor: str) -> tuple[int, int, int]:
    """MiB of memory, VCPUs and GB of root disk of a flavor."""
    return SMALL if flavor == "c1" else LARGE


def room(flavor: str, *, volume_root: bool) -> dict[str, int]:
    """What Placement holds for a server of this flavor: no disk when its root is a volume."""
    memory, cpus, disk = size(flavor)
    return {"MEMORY_MB": memory, "VCPU": cpus} | ({} if volume_root else {"DISK_GB": disk})


def guests(server: str) -> dict[str, str]:
    """Hypervisor -> the state of the server's guest there, where there is one."""
    found = {}
    for host in CELL_OF:
        if server in host_run(host, ["virsh", "list", "--all", "--uuid"]):
            found[host] = host_run(host, ["virsh", "domstate", server]).strip()
    return found


def require_resized(nova: Nova, session: Session, move: Resize, *, running: bool) -> None:
    """All of `_resize_and_validate`: the server waits to be confirmed or reverted."""
    _require_shown(nova, move, running=running)
    assert nova.listed(move.server) == ["VERIFY_RESIZE"]
    (migration,) = (m for m in migrations(session, move.server) if m["status"] == "finished")
    assert "cross_cell_move" not in migration
    ends = (migration["source_compute"], migration["dest_compute"])
    assert ends == (move.source, move.target)
    wanted = {move.target: room(move.new, volume_root=move.volume_root)}
    assert claimed(move.server) == wanted
    wanted = {move.source: room(move.old, volume_root=move.volume_root)}
    assert claimed(migration["uuid"]) == wanted
    assert guests(move.server) == {move.target: "running" if running else "shut off"}
    for action in nova.actions(move.server):
        assert nova.events(move.server, action), action
    _require_rows(move)


def _require_shown(nova: Nova, move: Resize, *, running: bool) -> None:
    shown = nova.show(move.server)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == (
        "VERIFY_RESIZE",
        1 if running else 4,
    )
    assert shown["OS-EXT-SRV-ATTR:host"] == move.target
    assert shown["flavor"]["original_name"] == move.new
    assert shown["OS-EXT-AZ:availability_zone"] == "nova"
    assert shown["tags"] == ["blue"]
    assert bool(shown["image"]) is not move.volume_root


def _require_rows(move: Resize) -> None:
    mine = f"instance_uuid = '{move.server}'"
    (row,) = rows(move.there, "instances", f"uuid = '{move.server}'")
    assert (row["memory_mb"], row["vcpus"], row["root_gb"]) == size(move.new)
    assert (row["hidden"], row["availability_zone"]) == (0, "nova")
    (hidden,) = rows(move.here, "instances", f"uuid = '{move.server}'")
    assert hidden["hidden"] == 1
    (extra,) = rows(move.there, "instance_extra", mine)
    kept = json.loads(extra["flavor"])
    names = {which: kept[which]["nova_object.data"]["name"] for which in ("cur", "old", "new")}
    assert names == {"cur": move.new, "old": move.old, "new": move.new}
    assert {each["tag"] for each in rows(move.there, "virtual_interfaces", mine)} == {"private"}
    tags = {each["tag"] for each in rows(move.there, "block_device_mapping", mine)}
    assert ("root" in tags) is move.volume_root


def require_ended(nova: Nova, move: Resize, session: Session, verb: str, events: set[str]) -> None:
    """Confirmed or reverted: history, migration, claims and guest as nova's tests ask."""
    host, flavor = (move.target, move.new) if verb == "confirm" else (move.source, move.old)
    newest = migrations(session, move.server)[0]
    assert newest["status"] == {"confirm": "confirmed", "revert": "reverted"}[verb]
    assert claimed(newest["uuid"]) == {}
    assert claimed(move.server) == {host: room(flavor, volume_root=move.volume_root)}
    assert set(guests(move.server)) == {host}
    action = next(a for a in nova.actions(move.server) if a["action"].startswith(verb))
    found = nova.events(move.server, action)
    assert {each["event"] for each in found} == events
    assert {each["result"] for each in found} == {"Success"}
    assert len(found) == len(events)
    left = move.here if verb == "confirm" else move.there
    assert rows(left, "instances", f"uuid = '{move.server}'") == []
