"""A server whose port has a guaranteed rate: who holds what of whom at every stop.

Such a server has an allocation on the host's Open vSwitch too, a provider nested under the host's.
nova refuses to move it across cells. It is stopped here: Placement does not care, and it is quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from cellmove.services.placement import MICROVERSION, Placement
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left, rows, traces
from tests.lab.kit.trouble import sudo_denied
from tests.lab.kit.wires import Wires

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, TARGET = "cmp1b", "cmp2b"
WISH = ("--flavor", "c2", "--to-host", TARGET)
RATE_KBIT = 2000
GUARANTEED = {
    "NET_BW_EGR_KILOBIT_PER_SEC": RATE_KBIT,
    "NET_BW_IGR_KILOBIT_PER_SEC": RATE_KBIT,
}
C1 = {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 2}
C2 = {"VCPU": 1, "MEMORY_MB": 160, "DISK_GB": 3}

Held = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Guaranteed:
    """A stopped server, its one port, and the providers of the two hosts by name."""

    nova: Nova
    wires: Wires
    placement: Placement
    providers: Mapping[str, str]
    server: str
    port: str

    def held(self, consumer: str | None = None) -> Held:
        return self.placement.allocations(consumer or self.server).resources

    def at(self, host: str, amounts: Mapping[str, int]) -> Held:
        """What a server of this flavor holds whose port is served by this host's bridge."""
        return {self.providers[host]: amounts, self.switch(host): GUARANTEED}

    def switch(self, host: str) -> str:
        return self.providers[f"{host}:Open vSwitch agent:br-ex"]

    def served(self, host: str) -> list[str]:
        """The providers that the port's binding at this host names."""
        _, _, profile = self.wires.bindings(self.port)[host]
        return list(profile["allocation"].values())

    def migration(self, cell: str) -> str:
        """Uuid of the server's newest migration, as this cell has it."""
        where = f"instance_uuid = '{self.server}' ORDER BY id DESC LIMIT 1"
        (row,) = rows(f"{cell}.nova_{cell}", "migrations", where)
        return str(row["uuid"])

    def is_home(self) -> None:
        assert self.held() == self.at(SOURCE, C1)
        assert list(self.wires.bindings(self.port)) == [SOURCE]
        assert self.served(SOURCE) == [self.switch(SOURCE)]


@pytest.fixture(scope="module")
def guaranteed(admin_nova: Nova, blank: str) -> Iterator[Guaranteed]:
    session = lab_session(project="demo")
    service = session.service("placement", MICROVERSION)
    listed = service.get("/resource_providers").body["resource_providers"]
    providers = {each["name"]: each["uuid"] for each in listed}
    with Wires.lent(session) as wires:
        policy = wires.policy(RATE_KBIT)
        wish = {"network_id": wires.network("flat1"), "qos_policy_id": policy}
        port = wires.make("/ports", "port", **wish)["id"]
        more = {"imageRef": blank, "networks": [{"port": port}]}
        with admin_nova.lent("rate", SOURCE, more=more) as server:
            admin_nova.stop(server)
            yield Guaranteed(admin_nova, wires, Placement(service), providers, server, port)


def test_nova_gave_the_server_room_on_its_hosts_switch(guaranteed: Guaranteed) -> None:
    guaranteed.is_home()


def test_a_failed_move_gives_all_of_it_back(guaranteed: Guaranteed, cellmove: Cellmove) -> None:
    before = traces(guaranteed.server)
    switches = [guaranteed.switch(host) for host in (SOURCE, TARGET)]
    free = [guaranteed.placement.free(switch) for switch in switches]
    with sudo_denied(TARGET, "/usr/bin/qemu-nbd", guaranteed.server):
        failed = cellmove("resize", guaranteed.server, *WISH, check=False)
    assert failed.code == 3, failed
    assert "wholly taken back" in failed.stderr
    guaranteed.is_home()
    # The migration is gone with its row: what it had held would be missing here.
    assert [guaranteed.placement.free(switch) for switch in switches] == free
    assert traces(guaranteed.server) == before


def test_resized_the_migration_holds_the_source_and_the_server_the_target(
    guaranteed: Guaranteed, cellmove: Cellmove
) -> None:
    done = cellmove("resize", guaranteed.server, *WISH)
    assert "Revert it with cellmove alone" in done.stdout
    assert guaranteed.nova.status(guaranteed.server) == "VERIFY_RESIZE"
    assert guaranteed.held() == guaranteed.at(TARGET, C2)
    assert guaranteed.held(guaranteed.migration("cell2")) == guaranteed.at(SOURCE, C1)
    assert guaranteed.served(TARGET) == [guaranteed.switch(TARGET)]
    assert guaranteed.served(SOURCE) == [guaranteed.switch(SOURCE)]


def test_reverted_the_server_has_its_room_back_and_nobody_holds_another(
    guaranteed: Guaranteed, cellmove: Cellmove
) -> None:
    migration = guaranteed.migration("cell2")
    cellmove("revert", guaranteed.server, "--yes")
    guaranteed.is_home()
    assert guaranteed.held(migration) == {}


def test_confirmed_the_source_is_free_and_deleted_all_is(
    guaranteed: Guaranteed, cellmove: Cellmove
) -> None:
    free = guaranteed.placement.free(guaranteed.switch(SOURCE))
    cellmove("resize", guaranteed.server, *WISH)
    assert guaranteed.placement.free(guaranteed.switch(SOURCE)) == free
    migration = guaranteed.migration("cell2")
    cellmove("confirm", guaranteed.server, "--yes")
    assert guaranteed.held() == guaranteed.at(TARGET, C2)
    assert guaranteed.held(migration) == {}
    after = guaranteed.placement.free(guaranteed.switch(SOURCE))
    assert after == {name: amount + RATE_KBIT for name, amount in free.items()}
    assert list(guaranteed.wires.bindings(guaranteed.port)) == [TARGET]

    cellmove("resize", guaranteed.server, "--to-host", SOURCE)
    migration = guaranteed.migration("cell1")
    guaranteed.nova.confirm(guaranteed.server)
    assert guaranteed.held() == guaranteed.at(SOURCE, C2)
    assert guaranteed.held(migration) == {}
    assert list(guaranteed.wires.bindings(guaranteed.port)) == [SOURCE]
    assert guaranteed.served(SOURCE) == [guaranteed.switch(SOURCE)]
    guaranteed.nova.delete(guaranteed.server)
    nothing_left(guaranteed.server)
