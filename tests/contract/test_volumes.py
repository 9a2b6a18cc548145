"""What cellmove relies on in Cinder, quirks included (measured on Zed)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest

from cellmove.cloud import Volumes
from cellmove.errors import StepFailed
from cellmove.services.cinder import MICROVERSION, Cinder
from cellmove.services.session import Session
from tests.contract.conftest import BOTH
from tests.fakes.cinder import FakeVolumes
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.volumes import Volumes as LabVolumes

HERE = {"host": "cmp1a", "ip": "10.98.1.11", "mountpoint": "/dev/vdb", "multipath": False}
THERE = {**HERE, "host": "cmp2a"}


class VolumesWorld(Protocol):
    """A Cinder with volumes that nobody has."""

    volumes: Volumes

    def new_volume(self, *, multiattach: bool = False) -> str: ...


class FakeVolumesWorld:
    def __init__(self) -> None:
        self._fake = FakeVolumes()
        self.volumes: Volumes = self._fake

    def new_volume(self, *, multiattach: bool = False) -> str:
        return self._fake.add_volume(multiattach=multiattach)


class RealVolumesWorld:
    def __init__(self, session: Session) -> None:
        self.volumes: Volumes = Cinder(session.service("block-storage", MICROVERSION))
        owner = lab_session(project="demo")
        self._lab = LabVolumes(owner, Nova(owner))
        self._made: list[str] = []

    def new_volume(self, *, multiattach: bool = False) -> str:
        self._made.append(self._lab.make("shared" if multiattach else "nfs"))
        return self._made[-1]

    def close(self, servers: list[str]) -> None:
        for server in servers:
            for attachment in self.volumes.attachments(server):
                self.volumes.delete(attachment.id)
        for volume in self._made:
            self._lab.wait_status(volume, "available")
            self._lab.delete(volume)


SERVERS: list[str] = []


def new_server() -> str:
    """The uuid of a server that nova does not know: Cinder does not mind."""
    SERVERS.append(str(uuid.uuid4()))
    return SERVERS[-1]


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest) -> Iterator[VolumesWorld]:
    SERVERS.clear()
    if request.param == "fake":
        yield FakeVolumesWorld()
        return
    real = RealVolumesWorld(request.getfixturevalue("admin"))
    yield real
    real.close(SERVERS)


def reserved(world: VolumesWorld, volume: str, server: str) -> str:
    """The id of a new reservation."""
    before = {each.id for each in world.volumes.attachments(server)}
    world.volumes.reserve(volume, server)
    (made,) = {each.id for each in world.volumes.attachments(server)} - before
    return made


def statuses(world: VolumesWorld, server: str) -> list[str]:
    return sorted(each.status for each in world.volumes.attachments(server))


def test_attachments_are_offered(world: VolumesWorld) -> None:
    assert world.volumes.has_attachments()


def test_a_reservation_leads_nowhere_and_holds_the_volume(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    attachment = reserved(world, volume, server)
    assert statuses(world, server) == ["reserved"]
    assert world.volumes.all_attachments()[server] == world.volumes.attachments(server)
    assert world.volumes.connection_info(attachment) == {}
    found = world.volumes.volume(volume)
    assert found is not None
    assert (found.status, found.encrypted, found.multiattach) == ("reserved", False, False)
    with pytest.raises(StepFailed):
        world.volumes.reserve(volume, new_server())


def test_an_attachment_goes_from_reserved_over_attaching_to_attached(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    attachment = reserved(world, volume, server)
    world.volumes.connect(attachment, HERE)
    assert statuses(world, server) == ["attaching"]
    world.volumes.complete(attachment)
    world.volumes.complete(attachment)
    assert statuses(world, server) == ["attached"]
    found = world.volumes.volume(volume)
    assert found is not None
    assert found.status == "in-use"


def test_connection_information_is_as_nova_stores_it(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    attachment = reserved(world, volume, server)
    world.volumes.connect(attachment, HERE)
    info = world.volumes.connection_info(attachment)
    assert (info["driver_volume_type"], info["serial"], info["instance"]) == ("nfs", volume, server)
    data = info["data"]
    assert isinstance(data, dict)
    assert data.items() >= {"access_mode": "rw", "name": f"volume-{volume}"}.items()
    assert "attachment_id" not in data


def test_the_same_server_may_reserve_again_while_it_has_the_volume(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    attachment = reserved(world, volume, server)
    world.volumes.connect(attachment, HERE)
    world.volumes.complete(attachment)
    reserved(world, volume, server)
    reserved(world, volume, server)
    assert statuses(world, server) == ["attached", "reserved", "reserved"]


@pytest.mark.parametrize("multiattach", [False, True])
def test_only_a_shareable_volume_is_exported_twice(world: VolumesWorld, multiattach: bool) -> None:
    volume, server = world.new_volume(multiattach=multiattach), new_server()
    first = reserved(world, volume, server)
    world.volumes.connect(first, HERE)
    with pytest.raises(StepFailed):
        world.volumes.reserve(volume, server)
    world.volumes.complete(first)
    second = reserved(world, volume, server)
    if multiattach:
        world.volumes.connect(second, THERE)
        assert statuses(world, server) == ["attached", "attaching"]
    else:
        with pytest.raises(StepFailed):
            world.volumes.connect(second, THERE)
        assert statuses(world, server) == ["attached", "reserved"]


def test_a_further_host_may_have_an_attachment_of_its_own(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    first = reserved(world, volume, server)
    world.volumes.connect(first, HERE)
    world.volumes.complete(first)
    reserved(world, volume, server)
    world.volumes.export(volume, server, THERE)
    assert statuses(world, server) == ["attached", "attaching", "reserved"]
    [second] = [each for each in world.volumes.attachments(server) if each.status == "attaching"]
    world.volumes.complete(second.id)
    assert world.volumes.connection_info(second.id)["serial"] == volume
    world.volumes.delete(first)
    assert statuses(world, server) == ["attached", "reserved"]
    found = world.volumes.volume(volume)
    assert found is not None
    assert found.status == "in-use"
    with pytest.raises(StepFailed):
        world.volumes.export(volume, new_server(), HERE)


def test_a_reservation_takes_over_when_the_other_one_is_deleted(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    first = reserved(world, volume, server)
    world.volumes.connect(first, HERE)
    world.volumes.complete(first)
    second = reserved(world, volume, server)
    world.volumes.delete(first)
    found = world.volumes.volume(volume)
    assert found is not None
    assert found.status == "reserved"
    world.volumes.connect(second, THERE)
    world.volumes.complete(second)
    assert statuses(world, server) == ["attached"]


def test_deleting_twice_is_once(world: VolumesWorld) -> None:
    volume, server = world.new_volume(), new_server()
    attachment = reserved(world, volume, server)
    world.volumes.delete(attachment)
    world.volumes.delete(attachment)
    assert statuses(world, server) == []
    assert world.volumes.connection_info(attachment) == {}


def test_a_volume_that_is_not_there_is_none_and_cannot_be_reserved(world: VolumesWorld) -> None:
    absent = str(uuid.uuid4())
    assert world.volumes.volume(absent) is None
    with pytest.raises(StepFailed):
        world.volumes.reserve(absent, new_server())
