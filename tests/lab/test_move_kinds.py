"""Kinds of server: firmware, config drive, consoles, groups, locks; and those that stay behind."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.kit.images import empty_image
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import host_run, sql
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import nothing_left

pytestmark = [pytest.mark.lab, pytest.mark.alone]

NVRAM = "/var/lib/libvirt/qemu/nvram"
ADDRESSES = {"cmp1b": "10.98.1.12", "cmp2b": "10.98.2.12"}
"""The hosts that offer consoles, and where they listen."""
JOIN = (
    "INSERT INTO instance_group_member (created_at, group_id, instance_uuid)"
    " SELECT NOW(), id, '{member}' FROM instance_groups WHERE uuid = '{group}'"
)
MARK = "what the customer once injected"
SPECS = {
    "hw:cpu_policy": "dedicated",
    "hw:numa_nodes": "1",
    "hw:cpu_realtime": "yes",
    "hw:cpu_realtime_mask": "^0",
    "hw:tpm_version": "2.0",
    "hw:pmem": "6GB",
    "hw:mem_encryption": "true",
    "hw:ephemeral_encryption": "true",
    "resources:VGPU": "1",
    "pci_passthrough:alias": "gpu:1",
    "accel:device_profile": "fpga",
    "trait:HW_CPU_X86_AVX2": "required",
    "quota:cpu_shares": "512",
}
REFUSED = (
    "pinned CPUs, NUMA nodes or huge pages",
    "real-time CPUs",
    "a virtual TPM",
    "persistent memory",
    "encrypted memory (SEV)",
    "encrypted local disks",
    "virtual GPUs",
    "PCI devices",
    "accelerators",
    "further resources or traits",
    "shapes the guest in another way",
)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest on one of its hosts, as libvirt there has it."""

    server: str
    host: str

    @property
    def name(self) -> str:
        return host_run(self.host, ["virsh", "domname", self.server]).strip()

    def listens(self) -> str:
        """Where its console listens while it runs; nothing without one."""
        shown = host_run(self.host, ["virsh", "vncdisplay", self.server], check=False)
        return shown.strip().rpartition(":")[0]

    def nvram(self) -> str:
        """Hash of what its firmware keeps here."""
        return digest(self.host, f"{NVRAM}/{self.name}_VARS.fd")

    def config_drive(self) -> str:
        return digest(self.host, f"/var/lib/nova/instances/{self.server}/disk.config")


def digest(host: str, path: str) -> str:
    """SHA-256 of a file; nothing when there is none."""
    return host_run(host, ["sha256sum", path], check=False)[:64]


def nvrams(host: str) -> set[str]:
    return set(host_run(host, ["ls", NVRAM]).split())


@pytest.fixture(scope="module")
def cellmove(tmp_path_factory: pytest.TempPathFactory) -> Cellmove:
    return Cellmove(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def uefi(admin_nova: Nova) -> Iterator[str]:
    """A stopped, locked server on cmp1b with UEFI, a console and an injected file."""
    session = lab_session(project="demo")
    with empty_image(session, hw_firmware_type="uefi", hw_machine_type="q35") as made:
        more = {"imageRef": made, "flavorRef": admin_nova.flavor("c1")}
        name = f"uefi-{uuid.uuid4().hex[:8]}"
        server = admin_nova.boot_injected(name, "cmp1b", {"/etc/motd": MARK}, more)
        try:
            admin_nova.stop(server)
            admin_nova._act(server, {"lock": None}, "SHUTOFF")
            yield server
        finally:
            admin_nova.discard(server)


@dataclass(frozen=True, slots=True)
class Before:
    """The server with UEFI as it was on its first host."""

    name: str
    nvram: str
    config_drive: str


@pytest.fixture(scope="module")
def before(uefi: str) -> Before:
    guest = Guest(uefi, "cmp1b")
    return Before(guest.name, guest.nvram(), guest.config_drive())


@pytest.fixture(scope="module")
def moved(uefi: str, before: Before, cellmove: Cellmove) -> Guest:
    """The same on the other cell's host, waiting to be confirmed."""
    cellmove("resize", uefi, "--to-host", "cmp2b")
    return Guest(uefi, "cmp2b")


def test_what_the_firmware_keeps_goes_along_under_the_guests_new_name(
    moved: Guest, before: Before
) -> None:
    assert moved.name != before.name
    assert len(before.nvram) == 64
    assert moved.nvram() == before.nvram
    assert digest("cmp1b", f"{NVRAM}/{before.name}_VARS.fd") == before.nvram
    mode = host_run("cmp2b", ["stat", "--format=%a", f"{NVRAM}/{moved.name}_VARS.fd"])
    assert mode.strip() == "600"


def test_the_config_drive_is_the_same_byte_for_byte_with_the_injected_file(
    moved: Guest, before: Before
) -> None:
    assert moved.config_drive() == before.config_drive
    assert has_mark(moved)


def test_the_definition_names_nothing_of_the_old_host(moved: Guest, before: Before) -> None:
    definition = host_run("cmp2b", ["virsh", "dumpxml", "--inactive", moved.server])
    assert ADDRESSES["cmp1b"] not in definition
    assert before.name not in definition
    assert definition.count(ADDRESSES["cmp2b"]) == 2


def test_a_locked_server_stays_locked(moved: Guest, admin_nova: Nova) -> None:
    assert admin_nova.show(moved.server)["locked"] is True


@pytest.fixture(scope="module")
def confirmed(moved: Guest, admin_nova: Nova, cellmove: Cellmove) -> Guest:
    """Confirmed, started and hard-rebooted by nova on its new host."""
    cellmove("confirm", moved.server, "--yes")
    admin_nova.start(moved.server)
    admin_nova.reboot(moved.server, "HARD")
    return moved


def test_a_confirm_leaves_no_variables_behind_and_novas_reboot_keeps_the_new_ones(
    confirmed: Guest, before: Before
) -> None:
    assert f"{before.name}_VARS.fd" not in nvrams("cmp1b")
    assert f"{confirmed.name}_VARS.fd" in nvrams("cmp2b")


def test_after_novas_hard_reboot_the_config_drive_still_has_the_injected_file(
    confirmed: Guest, before: Before
) -> None:
    assert confirmed.config_drive() == before.config_drive
    assert has_mark(confirmed)


@pytest.fixture(scope="module")
def back(confirmed: Guest, cellmove: Cellmove) -> Guest:
    """Moved back to the first cell while it runs."""
    cellmove("resize", confirmed.server, "--to-host", "cmp1b")
    return Guest(confirmed.server, "cmp1b")


def test_a_running_guests_console_listens_on_its_new_host(back: Guest) -> None:
    assert back.listens() == ADDRESSES["cmp1b"]
    assert f"{back.name}_VARS.fd" in nvrams("cmp1b")


def test_a_revert_finds_the_old_variables_and_console_and_leaves_none(
    back: Guest, confirmed: Guest, cellmove: Cellmove, before: Before
) -> None:
    left = back.name
    cellmove("revert", back.server, "--yes")
    assert f"{left}_VARS.fd" not in nvrams("cmp1b")
    assert f"{confirmed.name}_VARS.fd" in nvrams("cmp2b")
    assert confirmed.listens() == ADDRESSES["cmp2b"]
    assert confirmed.config_drive() == before.config_drive


def test_a_server_deleted_by_nova_leaves_no_variables(confirmed: Guest, admin_nova: Nova) -> None:
    name = confirmed.name
    admin_nova.delete(confirmed.server)
    nothing_left(confirmed.server)
    assert f"{name}_VARS.fd" not in nvrams("cmp2b")


@pytest.fixture(scope="module")
def mute(admin_nova: Nova, blank: str, cellmove: Cellmove) -> Iterator[str]:
    """A running server that has come from a host without consoles to cmp2b."""
    with admin_nova.lent("mute", "cmp1a", config_drive=False, more={"imageRef": blank}) as server:
        cellmove("resize", server, "--to-host", "cmp2b")
        yield server


def test_a_guest_without_a_console_gets_none(mute: str, admin_nova: Nova) -> None:
    assert host_run("cmp2b", ["virsh", "domstate", mute]).strip() == "running"
    assert Guest(mute, "cmp2b").listens() == ""
    assert admin_nova.status(mute) == "VERIFY_RESIZE"


@pytest.fixture(scope="module")
def mover(admin_nova: Nova, blank: str, mute: str) -> Iterator[str]:
    """A running server on cmp1b, of an anti-affine group with `mute`.

    nova-compute cannot ask for groups in a cloud whose cells know nothing of the API database: so
    both join the group when they are there already.
    """
    group = {"name": f"apart-{uuid.uuid4().hex[:8]}", "policy": "anti-affinity"}
    made = admin_nova._post("/os-server-groups", {"server_group": group})["server_group"]["id"]
    try:
        more = {"imageRef": blank}
        with admin_nova.lent("mover", "cmp1b", config_drive=False, more=more) as server:
            for member in (server, mute):
                sql("api.nova_api", JOIN.format(member=member, group=made))
            yield server
    finally:
        admin_nova._compute.send("DELETE", f"/os-server-groups/{made}")


def reasons(cellmove: Cellmove, *argv: str) -> list[str]:
    """Why it is refused."""
    done = cellmove(*argv, "--json", check=False)
    assert done.code == 1, done
    error = json.loads(done.stdout)["error"]
    return [reason["what"] for reason in error["reasons"]] or [error["what"]]


def test_a_group_keeps_its_members_apart_over_both_cells(mover: str, cellmove: Cellmove) -> None:
    what = ["The server's group keeps it off cmp2b."]
    assert reasons(cellmove, "resize", mover, "--to-host", "cmp2b") == what


def test_a_guest_with_a_console_moves_to_a_host_without_and_back(
    mover: str, admin_nova: Nova, cellmove: Cellmove
) -> None:
    cellmove("resize", mover, "--to-host", "cmp2a")
    assert Guest(mover, "cmp2a").listens() == "10.98.2.11"
    cellmove("revert", mover, "--yes")
    assert Guest(mover, "cmp1b").listens() == ADDRESSES["cmp1b"]
    assert admin_nova.status(mover) == "ACTIVE"


def test_a_flavor_of_every_refused_kind_is_refused_with_every_reason(
    mover: str, admin_nova: Nova, cellmove: Cellmove
) -> None:
    name = f"kinds-{uuid.uuid4().hex[:8]}"
    size = {"name": name, "ram": 160, "vcpus": 1, "disk": 2}
    flavor = admin_nova._post("/flavors", {"flavor": size})["flavor"]["id"]
    try:
        admin_nova._post(f"/flavors/{flavor}/os-extra_specs", {"extra_specs": SPECS})
        told = reasons(cellmove, "resize", mover, "--flavor", name, "--to-host", "cmp2a")
    finally:
        admin_nova._compute.send("DELETE", f"/flavors/{flavor}")
    assert [kind for kind in REFUSED if not any(kind in what for what in told)] == []


def test_a_guest_whose_firmware_the_target_lacks_is_refused(
    mover: str, admin_nova: Nova, cellmove: Cellmove
) -> None:
    admin_nova.stop(mover)
    definition = host_run("cmp1b", ["virsh", "dumpxml", "--inactive", mover])
    own = "</type><loader readonly='yes' type='rom'>/srv/own.fd</loader>"
    text = base64.b64encode(definition.replace("</type>", own, 1).encode()).decode()
    script = f"echo {text} | base64 -d >/tmp/kinds.xml && virsh define /tmp/kinds.xml"
    host_run("cmp1b", ["sh", "-c", script])
    told = reasons(cellmove, "resize", mover, "--to-host", "cmp2a")
    assert told == ["cmp2a cannot run the guest."]


def has_mark(guest: Guest) -> bool:
    path = f"/var/lib/nova/instances/{guest.server}/disk.config"
    return bool(host_run(guest.host, ["grep", "--count", "--text", MARK, path]).strip())
