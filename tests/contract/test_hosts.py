"""What cellmove relies on in hypervisors: of the fake, and of the lab's, with guests of our own."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from cellmove.cloud import Hosts, Hypervisor
from cellmove.errors import StepFailed, Unreachable
from cellmove.hosts.backup import Checkpoint
from cellmove.hosts.blocks import ConnectionInfo, data_of, with_volumes
from cellmove.hosts.connect import STORAGE, mount_path
from cellmove.hosts.reach import RemoteHosts
from cellmove.hosts.xml import GuestXml
from cellmove.model import Disk, Flavor, Move, Port, Transfer
from tests.contract.conftest import BOTH
from tests.fakes.hypervisor import FakeFile, FakeHosts
from tests.lab.kit.hosts import SOURCE, TARGET, guest_state, move_between, nobody
from tests.lab.kit.places import OUTPUTS, STATE, host_run

MIB = 1 << 20
SIZE_BYTES = 8 * MIB
INSTANCES = "/var/lib/nova/instances"
FLAVOR = Flavor(0, "f", "f", 32, 1, 0, ephemeral_gb=0, swap_mb=0)


class HostsWorld(Protocol):
    """Two hypervisors, and guests on the source that do not boot anything."""

    hosts: Hosts

    def new_server(self) -> Port:
        """A port of a server that is off on the source, with a raw and a qcow2 disk."""
        ...

    def new_volume(self) -> ConnectionInfo:
        """A file on an NFS export of its own, which no host has mounted."""
        ...

    def new_secret(self) -> str:
        """The uuid of a Ceph secret that the source's libvirt keeps, and no other."""
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


def an_nfs_volume(export: str) -> ConnectionInfo:
    volume = str(uuid.uuid4())
    data = {"export": export, "name": f"volume-{volume}", "format": "raw", "options": None}
    return {"driver_volume_type": "nfs", "serial": volume, "data": data}


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

    def new_volume(self) -> ConnectionInfo:
        return an_nfs_volume("192.0.2.1:/srv/volumes")

    def new_secret(self) -> str:
        secret = str(uuid.uuid4())
        self._fake.by_name[SOURCE].secrets.add(secret)
        return secret


class RealHostsWorld:
    def __init__(self, hosts: RemoteHosts) -> None:
        self.hosts: Hosts = hosts
        self._made: list[Port] = []
        self._volumes: list[ConnectionInfo] = []
        self._secrets: list[str] = []

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

    def new_volume(self) -> ConnectionInfo:
        share = (STATE / "etc" / "nfs_shares").read_text().strip()
        folder = f"contract-{uuid.uuid4()}"
        info = an_nfs_volume(f"{share}/{folder}")
        self._volumes.append(info)
        place = STATE / "nfs" / folder
        place.mkdir(mode=0o755)
        with (place / str(data_of(info)["name"])).open("wb") as file:
            file.truncate(SIZE_BYTES)
        return info

    def new_secret(self) -> str:
        secret = str(uuid.uuid4())
        usage = f"<usage type='ceph'><name>contract {secret}</name></usage>"
        xml = f"<secret ephemeral='yes'><uuid>{secret}</uuid>{usage}</secret>"
        script = 'echo "$1" | virsh -q secret-define /dev/stdin'
        host_run(SOURCE, ["sh", "-c", script, "sh", xml])
        self._secrets.append(secret)
        return secret

    def _forget_volumes(self) -> None:
        for info in self._volumes:
            path = mount_path(STORAGE.mounts_path, info)
            script = '! mountpoint -q "$1" || umount "$1" && rm -rf "$1"'
            for name in (SOURCE, TARGET):
                host_run(name, ["sh", "-c", script, "sh", path])
            shutil.rmtree(STATE / "nfs" / str(data_of(info)["export"]).rpartition("/")[2])
        for secret in self._secrets:
            host_run(SOURCE, ["virsh", "-q", "secret-undefine", secret])

    def close(self) -> None:
        self._close_guests()
        self._forget_volumes()

    def _close_guests(self) -> None:
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
    return guest_state(host, uuid_of(port))


def move_of(port: Port) -> Move:
    return move_between(uuid_of(port), port, FLAVOR)


def warm_move(port: Port, *disks: Disk) -> Move:
    return replace(move_of(port), id=str(uuid.uuid4()), disks=disks)


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
    for _ in range(2):
        source.pause(uuid_of(port))
    assert state(source, port) == "paused"


def test_a_guest_that_is_off_is_not_resumed(world: HostsWorld, source: Hypervisor) -> None:
    port = world.new_server()

    source.pause(uuid_of(port))  # nothing to do
    source.pause(uuid_of(a_port()))
    assert state(source, port) == "off"
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


def test_a_running_guests_disk_is_copied_and_its_notes_go_before_the_guest_does(
    world: HostsWorld, source: Hypervisor, target: Hypervisor
) -> None:
    port = world.new_server()
    server = uuid_of(port)
    target.make_directory(server)
    root = replace(source.disks(server)[0], warm=True)
    move = warm_move(port, root)
    source.start(server)
    assert source.why_cold(server, (root,)) == {"disk": ""}

    world.hosts.precopy(move, {"disk": SIZE_BYTES + MIB}, nobody)
    assert (target.halves(server), target.disks(server)) == (("disk",), ())
    (noted,) = map(Checkpoint.named, source.checkpoints(server))
    assert noted
    assert (noted.move, noted.number > 0) == (move.id[:8], True)

    source.shutdown(server, 0)
    world.hosts.copy_disk(move, root, SIZE_BYTES + MIB, nobody)
    (arrived,) = target.disks(server)
    assert (arrived.size_bytes, target.halves(server)) == (SIZE_BYTES + MIB, ())
    with pytest.raises(StepFailed):
        source.undefine(server)
    source.forget_writes(server, (root,))
    source.forget_writes(server, (root,))
    assert source.checkpoints(server) == ()
    source.undefine(server)


def test_the_notes_of_a_running_guest_are_deleted_and_it_runs_on(
    world: HostsWorld, source: Hypervisor, target: Hypervisor
) -> None:
    port = world.new_server()
    server = uuid_of(port)
    target.make_directory(server)
    root = replace(source.disks(server)[0], warm=True)
    source.start(server)
    world.hosts.precopy(warm_move(port, root), {"disk": SIZE_BYTES}, nobody)

    source.forget_writes(server, (root,))

    assert source.checkpoints(server) == ()
    assert state(source, port) == "running"


def test_a_guest_that_is_off_has_nothing_to_pre_copy(
    world: HostsWorld, source: Hypervisor, target: Hypervisor
) -> None:
    port = world.new_server()
    target.make_directory(uuid_of(port))
    root = replace(source.disks(uuid_of(port))[0], warm=True)

    with pytest.raises(StepFailed):
        world.hosts.precopy(warm_move(port, root), {"disk": SIZE_BYTES}, nobody)
    source.forget_writes(uuid_of(port), (root,))
    assert source.checkpoints(uuid_of(port)) == ()


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


def test_a_connector_names_the_host_as_nova_does(source: Hypervisor, target: Hypervisor) -> None:
    one, other = source.connector(), target.connector()

    assert (one["host"], other["host"]) == (SOURCE, TARGET)
    assert (one["platform"], one["os_type"], one["multipath"]) == ("x86_64", "linux", False)
    assert str(one["initiator"]).startswith("iqn.")
    assert source.connector() == one


def test_a_volume_is_connected_once_and_its_mount_stays(
    world: HostsWorld, target: Hypervisor
) -> None:
    info = world.new_volume()
    assert target.volume_obstacle(info) == ""
    assert not target.volume_connected(info)
    target.disconnect_volume(info)

    done = [target.connect_volume(info) for _ in range(2)]

    where = f"{mount_path(STORAGE.mounts_path, info)}/{data_of(info)['name']}"
    assert done == [{**info, "data": {**data_of(info), "device_path": where}}] * 2
    assert target.volume_connected(info)
    assert not world.hosts.reach(SOURCE).volume_connected(info)
    for _ in range(2):
        target.disconnect_volume(done[0])
    assert target.volume_connected(info)


def test_a_guest_starts_with_its_volume_connected_and_not_without(
    world: HostsWorld, source: Hypervisor
) -> None:
    port, info = world.new_server(), world.new_volume()
    path = f"{mount_path(STORAGE.mounts_path, info)}/{data_of(info)['name']}"
    there: ConnectionInfo = {**info, "data": {**data_of(info), "device_path": path}}
    source.define(with_volumes(definition(port), {str(info["serial"]): there}))
    with pytest.raises(StepFailed):
        source.start(uuid_of(port))

    source.connect_volume(info)
    source.start(uuid_of(port))

    assert state(source, port) == "running"
    domain = source.domain(uuid_of(port))
    assert domain is not None
    assert path in GuestXml(domain.xml).disk_paths


def test_an_image_in_ceph_wants_a_secret_of_the_host(
    world: HostsWorld, source: Hypervisor, target: Hypervisor
) -> None:
    secret = world.new_secret()
    data = {"name": "volumes/x", "auth_enabled": True, "auth_username": "c", "secret_uuid": secret}
    info = {"driver_volume_type": "rbd", "serial": str(uuid.uuid4()), "data": data}

    assert source.volume_obstacle(info) == ""
    assert source.volume_connected(info)
    assert dict(data_of(source.connect_volume(info))) == data
    source.disconnect_volume(info)
    assert secret in target.volume_obstacle(info)
    with pytest.raises(StepFailed, match=secret):
        target.connect_volume(info)


def test_a_target_of_iscsi_that_nobody_signed_in_to_is_let_go(target: Hypervisor) -> None:
    data = {"target_portal": "192.0.2.1:3260", "target_iqn": "iqn.2026-11.x:y", "target_lun": 1}
    info = {"driver_volume_type": "iscsi", "serial": str(uuid.uuid4()), "data": data}

    assert not target.volume_connected(info)
    target.disconnect_volume(info)


def test_a_volume_of_another_kind_is_not_connected(target: Hypervisor) -> None:
    info: ConnectionInfo = {"driver_volume_type": "lightos", "serial": "", "data": {}}

    assert "lightos" in target.volume_obstacle(info)
    with pytest.raises(StepFailed, match="lightos"):
        target.connect_volume(info)
    target.disconnect_volume(info)
    assert not target.volume_connected(info)
