"""From a configuration to what the hypervisors are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellmove.config import Config, NovaConfig
from cellmove.opening import hosts_of, storage_address
from tests.fakes.world import World

OWN = Config(nova=NovaConfig(block_storage_ips=("cmp1a=192.0.2.99", "other=2001:db8::1")))


@pytest.mark.parametrize(
    ("host", "address"),
    [("cmp1a", "192.0.2.99"), ("other", "2001:db8::1"), ("cmp9z", "")],
)
def test_a_host_has_the_storage_address_that_is_configured(
    tmp_path: Path, host: str, address: str
) -> None:
    assert storage_address(OWN, World(tmp_path).cloud.cells, host) == address


@pytest.mark.parametrize("host", ["cmp1a", "cmp2b"])
def test_else_a_host_has_the_address_that_nova_knows(tmp_path: Path, host: str) -> None:
    cells = World(tmp_path).cloud.cells
    known = []
    for cell in cells.values():
        with cell.read() as rows:
            known += [row["host_ip"] for row in rows.all("compute_nodes", host=host, deleted=0)]

    assert [storage_address(Config(), cells, host)] == known


def test_nobody_is_asked_for_an_address_before_it_is_needed() -> None:
    hosts_of(OWN, {}).close()
