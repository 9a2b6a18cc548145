"""What cellmove relies on in hypervisors: of the fake, and of the lab's, with guests of our own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest

from cellmove.cloud import Hosts, Hypervisor
from cellmove.errors import StepFailed, Unreachable
from cellmove.hosts.reach import RemoteHosts
from cellmove.hosts.xml import GuestXml
from cellmove.model import Cell, Disk, Flavor, Host, Move, Port, Transfer
from tests.contract.conftest import BOTH
from tests.fakes.hypervisor import FakeFile, FakeHosts
from tests.lab.kit.places import OUTPUTS, host_run

MIB = 1 << 20
SIZE_BYTES = 8 * MIB
INSTANCES = "/var/lib/nova/instances"
SOURCE, TARGET = "cmp1a", "cmp2a"
FLAVOR = Flavor(0, "f", "f", 32, 1, 0, ephemeral_gb=0, swap_mb=0)


class HostsWorld(Protocol):
    """Two hypervisors, and guests on the source that do not boot anything."""

    hosts: Hosts

    def new_server(self) -> Port:
        """A port of a server that is off on the source, with a raw and a qcow2 disk."""
        ...


def uuid_of(port: Port) -> str:
    """The server of a port that `new_server` made: the uuid but for its first digit."""
    return "1" + port.id[1:]


def definition(port: Port) -> str:
    """A guest with two disks and a port; it has nothing to boot from."""
    server = uuid_of(port)
    return f"""<domain type='qemu'>
      <name>contract-{server[:8]}</name>
      <uuid>{server}</uuid>
      <memory unit='MiB'>32</memory>
      <vcpu>1</vcpu>
      <os><type machine='pc'>hvm</type></os>
      <devices>
        <disk type='file' device='disk'>
          <driver name='qemu' type='qcow2'/>
          <source file='{INSTANCES}/{server}/disk'/><target dev='vda' bus='virtio'/>
        </disk>
        <disk type='file' device='disk'>
          <driver name='qemu' type='raw'/>
          <source file='{INSTANCES}/{server}/disk.eph0'/><target dev='vdb' bus='virtio'/>
        </disk>
        <interface type='ethernet'>
          <mac address='{port.mac}'/><target dev='{port.device}'/><model type='virtio'/>
        </interface>
      </devices>
    </domain>"""


def a_port() -> Port:
    return Port("0" + str(uuid.uuid4())[1:], "fa:16:3e:0c:0c:0c", SOURCE, "DOWN", "ovs")


class FakeHostsWorld:
    def __init__(self) -> None:
        self._fake = FakeHosts([SOURCE, TARGET])
        self.hosts: Hosts = self._fake

    def new_server(self) -> Port:
        port = a_port()
        files = {
            "disk": FakeFile("qcow2", SIZE_BYTES, b"1" * 65536),
            "disk.eph0": FakeFile("raw", SIZE_BYTES, b"2" * 65536),
        }
        self._fake.by_name[SOURCE].add_guest(definition(port), files, running=False)
        return port


class RealHostsWorld:
    def __init__(self, hosts: RemoteHosts) -> None:
        self.hosts: Hosts = hosts
        self._made: list[Port] = []

    def new_server(self) -> Port:
        port = a_port()
        self._made.append(port)
        source, server = self.hosts.reach(SOURCE), uuid_of(port)
        source.make_directory(server)
        disks = [Disk("disk", "qcow2", SIZE_BYTES), Disk("disk.eph0", "raw", SIZE_BYTES)]
        for content, disk in enumerate(disks, 1):
            path = source.disk_path(server, disk.name)
            script = (
                f"qemu-img create -q -f {disk.format} {path} {disk.size_bytes} && "
                f"qemu-io -f {disk.format} -c 'write -P {content} 0 64k' {path} >/dev/null && "
                f"chown nova:nova {path}"
            )
            host_run(SOURCE, ["sh", "-c", script])
        source.write_disk_info(server, disks)
        source.define(definition(port))
        return port

    def close(self) -> None:
        for port in self._made:
            for name in (SOURCE, TARGET):
                host = self.hosts.reach(name)
                host.shutdown(uuid_of(port), 0)
                host.undefine(uuid_of(port))
                host.unplug(port)
                host.remove_directory(uuid_of(port))


@pytest.fixture(scope="module")
def lab_hosts() -> Iterator[RemoteHosts]:
    """The lab's hypervisors, reached once."""
    config = str(OUTPUTS / "ssh_config")
    with RemoteHosts(ssh_config=config, bastion="bastion") as hosts:
        yield hosts


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest) -> Iterator[HostsWorld]:
    if request.param == "fake":
        yield FakeHostsWorld()
        return
    real = RealHostsWorld(request.getfixturevalue("lab_hosts"))
    yield real
    real.close()


@pytest.fixture
def source(world: HostsWorld) -> Hypervisor:
    return world.hosts.reach(SOURCE)


@pytest.fixture
def target(world: HostsWorld) -> Hypervisor:
    return world.hosts.reach(TARGET)


def state(host: Hypervisor, port: Port) -> str:
    domain = host.domain(uuid_of(port))
    return domain.state if domain else "unknown"


def move_of(port: Port) -> Move:
    """A move as far as hypervisors are concerned."""
    source, target = (
        Host(name, name, 0, "", "", "nova", Cell(0, "", "")) for name in (SOURCE, TARGET)
    )
    return Move(
        id="",
        request_id="",
        server=uuid_of(port),
        name="",
        project_id="",
        user_id="",
        actor_user_id="",
        actor_project_id="",
        conductor="",
        kind="resize",
        source=source,
        target=target,
        migration="",
        old_flavor=FLAVOR,
        new_flavor=FLAVOR,
        vm_state="stopped",
        power_state=4,
        ports=(port,),
        disks=(),
        source_domain="",
        domain_template="",
        started_at="",
    )


def nobody(_transfer: Transfer) -> None:
    """Somebody who does not watch."""


def test_an_unknown_host_is_unreachable(world: HostsWorld) -> None:
    with pytest.raises(Unreachable):
        world.hosts.reach("cmp9z")


def test_of_an_unknown_server_a_host_has_nothing(target: Hypervisor) -> None:
    port = a_port()
    server = uuid_of(port)

    assert target.domain(server) is None
    assert target.disks(server) == ()
    assert not target.has_directory(server)
    assert not target.plugged(port)
    assert not target.wired(port)


def test_taking_away_what_is_not_there_does_nothing(target: Hypervisor) -> None:
    port = a_port()

    target.shutdown(uuid_of(port), 1)
    target.undefine(uuid_of(port))
    target.unplug(port)
    target.remove_directory(uuid_of(port))


def test_a_defined_guest_is_off_and_has_its_definition(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    source.define(definition(port))

    domain = source.domain(uuid_of(port))
    assert domain is not None
    assert (domain.uuid, domain.state) == (uuid_of(port), "off")
    assert domain.name == f"contract-{uuid_of(port)[:8]}"
    assert GuestXml(domain.xml).interfaces[0].mac == port.mac


def test_a_guest_starts_once_runs_and_is_switched_off(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    for _ in range(2):
        source.start(uuid_of(port))
    assert state(source, port) == "running"

    for _ in range(2):
        source.shutdown(uuid_of(port), 0)
    assert state(source, port) == "off"


def test_a_guest_that_ignores_the_power_button_is_off_in_time(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    source.start(uuid_of(port))

    source.shutdown(uuid_of(port), 1)

    assert state(source, port) == "off"


def test_a_guest_that_starts_paused_runs_when_it_is_resumed(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    for _ in range(2):
        source.start(uuid_of(port), paused=True)
    assert state(source, port) == "paused"
    source.start(uuid_of(port))
    assert state(source, port) == "paused"

    for _ in range(2):
        source.resume(uuid_of(port))
    assert state(source, port) == "running"


def test_a_guest_that_is_off_is_not_resumed(world: HostsWorld, source: Hypervisor) -> None:
    port = world.new_server()

    with pytest.raises(StepFailed):
        source.resume(uuid_of(port))
    with pytest.raises(StepFailed):
        source.resume(uuid_of(a_port()))


def test_a_guest_that_nobody_defined_is_not_started(target: Hypervisor) -> None:
    with pytest.raises(StepFailed):
        target.start(uuid_of(a_port()))


def test_a_guest_whose_disk_is_missing_does_not_start(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    source.remove_disk(uuid_of(port), "disk")

    with pytest.raises(StepFailed):
        source.start(uuid_of(port))
    assert state(source, port) == "off"


def test_a_guest_that_runs_is_not_forgotten(world: HostsWorld, source: Hypervisor) -> None:
    port = world.new_server()
    source.start(uuid_of(port))

    with pytest.raises(StepFailed):
        source.undefine(uuid_of(port))
    assert state(source, port) == "running"


def test_a_forgotten_guest_leaves_its_disks(world: HostsWorld, source: Hypervisor) -> None:
    port = world.new_server()
    source.undefine(uuid_of(port))

    assert state(source, port) == "unknown"
    assert [disk.name for disk in source.disks(uuid_of(port))] == ["disk", "disk.eph0"]


def test_a_guest_that_runs_can_be_defined_anew(world: HostsWorld, source: Hypervisor) -> None:
    port = world.new_server()
    source.start(uuid_of(port))

    source.define(GuestXml(definition(port)).resized(memory_mb=48, vcpus=1).text)

    domain = source.domain(uuid_of(port))
    assert domain is not None
    assert domain.state == "running"
    assert ">49152<" in domain.xml


def test_two_guests_do_not_share_a_name(world: HostsWorld, source: Hypervisor) -> None:
    port, other = world.new_server(), world.new_server()
    name = GuestXml(definition(other)).name

    with pytest.raises(StepFailed):
        source.define(GuestXml(definition(a_port())).renamed(name).text)
    with pytest.raises(StepFailed):
        source.define(GuestXml(definition(port)).renamed("another").text)


def test_a_port_is_wired_when_it_is_plugged_and_its_guest_is_on(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    for _ in range(2):
        source.plug(uuid_of(port), port)
    assert source.plugged(port)
    assert not source.wired(port)

    source.start(uuid_of(port), paused=True)
    assert source.wired(port)

    source.shutdown(uuid_of(port), 0)
    assert source.plugged(port)
    assert not source.wired(port)
    for _ in range(2):
        source.unplug(port)
    assert not source.plugged(port)


def test_a_running_guest_without_a_plugged_port_is_not_wired(
    world: HostsWorld, source: Hypervisor
) -> None:
    port = world.new_server()
    source.start(uuid_of(port), paused=True)

    assert not source.wired(port)


def test_disks_are_told_by_name_format_and_size(world: HostsWorld, source: Hypervisor) -> None:
    root, ephemeral = source.disks(uuid_of(world.new_server()))

    assert (root.name, root.format, root.size_bytes) == ("disk", "qcow2", SIZE_BYTES)
    assert (ephemeral.name, ephemeral.format) == ("disk.eph0", "raw")
    assert root.allocated_bytes > 0


def test_a_directory_is_made_and_removed(world: HostsWorld, target: Hypervisor) -> None:
    server = uuid_of(world.new_server())
    for _ in range(2):
        target.make_directory(server)
    assert target.has_directory(server)
    assert target.disks(server) == ()
    assert target.disk_info(server) == {}
    target.write_disk_info(server, [Disk("disk", "qcow2", SIZE_BYTES)])
    assert target.disk_info(server) == {"disk": "qcow2"}
    assert target.disks(server) == ()

    for _ in range(2):
        target.remove_directory(server)
    assert not target.has_directory(server)
    assert target.disk_info(server) == {}


def test_without_a_directory_no_note_is_written(target: Hypervisor) -> None:
    with pytest.raises(StepFailed):
        target.write_disk_info(uuid_of(a_port()), [Disk("disk", "qcow2", SIZE_BYTES)])


def test_one_disk_is_removed_and_the_others_stay(world: HostsWorld, source: Hypervisor) -> None:
    server = uuid_of(world.new_server())
    for _ in range(2):
        source.remove_disk(server, "disk.eph0")

    assert [disk.name for disk in source.disks(server)] == ["disk"]


@pytest.mark.parametrize("growth", [0, MIB])
def test_a_copied_disk_has_its_format_and_the_size_that_was_asked_for(
    world: HostsWorld, source: Hypervisor, target: Hypervisor, growth: int
) -> None:
    port = world.new_server()
    target.make_directory(uuid_of(port))
    told: list[Transfer] = []
    for disk in source.disks(uuid_of(port)):
        world.hosts.copy_disk(move_of(port), disk, disk.size_bytes + growth, told.append)

    arrived = target.disks(uuid_of(port))
    assert [(d.name, d.format, d.size_bytes - growth) for d in arrived] == [
        ("disk", "qcow2", SIZE_BYTES),
        ("disk.eph0", "raw", SIZE_BYTES),
    ]
    ends = [t for t in told if t.done_bytes == t.total_bytes > 0]
    assert {t.disk for t in ends} == {"disk", "disk.eph0"}
    assert len(source.disks(uuid_of(port))) == 2


def test_a_disk_of_a_running_guest_is_not_copied(
    world: HostsWorld, source: Hypervisor, target: Hypervisor
) -> None:
    port = world.new_server()
    target.make_directory(uuid_of(port))
    root, _ = source.disks(uuid_of(port))
    source.start(uuid_of(port))

    with pytest.raises(StepFailed):
        world.hosts.copy_disk(move_of(port), root, root.size_bytes, nobody)
    assert target.disks(uuid_of(port)) == ()


def test_a_disk_goes_nowhere_without_a_directory(
    world: HostsWorld, source: Hypervisor, target: Hypervisor
) -> None:
    port = world.new_server()
    root, _ = source.disks(uuid_of(port))

    with pytest.raises(StepFailed):
        world.hosts.copy_disk(move_of(port), root, root.size_bytes, nobody)
    assert not target.has_directory(uuid_of(port))


@pytest.mark.parametrize(
    ("name", "size_bytes"), [("disk", SIZE_BYTES - MIB), ("disk.local", SIZE_BYTES)]
)
def test_a_disk_that_would_shrink_or_is_not_there_is_not_copied(
    world: HostsWorld, target: Hypervisor, name: str, size_bytes: int
) -> None:
    port = world.new_server()
    target.make_directory(uuid_of(port))

    disk = Disk(name, "qcow2", SIZE_BYTES)
    with pytest.raises(StepFailed):
        world.hosts.copy_disk(move_of(port), disk, size_bytes, nobody)
    assert target.disks(uuid_of(port)) == ()


def test_there_is_room(source: Hypervisor) -> None:
    assert source.free_bytes() > SIZE_BYTES
