"""The lab's hypervisors through cellmove's hands: a server that nova made and stopped."""

from __future__ import annotations

import json
import posixpath
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cellmove.errors import StepFailed, Unreachable
from cellmove.hosts.connect import Storage
from cellmove.hosts.hypervisor import RemoteHypervisor
from cellmove.hosts.openssh import configuration
from cellmove.hosts.reach import RemoteHosts
from cellmove.hosts.transfer import carry
from cellmove.hosts.xml import GuestXml, for_target
from cellmove.model import Disk, Flavor, Move, Port, Transfer
from tests.lab.kit.guest import GuestWatch
from tests.lab.kit.hosts import SOURCE, TARGET, guest_state, move_between, nobody
from tests.lab.kit.nova import Nova
from tests.lab.kit.places import OUTPUTS, host_run, received_bytes

pytestmark = pytest.mark.lab

GIB = 1 << 30
C2 = Flavor(0, "c2", "c2", 160, 1, 3, ephemeral_gb=0, swap_mb=0)
SETTINGS: dict[str, Any] = {"ssh_config": str(OUTPUTS / "ssh_config"), "bastion": "bastion"}


@dataclass(frozen=True, slots=True)
class Stopped:
    """A server that nova made on the source and stopped."""

    uuid: str
    domain_name: str
    port: Port


@pytest.fixture(scope="module")
def hosts() -> Iterator[RemoteHosts]:
    with RemoteHosts(**SETTINGS) as reached:
        yield reached


@pytest.fixture(scope="module")
def server(admin_nova: Nova) -> Iterator[Stopped]:
    uuid = admin_nova.boot("hosts", SOURCE)
    admin_nova.servers.remove(uuid)  # It lives as long as the tests of this file.
    (port,) = admin_nova.ports(uuid)
    watch = GuestWatch(uuid, port["mac_address"])
    first = watch.wait_heartbeat(SOURCE, 0)
    while first.count > next(iter(watch.heartbeats(time.time() - 1)), first).count - 30:
        time.sleep(0.5)  # Some records are written now.
    admin_nova.stop(uuid)
    name = admin_nova.show(uuid)["OS-EXT-SRV-ATTR:instance_name"]
    yield Stopped(uuid, name, Port(port["id"], port["mac_address"], SOURCE, "DOWN", "ovs"))
    admin_nova.delete(uuid)


@pytest.fixture
def source(hosts: RemoteHosts) -> RemoteHypervisor:
    return hosts.reach(SOURCE)


@pytest.fixture
def target(hosts: RemoteHosts, server: Stopped) -> Iterator[RemoteHypervisor]:
    """The target, with the root disk's image and an empty directory for the server.

    It does not know the server afterwards.
    """
    reached = hosts.reach(TARGET)
    reached.make_directory(server.uuid)
    for disk in hosts.reach(SOURCE).disks(server.uuid):
        if disk.base:
            hosts.bring_base(move_of(server), disk.base, nobody)
    yield reached
    reached.shutdown(server.uuid, 0)
    reached.undefine(server.uuid)
    reached.unplug(server.port)
    reached.remove_directory(server.uuid)


def move_of(server: Stopped, source: str = SOURCE, target: str = TARGET) -> Move:
    return move_between(server.uuid, server.port, C2, source, target)


def leftovers(host: str) -> str:
    """Servers of disks and their sockets, which end with a copy."""
    script = "ls -A /var/lib/cellmove; ps -eo args | grep -E '[q]emu-nbd|[c]ellmove-hash' || true"
    return host_run(host, ["sh", "-c", script])


def content_hash(host: str, path: str) -> str:
    """Hash of all that a guest sees of a disk, read by QEMU and not by us."""
    program = "import hashlib, sys; print(hashlib.file_digest(sys.stdin.buffer, 'sha256').digest())"
    script = 'raw=/var/tmp/raw; qemu-img convert -O raw "$1" $raw; python3 -c "$2" <$raw; rm $raw'
    return host_run(host, ["sh", "-c", script, "sh", path, program])


def test_a_server_is_seen_as_nova_left_it(source: RemoteHypervisor, server: Stopped) -> None:
    domain = source.domain(server.uuid)

    assert domain is not None
    assert (domain.name, domain.state) == (server.domain_name, "off")
    assert GuestXml(domain.xml).unsupported() == ()
    (interface,) = GuestXml(domain.xml).interfaces
    assert (interface.mac, interface.device) == (server.port.mac, server.port.device)


def test_its_disks_are_seen_with_their_formats_and_sizes(
    source: RemoteHypervisor, server: Stopped
) -> None:
    root, config = source.disks(server.uuid)

    assert (root.name, root.format, root.size_bytes) == ("disk", "qcow2", 2 * GIB)
    assert (config.name, config.format) == ("disk.config", "raw")
    own = host_run(SOURCE, ["stat", "-c", "%b", source.disk_path(server.uuid, "disk")])
    assert root.allocated_bytes > int(own) * 512  # The image that nova made it from counts, too.


def test_a_host_that_never_had_the_server_knows_nothing(
    hosts: RemoteHosts, server: Stopped
) -> None:
    other = hosts.reach("cmp2b")

    assert other.domain(server.uuid) is None
    assert not other.has_directory(server.uuid)
    assert other.disks(server.uuid) == ()
    assert not other.plugged(server.port)
    assert not other.wired(server.port)
    assert other.free_bytes() > GIB


def test_what_is_taken_away_twice_is_taken_away_once(hosts: RemoteHosts, server: Stopped) -> None:
    other = hosts.reach("cmp2b")
    for _ in range(2):
        other.undefine(server.uuid)
        other.shutdown(server.uuid, 1)
        other.unplug(server.port)
        other.remove_directory(server.uuid)

    assert not other.has_directory(server.uuid)


def test_a_directory_is_made_as_nova_makes_it(
    source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    target.make_directory(server.uuid)
    target.write_disk_info(server.uuid, [Disk("disk", "qcow2", 1)])

    def seen(hypervisor: RemoteHypervisor) -> list[str]:
        disk = hypervisor.disk_path(server.uuid, "disk")
        note = posixpath.join(posixpath.dirname(disk), "disk.info")
        command = ["stat", "-c", "%U:%G %a", posixpath.dirname(disk), note]
        text = host_run(hypervisor.name, ["cat", note])
        return [*host_run(hypervisor.name, command).splitlines(), text]

    assert seen(target) == seen(source)


def test_all_disks_arrive_in_the_other_cell_as_they_were(
    hosts: RemoteHosts, source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    told: list[Transfer] = []
    for disk in source.disks(server.uuid):
        hosts.copy_disk(move_of(server), disk, disk.size_bytes, told.append)

        path = source.disk_path(server.uuid, disk.name)
        assert content_hash(TARGET, path) == content_hash(SOURCE, path)
        owner = host_run(TARGET, ["stat", "-c", "%U:%G %a", path]).strip()
        assert owner == "nova:nova 644"

    arrived = target.disks(server.uuid)
    assert [(d.name, d.format) for d in arrived] == [("disk", "qcow2"), ("disk.config", "raw")]
    assert {t.disk for t in told if t.done_bytes == t.total_bytes} == {"disk", "disk.config"}
    assert leftovers(SOURCE) == leftovers(TARGET) == ""


def test_a_disk_sent_flat_needs_no_backing_file_and_may_grow(
    hosts: RemoteHosts, source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    root, _ = source.disks(server.uuid)
    hosts.copy_disk(move_of(server), replace(root, why_flat="asked"), 3 * GIB, nobody)

    (arrived,) = target.disks(server.uuid)
    assert arrived.size_bytes == 3 * GIB
    assert arrived.allocated_bytes < GIB
    path = target.disk_path(server.uuid, "disk")
    assert "backing file" not in host_run(TARGET, ["qemu-img", "info", path])


def test_a_disk_is_removed_with_what_an_earlier_try_left_of_it(
    target: RemoteHypervisor, server: Stopped
) -> None:
    target.begin_disk(server.uuid, Disk("disk", "qcow2", GIB), GIB)
    target.finish_disk(server.uuid, Disk("disk", "qcow2", GIB))
    target.begin_disk(server.uuid, Disk("disk", "qcow2", GIB), GIB)
    for _ in range(2):
        target.remove_disk(server.uuid, "disk")

    directory = posixpath.dirname(target.disk_path(server.uuid, "disk"))
    assert host_run(TARGET, ["ls", "-A", directory]) == ""


def test_nothing_of_a_copy_outlives_who_asked_for_it(
    source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    root, _ = source.disks(server.uuid)
    target.begin_disk(server.uuid, root, root.size_bytes)
    ends = (source.reading_end(server.uuid, root), target.writing_end(server.uuid, root))
    program = (
        "from cellmove.hosts.openssh import configuration\n"
        "from cellmove.hosts.transfer import End, carry\n"
        f"config = configuration({SETTINGS['ssh_config']!r}, 'bastion')\n"
        f"carry(*{ends!r}, config, lambda done, total: print(done, flush=True))\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        process.stdout.readline()
        process.kill()

    deadline = time.monotonic() + 30
    while (left := leftovers(SOURCE) + leftovers(TARGET)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == ""
    assert target.disks(server.uuid) == ()  # Half a disk is no disk.


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_the_next_try_goes_over_what_a_broken_one_left(
    hosts: RemoteHosts,
    source: RemoteHypervisor,
    target: RemoteHypervisor,
    server: Stopped,
    image_format: str,
) -> None:
    root, _ = source.disks(server.uuid)
    target.begin_disk(server.uuid, replace(root, format=image_format, base=""), GIB)
    half = f"{target.disk_path(server.uuid, 'disk')}.cellmove"
    host_run(TARGET, ["qemu-io", "-f", image_format, "-c", "write -P 9 1M 64k", half])

    hosts.copy_disk(move_of(server), root, root.size_bytes, nobody)

    assert [disk.name for disk in target.disks(server.uuid)] == ["disk"]


def test_what_a_copy_had_brought_when_it_broke_off_does_not_cross_again(
    hosts: RemoteHosts, source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    root = replace(source.disks(server.uuid)[0], why_flat="asked")
    target.begin_disk(server.uuid, root, root.size_bytes)
    ends = source.reading_end(server.uuid, root), target.writing_end(server.uuid, root)
    begun = received_bytes(TARGET)
    carry(*ends, configuration(SETTINGS["ssh_config"], "bastion"), lambda _done, _total: None)
    first = received_bytes(TARGET) - begun

    hosts.copy_disk(move_of(server), root, root.size_bytes, nobody)

    assert received_bytes(TARGET) - begun - first < first / 10
    path = source.disk_path(server.uuid, "disk")
    assert content_hash(TARGET, path) == content_hash(SOURCE, path)


def test_a_port_is_plugged_as_nova_did_it_on_the_source(
    source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    def record(host: str) -> str:
        command = ["ovs-vsctl", "get", "Interface", server.port.device, "external_ids", "type"]
        return host_run(host, command)

    assert source.plugged(server.port)
    assert not source.wired(server.port)  # Its guest is off.
    for _ in range(2):
        target.plug(server.uuid, server.port)

    assert target.plugged(server.port)
    assert not target.wired(server.port)
    assert record(TARGET) == record(SOURCE)
    target.unplug(server.port)
    assert not target.plugged(server.port)


def test_the_guest_runs_on_the_target_with_its_data(
    hosts: RemoteHosts, source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    domain = source.domain(server.uuid)
    assert domain is not None
    watch = GuestWatch(server.uuid, server.port.mac)
    for disk in source.disks(server.uuid):
        hosts.copy_disk(move_of(server), disk, disk.size_bytes, nobody)
    directory = posixpath.dirname(source.disk_path(server.uuid, "disk"))
    definition = for_target(
        domain.xml,
        domain_name="instance-7fffffff",
        flavor=C2,
        old_dir=directory,
        new_dir=directory,
    )
    target.plug(server.uuid, server.port)
    for _ in range(2):
        target.define(definition)
        target.start(server.uuid, paused=True)

    assert guest_state(target, server.uuid) == "paused"
    assert target.wired(server.port)
    for _ in range(2):
        target.resume(server.uuid)
        target.start(server.uuid)
    assert guest_state(target, server.uuid) == "running"
    with pytest.raises(StepFailed, match="still runs"):
        target.undefine(server.uuid)
    back = move_of(server, TARGET, SOURCE)
    with pytest.raises(StepFailed, match="running"):
        hosts.copy_disk(back, Disk("disk", "qcow2", 2 * GIB), 2 * GIB, nobody)

    wait_for_console(watch, "last record")
    assert watch.golden(TARGET)
    assert watch.record_found(TARGET)
    target.shutdown(server.uuid, 60)
    assert guest_state(target, server.uuid) == "off"
    assert "GUEST stopping" in watch.console(TARGET)  # It was asked, not cut off.


def test_a_guest_that_cannot_start_is_told_and_stays_off(
    source: RemoteHypervisor, target: RemoteHypervisor, server: Stopped
) -> None:
    domain = source.domain(server.uuid)
    assert domain is not None
    target.define(GuestXml(domain.xml).renamed("instance-7ffffffe").text)

    with pytest.raises(StepFailed, match=r"refused.*disk"):
        target.start(server.uuid)
    assert guest_state(target, server.uuid) == "off"


@pytest.mark.parametrize("command", [["/bin/sh", "-c", "id"], ["/usr/bin/cat", "/etc/shadow"]])
@pytest.mark.parametrize("user", ["nova", "root"])
def test_what_sudo_refuses_is_told(hosts: RemoteHosts, user: str, command: Sequence[str]) -> None:
    shell = hosts.reach(SOURCE)._shell

    with pytest.raises(StepFailed, match="does not let us run"):
        shell.run(command, sudo=user)


def test_a_host_that_nobody_knows_is_unreachable() -> None:
    with RemoteHosts(**SETTINGS) as hosts, pytest.raises(Unreachable, match="check"):
        hosts.reach("cmp9z")


def test_a_lost_link_to_libvirt_is_opened_anew(hosts: RemoteHosts, server: Stopped) -> None:
    source = hosts.reach(SOURCE)
    assert source.domain(server.uuid) is not None
    source._shell.close()

    assert source.domain(server.uuid) is not None


def wait_for_console(watch: GuestWatch, words: str) -> None:
    deadline = time.monotonic() + 120
    while words not in watch.console(TARGET):
        assert time.monotonic() < deadline, f"the guest did not say {words!r}"
        time.sleep(0.5)


def test_a_connector_is_the_one_that_nova_has_os_brick_make() -> None:
    program = (
        "import json, sys; from os_brick import privileged; "
        "privileged.default.set_client_mode(False); "
        "from os_brick.initiator.connector import get_connector_properties as ask; "
        "print(json.dumps(ask('', sys.argv[1], False, True, host=sys.argv[2])))"
    )
    address = "192.0.2.7"
    said = host_run(SOURCE, ["python3", "-W", "ignore", "-c", program, address, SOURCE])

    with RemoteHosts(**SETTINGS, storage=Storage(address=lambda _host: address)) as hosts:
        assert hosts.reach(SOURCE).connector() == json.loads(said.splitlines()[-1])
