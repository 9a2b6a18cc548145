"""nova's copy of what Neutron says follows a binding, and is given back byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace

from cellmove.dbcopy.netcache import NetworkCached
from tests.fakes.databases import port_of, snapshot
from tests.unit.dbcopy.conftest import SERVER, Databases

PORT = port_of(SERVER, "cmp1a")
THERE = replace(PORT, host="cmp2a", vif_type="bridge", details={"bridge_name": "brq"})
CACHED = NetworkCached(SERVER, (THERE,))


def text(databases: Databases) -> str:
    with databases.source.read() as rows:
        (row,) = rows.all("instance_info_caches", instance_uuid=SERVER)
    return str(row["network_info"])


def apply(databases: Databases) -> list[str]:
    with databases.source.write() as rows:
        kept = list(CACHED.remember(rows))
        CACHED.apply(rows)
    return kept


def holds(databases: Databases, cached: NetworkCached = CACHED) -> bool:
    with databases.source.read() as rows:
        return cached.holds(rows)


def test_it_holds_when_every_port_is_shown_as_it_is_bound(databases: Databases) -> None:
    assert holds(databases, NetworkCached(SERVER, (PORT,)))
    assert not holds(databases)
    assert not holds(databases, NetworkCached(SERVER, ()))
    apply(databases)
    assert holds(databases)


def test_the_binding_is_rewritten_and_the_network_kept(databases: Databases) -> None:
    (before,) = json.loads(text(databases))
    apply(databases)
    (after,) = json.loads(text(databases))
    assert (after["type"], after["details"]) == ("bridge", {"bridge_name": "brq"})
    assert after["network"] == before["network"] | {"bridge": "brq"}
    assert (after["id"], after["address"]) == (before["id"], before["address"])


def test_the_way_back_is_byte_for_byte_and_twice_is_once(databases: Databases) -> None:
    before = text(databases)
    kept = apply(databases)
    assert text(databases) != before
    for _ in range(2):
        with databases.source.write() as rows:
            CACHED.restore(rows, kept)
        assert text(databases) == before


def test_the_way_back_overwrites_what_nova_wrote_meanwhile(databases: Databases) -> None:
    before = text(databases)
    kept = apply(databases)
    with databases.source.write() as rows:
        rows.change("instance_info_caches", {"network_info": "[]"}, instance_uuid=SERVER)
        CACHED.restore(rows, kept)
    assert text(databases) == before


def test_no_other_row_is_touched(databases: Databases) -> None:
    before = snapshot(databases.source)
    apply(databases)
    after = snapshot(databases.source)
    assert {table for table in before if before[table] != after[table]} == {"instance_info_caches"}
    assert (
        len([row for row in before["instance_info_caches"] if row in after["instance_info_caches"]])
        == 1
    )
