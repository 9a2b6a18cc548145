"""What a hypervisor says of all its servers at once, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import libvirt
import pytest

from cellmove.hosts import inventory, switch
from cellmove.hosts.disks import Layout
from cellmove.hosts.guests import Guests
from cellmove.hosts.inventory import Inventory
from cellmove.hosts.shell import Completed, Shell

ONE = "11111111-2222-4333-8444-555555555555"
TWO = "99999999-2222-4333-8444-555555555555"
PATH = "/var/lib/nova/instances"
PORT = "0a1b2c3d-2222-4333-8444-555555555555"
TAP = "tap0a1b2c3d-22"


def plug(name: str, port: str) -> tuple[str, tuple[str, list[tuple[str, str]]]]:
    """A row of Open vSwitch's interfaces."""
    return name, ("map", [("vm-uuid", ONE), ("iface-id", port)] if port else [])


PRINTED = {
    ("/usr/bin/ls", "-1A", PATH): f"_base\n{ONE}\n{TWO}_resize\n{TWO}_del\nlocks\n{ONE}.bak\n",
    inventory.find_halves(PATH): f"{PATH}/{ONE}/disk.eph0.cellmove\n{PATH}/{ONE}/disk.cellmove\n",
    inventory.processes(): (
        f"  71 /usr/bin/qemu-nbd --read-only --socket=/var/lib/cellmove/{ONE}-disk.sock {PATH}/x\n"
        f"4712 qemu-nbd --format=raw --socket=/var/lib/cellmove/{ONE}-disk.eph0.sock /y\n"
        f"4713 qemu-nbd --socket=/tmp/{TWO}-disk.sock /somebody/elses\n"
    ),
    inventory.file_system(PATH): "Type\next4\n",
    switch.records(): json.dumps(
        {"data": [plug("br-int", ""), plug(TAP, PORT), plug("tap", PORT)]}
    ),
}


class Domain:
    def __init__(self, uuid: str, *, active: bool = False, marks: Sequence[str] = ()) -> None:
        self.uuid, self.active, self.marks = uuid, active, marks

    def UUIDString(self) -> str:  # noqa: N802
        return self.uuid

    def listAllCheckpoints(self) -> list[Any]:  # noqa: N802
        return [type("Mark", (), {"getName": lambda _, name=name: name})() for name in self.marks]


class Connection:
    """A libvirt with these domains; counts how often it is asked for lists."""

    def __init__(self, *domains: Domain) -> None:
        self.domains, self.asked = domains, 0

    def listAllDomains(self, flags: int = 0) -> list[Domain]:  # noqa: N802
        self.asked += 1
        found = list(self.domains)
        if flags & libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE:
            found = [each for each in found if each.active]
        if flags & libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT:
            found = [each for each in found if each.marks]
        return found


def read(connection: Connection) -> tuple[Inventory, list[tuple[str | None, tuple[str, ...]]]]:
    """What is read, and which commands as whom."""
    ran: list[tuple[str | None, tuple[str, ...]]] = []

    class AShell:
        def run(self, argv: tuple[str, ...], *, sudo: str | None = None, **_more: Any) -> Completed:
            ran.append((sudo, argv))
            return Completed(PRINTED[argv], "", 0)

    class SomeGuests:
        def ask(self, use: Any) -> Any:
            return use(connection)

    found = inventory.read(cast(Shell, AShell()), Layout(), cast(Guests, SomeGuests()))
    return found, ran


def test_all_is_read_with_few_questions_however_many_guests_there_are() -> None:
    marks = ("cellmove-01234567-0", "backup-1")
    connection = Connection(
        Domain(ONE, active=True, marks=marks), Domain(TWO, marks=["nightly"]), *[Domain("x")] * 50
    )
    found, ran = read(connection)
    assert found == Inventory(
        guests={ONE: True, TWO: False, "x": False},
        directories={ONE: ONE, f"{TWO}_resize": TWO, f"{TWO}_del": TWO},
        is_shared=False,
        halves={ONE: ("disk", "disk.eph0")},
        checkpoints={ONE: ("cellmove-01234567-0",)},
        exports={ONE: (71, 4712)},
        plugs={ONE: (PORT,)},
    )
    assert connection.asked == 3
    assert len(ran) == len(PRINTED)
    assert {user for user, _argv in ran} == {"nova", "root", None}


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INTERNAL_ERROR])
def test_a_guest_that_goes_meanwhile_is_no_error_and_others_are(code: int) -> None:
    class Going(Domain):
        def listAllCheckpoints(self) -> list[Any]:  # noqa: N802
            error = libvirt.libvirtError("gone")
            error.err = (code, 0, "gone", 0, "", "", "", 0, 0)
            raise error

    connection = Connection(Going(ONE, marks=["x"]))
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        assert read(connection)[0].checkpoints == {}
        return
    with pytest.raises(libvirt.libvirtError):
        read(connection)


@pytest.mark.parametrize(
    ("printed", "shared"),
    [("Type\nxfs\n", False), ("Type\nnfs4\n", True), ("Type\nceph\n", True), ("", True)],
)
def test_only_a_file_system_known_as_local_is_one_hosts_own(printed: str, shared: bool) -> None:
    assert inventory.is_shared(printed) is shared


@pytest.mark.parametrize(
    ("mounted", "place"),
    [
        ("nas:/nova nfs4", "nas:/nova nfs4"),
        ("mon1,mon2:/ ceph", "mon1,mon2:/ ceph"),
        ("nas:/vol fuse.glusterfs", "nas:/vol fuse.glusterfs"),
        ("/dev/mapper/vg-nova ext4", ""),
        ("/dev/sda1 bcachefs", ""),
        ("overlay overlay", ""),
    ],
)
def test_what_hosts_may_share_is_told_by_what_is_mounted(mounted: str, place: str) -> None:
    assert inventory.shared_place(f"Filesystem Type\n{mounted}\n") == place
