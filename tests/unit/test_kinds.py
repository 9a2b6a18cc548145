"""Kinds of server that stay where they are: each is told by what nova keeps of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cellmove.dbcopy.database import Row
from cellmove.hosts import firmware
from cellmove.hosts.machine import Offer
from cellmove.hosts.xml import GuestXml
from cellmove.intake import kinds
from cellmove.intake.found import Actor
from cellmove.intake.kinds import Kind
from cellmove.policy import PolicyFile
from tests.fakes.permission import Everybody
from tests.unit.samples import flavor, move

DOCUMENT = Path(__file__).parents[2] / "docs" / "kinds.rst"
MOVE = move()
OLD, NEW = (replace(flavor(name), extra_specs={}) for name in ("c1", "c2"))
BY_SPEC = {
    "pci_passthrough:alias=gpu:1": kinds.PCI,
    "hw:pci_numa_affinity_policy=required": kinds.PCI,
    "resources:VGPU=1": kinds.VGPU,
    "resources1:PGPU=1": kinds.VGPU,
    "hw:pmem=6GB": kinds.PMEM,
    "hw:tpm_version=2.0": kinds.TPM,
    "hw:tpm_model=tpm-crb": kinds.TPM,
    "hw:ephemeral_encryption=true": kinds.ENCRYPTED,
    "hw:mem_encryption=true": kinds.SEV,
    "resources:MEM_ENCRYPTION_CONTEXT=1": kinds.SEV,
    "hw:cpu_policy=dedicated": kinds.NUMA,
    "hw:cpu_policy=mixed": kinds.NUMA,
    "hw:cpu_thread_policy=isolate": kinds.NUMA,
    "hw:cpu_dedicated_mask=0-1": kinds.NUMA,
    "hw:emulator_threads_policy=isolate": kinds.NUMA,
    "hw:mem_page_size=large": kinds.NUMA,
    "hw:locked_memory=true": kinds.NUMA,
    "hw:numa_nodes=1": kinds.NUMA,
    "hw:numa_cpus.0=0": kinds.NUMA,
    "hw:numa_mem.1=512": kinds.NUMA,
    "resources:PCPU=1": kinds.NUMA,
    "hw:cpu_realtime=yes": kinds.REALTIME,
    "hw:cpu_realtime_mask=^0": kinds.REALTIME,
    "accel:device_profile=fpga": kinds.ACCELERATOR,
    "resources:CUSTOM_GOLD=1": kinds.PLACEMENT,
    "trait:HW_CPU_X86_AVX2=required": kinds.PLACEMENT,
    "trait1:CUSTOM_A=forbidden": kinds.PLACEMENT,
    "group_policy=isolate": kinds.PLACEMENT,
    "hw:something_new=1": kinds.UNKNOWN,
}
BY_IMAGE = {
    "hw_pci_numa_affinity_policy=required": kinds.PCI,
    "hw_tpm_version=2.0": kinds.TPM,
    "hw_ephemeral_encryption=True": kinds.ENCRYPTED,
    "hw_mem_encryption=True": kinds.SEV,
    "hw_cpu_policy=dedicated": kinds.NUMA,
    "hw_cpu_thread_policy=require": kinds.NUMA,
    "hw_emulator_threads_policy=share": kinds.NUMA,
    "hw_mem_page_size=2048": kinds.NUMA,
    "hw_locked_memory=true": kinds.NUMA,
    "hw_numa_nodes=2": kinds.NUMA,
    "hw_numa_cpus.0=0": kinds.NUMA,
    "hw_cpu_realtime_mask=^0": kinds.REALTIME,
    "traits_required=HW_CPU_X86_AVX": kinds.PLACEMENT,
    "img_hv_type=vmware": kinds.HYPERVISOR,
    "img_hv_type=lxc": kinds.HYPERVISOR,
}
HARMLESS_SPECS = (
    "team:x=1",
    "aggregate_instance_extra_specs:ssd=true",
    "capabilities:cpu_info=x",
    "hw:cpu_policy=shared",
    "hw:cpu_realtime=no",
    "hw:mem_encryption=False",
    "hw:locked_memory=0",
)
SHAPING_SPECS = (
    "quota:cpu_shares=2048",
    "quota:disk_read_iops_sec=10",
    "hw:watchdog_action=reset",
    "hw:boot_menu=true",
    "hw_rng:allowed=true",
    "hw_video:ram_max_mb=16",
    "os:secure_boot=required",
    "hw:cpu_sockets=2",
    "hw:cpu_max_cores=2",
    "hw:max_cpu_cores=2",
)
RECORDS: dict[str, tuple[str, Row, Kind]] = {
    "a PCI request": ("instance_extra", {"pci_requests": '[{"count": 1}]'}, kinds.PCI),
    "a NUMA topology": ("instance_extra", {"numa_topology": '{"cells": []}'}, kinds.NUMA),
    "persistent memory": ("instance_extra", {"resources": '{"x": 1}'}, kinds.PMEM),
    "a key of its local disks": ("instances", {"ephemeral_key_uuid": "k"}, kinds.ENCRYPTED),
    "an encrypted local disk": (
        "block_device_mapping",
        {"encrypted": True, "destination_type": "local"},
        kinds.ENCRYPTED,
    ),
}
PLAIN: dict[str, list[Row]] = {
    "instances": [{"ephemeral_key_uuid": None}],
    "instance_extra": [{"pci_requests": "[]", "numa_topology": None, "resources": None}],
    "block_device_mapping": [{"encrypted": None, "destination_type": "local"}],
}


def spec(text: str) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {key: value}


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("text", BY_SPEC)
def test_a_flavors_extra_spec_tells_the_kind(text: str, side: str) -> None:
    old = replace(OLD, extra_specs=spec(text)) if side == "old" else OLD
    new = replace(NEW, extra_specs=spec(text)) if side == "new" else NEW
    (found,) = kinds.of_flavors(old, new)
    assert found.what.startswith(BY_SPEC[text].name)
    assert text.partition("=")[0] in found.seen
    assert (old if side == "old" else new).name in found.seen
    assert found.do


def test_every_kind_of_a_flavor_is_told_in_its_own_sentence() -> None:
    marked = spec("hw:tpm_version=2.0") | spec("resources:VGPU=1") | spec("hw:numa_nodes=2")
    found = list(kinds.of_flavors(OLD, replace(NEW, extra_specs=marked)))
    assert len({each.what for each in found}) == 3


def test_a_flavor_that_stays_is_judged_once() -> None:
    marked = replace(OLD, extra_specs=spec("hw:pmem=1"))
    assert len(list(kinds.of_flavors(marked, marked))) == 1


@pytest.mark.parametrize("text", HARMLESS_SPECS)
def test_extra_specs_that_ask_nothing_of_the_host_are_welcome(text: str) -> None:
    assert list(kinds.of_flavors(OLD, replace(NEW, extra_specs=spec(text)))) == []


@pytest.mark.parametrize("text", SHAPING_SPECS)
def test_the_guests_shape_must_stay(text: str) -> None:
    old, new = (replace(each, extra_specs=spec(text)) for each in (OLD, NEW))
    assert list(kinds.of_flavors(old, new)) == []
    for pair in ((OLD, new), (old, NEW)):
        (found,) = kinds.of_flavors(*pair)
        assert found.what.startswith(kinds.SHAPE.name)
        assert text.partition("=")[0] in found.seen


def test_a_topology_does_not_outlive_another_number_of_cpus() -> None:
    old, new = (replace(each, extra_specs=spec("hw:cpu_threads=2")) for each in (OLD, NEW))
    (found,) = kinds.of_flavors(old, replace(new, vcpus=4))
    assert found.what.startswith(kinds.SHAPE.name)


@pytest.mark.parametrize("text", BY_IMAGE)
def test_an_image_property_tells_the_kind(text: str) -> None:
    key, _, value = text.partition("=")
    stored = {f"image_{key}": value, "image_hw_disk_bus": "virtio", "old_vm_state": "active"}
    (found,) = kinds.of_image(kinds.properties_of(stored))
    assert found.what.startswith(BY_IMAGE[text].name)
    assert key in found.seen


def test_an_ordinary_image_is_welcome() -> None:
    ordinary = {
        "image_hw_machine_type": "q35",
        "image_hw_firmware_type": "uefi",
        "image_os_secure_boot": "optional",
        "image_img_hv_type": "kvm",
        "image_hw_mem_encryption": "False",
        "image_signature_verified": "True",
    }
    assert list(kinds.of_image(kinds.properties_of(ordinary))) == []


def test_a_plain_servers_records_are_welcome() -> None:
    assert list(kinds.of_records(PLAIN, 0)) == []
    assert list(kinds.of_secrets({"image_hw_disk_bus": "virtio"})) == []
    assert list(kinds.of_vnic_types(["normal", "normal"])) == []


@pytest.mark.parametrize("what", RECORDS)
def test_a_servers_records_tell_the_kind(what: str) -> None:
    table, values, kind = RECORDS[what]
    tables = {name: [dict(row) for row in rows] for name, rows in PLAIN.items()}
    tables[table][0] |= values
    (found,) = kinds.of_records(tables, 0)
    assert found.what.startswith(kind.name)


def test_a_device_a_secret_and_a_port_tell_the_kind() -> None:
    (device,) = kinds.of_records(PLAIN, 2)
    assert device.seen == "It has 2 device(s) or requests some."
    (secret,) = kinds.of_secrets({"vtpm_secret_uuid": "s"})
    assert secret.what.startswith(kinds.TPM.name)
    assert "s" not in secret.seen.split()
    (port,) = kinds.of_vnic_types(["normal", "direct"])
    assert port.what.startswith(kinds.SRIOV.name)


@pytest.mark.parametrize(
    ("kind", "refused"), [("QEMU", 0), ("kvm", 0), ("ironic", 1), ("VMware vCenter Server", 1)]
)
def test_only_hosts_with_libvirt_are_moved_between(kind: str, refused: int) -> None:
    assert len(list(kinds.of_hypervisor(MOVE.source, kind))) == refused


def test_a_target_that_cannot_run_the_guest_is_refused_with_each_reason() -> None:
    plain = GuestXml("<domain type='qemu'><name>g</name></domain>")
    offer = Offer(problems=("no machine like its pc-9.9", "CPU model X is not there"))
    found = list(kinds.of_offer(plain, offer, MOVE.source, MOVE.target))
    assert [each.seen for each in found] == [f"{problem}." for problem in offer.problems]
    assert list(kinds.of_offer(plain, Offer(), MOVE.source, MOVE.target)) == []


def test_a_console_nobody_can_place_is_refused() -> None:
    text = "<graphics type='vnc' listen='{}'/>"
    guest = "<domain type='qemu'><name>g</name><devices>{}</devices></domain>"
    strange = GuestXml(guest.format(text.format("172.16.0.9")))
    (found,) = kinds.of_offer(strange, Offer(), MOVE.source, MOVE.target)
    assert "172.16.0.9" in found.seen
    own = GuestXml(guest.format(text.format(MOVE.source.address)))
    assert list(kinds.of_offer(own, Offer(), MOVE.source, MOVE.target)) == []


def test_firmware_variables_must_be_few_and_where_libvirt_keeps_them() -> None:
    path = f"{firmware.DIRECTORY}/instance-00000001_VARS.fd"
    assert list(kinds.of_firmware(path, None)) == []
    assert list(kinds.of_firmware(path, b"x" * firmware.LARGEST_BYTES)) == []
    (large,) = kinds.of_firmware(path, b"x" * (firmware.LARGEST_BYTES + 1))
    assert "too large" in large.what
    (strange,) = kinds.of_firmware("/srv/vars.fd", None)
    assert "/srv/vars.fd" in strange.seen


@pytest.mark.parametrize(("locked", "admin", "refused"), [(0, 0, 0), (1, 1, 0), (1, 0, 1)])
def test_only_an_administrator_moves_a_locked_server(locked: int, admin: int, refused: int) -> None:
    row = {"locked": locked, "locked_by": "owner", "project_id": "p", "user_id": "u"}
    member = PolicyFile({"roles": ["member"], "project_id": "p", "user_id": "u"})
    actor = Actor("u", "p", policy=Everybody() if admin else member)
    found = list(kinds.of_lock(row, actor))
    assert len(found) == refused
    assert all(each.what == "The server is locked." for each in found)


def test_the_document_lists_every_kind_with_its_reason_and_no_other() -> None:
    refused = DOCUMENT.read_text().partition("Refused\n-------")[2]
    rows = re.findall(r"^   \* - (.+)\n     - (.+)$", refused, re.MULTILINE)
    assert rows[1:] == [(kind.name, kind.why) for kind in kinds.ALL]
