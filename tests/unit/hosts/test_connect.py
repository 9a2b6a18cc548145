"""Connecting volumes on a host, by what its tools say: recorded, since no test has such a network.

The answers of `iscsiadm` are those that open-iscsi 2.1 prints.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from cellmove.errors import StepFailed
from cellmove.hosts import iscsi as iscsi_module
from cellmove.hosts.connect import Storage, Volumes, mounted
from cellmove.hosts.iscsi import device, others
from cellmove.hosts.shell import Completed, Shell
from tests.unit.hosts.test_blocks import IQN, nfs, rbd
from tests.unit.hosts.test_blocks import iscsi as iscsi_info

BASE = "/var/lib/nova/mnt"
POINT = f"{BASE}/508d5eb2b429f226d834e2fa51a8624e"
"""MD5 of 192.0.2.1:/srv/volumes."""
MOUNTINFO = """\
22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
"""
ISCSI = iscsi_info(4, device_path=None)
NODE = f"/usr/sbin/iscsiadm -m node -T {IQN} -p 192.0.2.1:3260"
LINK = f"ip-192.0.2.1:3260-iscsi-{IQN}-lun-1"
PLACE = "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1"


@dataclass
class RecordedHost:
    """A host without a network: what it is told changes what it answers."""

    host: str = "cmp1a"
    mounts: str = MOUNTINFO
    initiator: str = "## DO NOT EDIT\nInitiatorName=iqn.1993-08.org.debian:01:abc\n"
    refuses: str = ""
    """A word of the command that fails."""
    late: int = 0
    """How many looks a device stays away."""
    records: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """The commands that change something, users before them."""

    def run(self, argv: Sequence[str], **how: Any) -> Completed:
        command = " ".join(argv)
        self.asked.append(command)
        if self.refuses and self.refuses in command:
            return self._judged(Completed("", "it does not want to", 32), **how)
        if argv[0].endswith(("mkdir", "mount", "iscsiadm", "blockdev", "tee")):
            self.told.append(f"{how.get('sudo')}: {command}")
        return self._judged(self._answer(argv, command), **how)

    def _judged(self, done: Completed, *, check: bool = True, **_how: Any) -> Completed:
        if check and done.status:
            raise StepFailed(f"failed with {done.status}")
        return done

    def _answer(self, argv: Sequence[str], command: str) -> Completed:
        if argv[0] == "/usr/bin/mount":
            self.mounts += f"40 28 0:50 / {argv[-1]} rw - nfs4 {argv[-2]} rw\n"
        elif argv[0] == "/usr/bin/tee":
            self.links.discard(LINK)
        elif argv[0] == "ls":
            self.late -= 1
            return Completed("\n".join(self.links) if self.late < 0 else "", "", 0)
        elif argv[0] == "/usr/sbin/iscsiadm":
            return self._iscsiadm(argv[7:])
        answers = {
            "cat /proc/self/mountinfo": self.mounts,
            "/usr/bin/cat /etc/iscsi/initiatorname.iscsi": self.initiator,
        }
        if argv[0] == "python3":
            answers[command] = "x86_64\nY\n" if "nvme" in command else f"{PLACE}\n"
        found = answers.get(command, "")
        missing = not found and argv[-1] == "/etc/iscsi/initiatorname.iscsi"
        return Completed(found, "cat: No such file", 1) if missing else Completed(found, "", 0)

    def _iscsiadm(self, verb: Sequence[str]) -> Completed:
        if verb == ("--interface", "default", "--op", "new"):
            self.records.add(IQN)
            return Completed(f"New iSCSI node [tcp:[hw=,ip=] {IQN}] added\n", "", 0)
        if IQN not in self.records:
            return Completed("", "iscsiadm: No records found\n", 21)
        if verb == ("--login",):
            if IQN in self.sessions:
                return Completed("", "iscsiadm: default: 1 session requested, but 1 already", 15)
            self.sessions.add(IQN)
            self.links.add(LINK)
        elif verb == ("--rescan",):
            self.links.add(LINK)
        elif verb == ("--logout",):
            self.sessions.discard(IQN)
        elif verb == ("--op", "delete"):
            self.records.discard(IQN)
        return Completed("", "", 0)


def volumes(host: RecordedHost, secrets: Sequence[str] = (), **storage: Any) -> Volumes:
    has_secret: Callable[[str], bool] = secrets.__contains__
    return Volumes("cmp1a", cast("Shell", host), Storage(**storage), has_secret)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


def test_the_connector_is_what_nova_would_send() -> None:
    host = RecordedHost()
    found = volumes(host, address={"cmp1a": "192.0.2.9"}.__getitem__)

    assert found.connector() == {
        "platform": "x86_64",
        "os_type": "linux",
        "ip": "192.0.2.9",
        "host": "cmp1a",
        "multipath": False,
        "do_local_attach": False,
        "nvme_native_multipath": True,
        "initiator": "iqn.1993-08.org.debian:01:abc",
    }
    found.connector()
    assert len(host.asked) == 2  # It does not change while we look.


def test_of_two_who_ask_for_the_connector_the_second_one_asks_no_host() -> None:
    host, halfway = RecordedHost(), threading.Event()

    def slow(_host: str) -> str:
        halfway.set()
        threading.Event().wait(0.2)
        return "192.0.2.9"

    found = volumes(host, address=slow)
    first = threading.Thread(target=found.connector)
    first.start()
    assert halfway.wait(10)

    assert found.connector()["ip"] == "192.0.2.9"
    first.join()
    assert len(host.asked) == 2


def test_a_host_that_is_no_initiator_has_no_name_as_one() -> None:
    assert "initiator" not in volumes(RecordedHost(initiator="")).connector()


def test_an_export_is_mounted_once_where_nova_would_mount_it() -> None:
    host = RecordedHost()
    found = volumes(host, nfs_options="hard")
    info = nfs(1, options="-o vers=4.2", device_path=None)
    assert not found.connected(info)

    for _ in range(2):
        assert found.connect(info)["data"] == {
            **cast("dict[str, object]", info["data"]),
            "device_path": f"{POINT}/volume-{info['serial']}",
        }

    options = "hard,vers=4.2,nosuid,nodev"
    assert host.told == [
        f"nova: /usr/bin/mkdir -p {POINT}",
        f"root: /usr/bin/mount -t nfs -o {options} 192.0.2.1:/srv/volumes {POINT}",
    ]
    found.disconnect(info)
    assert found.connected(info)  # nova counts its users, and unmounts after the last.


def test_an_export_that_cannot_be_mounted_is_told() -> None:
    with pytest.raises(StepFailed, match="does not want to"):
        volumes(RecordedHost(refuses="/usr/bin/mount")).connect(nfs(1))


def test_mount_points_are_read_without_touching_them() -> None:
    assert mounted(MOUNTINFO) == {"/", "/proc"}


def test_an_image_in_ceph_needs_a_secret_of_the_host() -> None:
    secret = "bbbbbbbb-0000-4000-8000-000000000000"
    knows, lacks = volumes(RecordedHost(), [secret]), volumes(RecordedHost())

    assert knows.connect(rbd(3)) == rbd(3)
    assert knows.connected(rbd(3))
    assert lacks.connect(rbd(3, auth_enabled=False)) == rbd(3, auth_enabled=False)
    assert secret in lacks.obstacle(rbd(3))
    assert not lacks.connected(rbd(3))
    with pytest.raises(StepFailed, match=secret):
        lacks.connect(rbd(3))


def test_a_target_is_signed_in_to_once_and_its_device_is_written_down() -> None:
    host = RecordedHost(late=3)
    found = volumes(host)
    for _ in range(2):
        done = found.connect(ISCSI)

    assert cast("dict[str, object]", done["data"])["device_path"] == f"/dev/disk/by-path/{LINK}"
    assert found.connected(ISCSI)
    assert host.told[:5] == [
        f"root: {NODE}",
        f"root: {NODE} --interface default --op new",
        f"root: {NODE} --login",
        f"root: {NODE} --op update -n node.startup -v automatic",
        f"root: {NODE} --rescan",
    ]
    assert set(host.told[5:]) == {f"root: {NODE} --rescan"}


def test_a_target_that_others_use_already_is_looked_through_again() -> None:
    host = RecordedHost(records={IQN}, sessions={IQN})

    volumes(host).connect(ISCSI)

    assert host.links == {LINK}
    assert not any("new" in told for told in host.told)


def test_the_last_device_of_a_target_goes_with_its_session() -> None:
    host = RecordedHost(records={IQN}, sessions={IQN}, links={LINK})
    found = volumes(host)
    for _ in range(2):
        found.disconnect(ISCSI)

    assert (host.links, host.sessions, host.records) == (set(), set(), set())
    assert host.told[:2] == [
        f"root: /usr/sbin/blockdev --flushbufs /dev/disk/by-path/{LINK}",
        f"root: /usr/bin/tee {PLACE}/delete",
    ]


def test_another_device_of_a_target_keeps_its_session() -> None:
    other = LINK.replace("lun-1", "lun-11")
    host = RecordedHost(records={IQN}, sessions={IQN}, links={LINK, other})

    volumes(host).disconnect(ISCSI)

    assert (host.links, host.sessions) == ({other}, {IQN})


@pytest.mark.parametrize("word", ["--login", "--op new", "--rescan", "automatic"])
def test_a_target_that_does_not_let_us_in_is_told(word: str) -> None:
    with pytest.raises(StepFailed, match="does not want to"):
        volumes(RecordedHost(refuses=word)).connect(ISCSI)


def test_a_device_that_does_not_appear_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iscsi_module, "DEVICE_SECONDS", 0.05)

    with pytest.raises(StepFailed, match="does not appear"):
        volumes(RecordedHost(late=1 << 30)).connect(ISCSI)


def test_a_host_without_iscsi_cannot_connect_such_a_volume() -> None:
    assert "no /usr/sbin/iscsiadm" in volumes(RecordedHost(refuses="test -x")).obstacle(ISCSI)


def test_a_volume_of_another_kind_is_refused_and_never_touched() -> None:
    host = RecordedHost()
    found, other = volumes(host), {"driver_volume_type": "lightos", "data": {}}

    with pytest.raises(StepFailed, match="lightos"):
        found.connect(other)
    found.disconnect(other)
    assert not found.connected(other)
    assert host.asked == []


@pytest.mark.parametrize(("number", "shown"), [(0, "0"), (255, "255"), (256, "0x0100000000000000")])
def test_a_device_is_named_as_udev_names_it(number: int, shown: str) -> None:
    data = {"target_portal": "[2001:db8::1]:3260", "target_iqn": IQN, "target_lun": number}

    named = f"ip-[2001:db8::1]:3260-iscsi-{IQN}-lun-{shown}"
    assert device(data) == f"/dev/disk/by-path/{named}"
    assert others(data, (named, f"{named}7", "ata-1")) == (f"{named}7",)
