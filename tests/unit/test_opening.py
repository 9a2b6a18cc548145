"""From a configuration to what the hypervisors are told."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from cellmove.cli import early
from cellmove.config import Config, NovaConfig
from cellmove.errors import Refused
from cellmove.hosts.reach import RemoteHosts
from cellmove.opening import Ground, begin_ground, hosts_of, storage_address
from tests.fakes.databases import CELL1, CELL2
from tests.fakes.world import SERVER, World
from tests.unit.rehearsal import Rehearsal

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


class Expecting:
    """Hypervisors to which somebody wants to be let through soon."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.for_volumes: set[str] = set()

    def expect(self, *names: str, volumes: bool = False) -> None:
        self.names |= set(names)
        if volumes:
            self.for_volumes |= set(names)


def foreseen(world: World, server: str, host: str | None = None) -> set[str]:
    """The hosts to which the way is opened for this server."""
    return expected(world, server, host).names


def expected(world: World, server: str, host: str | None = None) -> Expecting:
    """What is expected of hosts for this server."""
    hosts = Expecting()
    cloud = world.cloud
    ids = {CELL1.id: CELL1.uuid, CELL2.id: CELL2.uuid}
    ground = Ground(cloud.api, cloud.cells, ids, cast(RemoteHosts, hosts), lambda: None)
    ground.foresee(server, host)
    return hosts


def test_the_way_is_opened_to_where_a_server_is_and_to_where_it_shall_come(tmp_path: Path) -> None:
    world = World(tmp_path)

    assert foreseen(world, SERVER) == {"cmp1a"}
    assert foreseen(world, SERVER, "cmp2b") == {"cmp1a", "cmp2b"}


@pytest.mark.parametrize("volumes", [False, True])
def test_of_a_server_with_volumes_the_target_is_asked_for_its_connector(
    tmp_path: Path, *, volumes: bool
) -> None:
    world = World(tmp_path)
    if not volumes:
        with world.cells[CELL1.uuid].write() as rows:
            rows.delete("block_device_mapping", instance_uuid=SERVER)

    assert expected(world, SERVER, "cmp2b").for_volumes == ({"cmp2b"} if volumes else set())
    assert expected(world, SERVER).for_volumes == set()


def test_of_a_resized_server_the_way_is_opened_to_both_hosts(tmp_path: Path) -> None:
    world = World(tmp_path)
    Rehearsal(world, "resize")

    assert foreseen(world, SERVER) == {"cmp1a", "cmp2a"}


@pytest.mark.parametrize("server", ["nobody", "9e1b2a6e-0000-4000-8000-000000000000"])
def test_of_a_server_that_nobody_knows_nothing_is_foreseen(tmp_path: Path, server: str) -> None:
    assert foreseen(World(tmp_path), server) == set()


def test_a_database_that_cannot_be_used_is_told_to_who_waits_for_it() -> None:
    ground = begin_ground(Config())  # without a URL

    with pytest.raises(Refused):
        ground()


@pytest.fixture
def collecting() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("collecting")
def test_garbage_is_not_looked_for_before_everything_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session: Any = object()
    seen: list[bool] = []

    def signing_in(*_: object) -> Any:
        seen.append(gc.isenabled())
        return lambda: session

    monkeypatch.setenv("CELLMOVE_DATABASE_URL", "mysql+pymysql://nobody@nowhere/nova_api")
    monkeypatch.setattr(early, "begin_sign_in", signing_in)
    monkeypatch.setattr("cellmove.opening.begin_ground", lambda _config: None)
    monkeypatch.setattr("atexit.register", lambda _call: None)
    begun = early.begin(None)

    assert begun
    assert begun.session() is session
    assert (seen, gc.isenabled()) == ([False], True)
