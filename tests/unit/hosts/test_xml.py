from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from cellmove.errors import StepFailed
from cellmove.hosts.xml import GuestXml, Interface, for_target
from cellmove.model import Flavor

DATA = Path(__file__).parents[2] / "data" / "xml"
SERVER = "11111111-2222-3333-4444-555555555555"
NEW_DIR = f"/new/place/{SERVER}"
OLD_DIRS = {
    "zed-image": f"/var/lib/nova/instances/{SERVER}",
    "old-bridge": f"/srv/nova/{SERVER}",
}
FLAVOR = Flavor(2, "c2", "big one", 160, 2, 3, ephemeral_gb=1, swap_mb=64)

EDITS: dict[str, Callable[[str, str], str]] = {
    "renamed": lambda text, _: GuestXml(text).renamed("instance-00000f00").text,
    "resized": lambda text, _: GuestXml(text).resized(memory_mb=160, vcpus=3).text,
    "moved": lambda text, old: GuestXml(text).moved(old, NEW_DIR).text,
    "metadata": lambda text, _: GuestXml(text).with_nova_metadata(FLAVOR).text,
    "runtime": lambda text, _: GuestXml(text).without_runtime().text,
    "target": lambda text, old: for_target(
        text, domain_name="instance-00000f00", flavor=FLAVOR, old_dir=old, new_dir=NEW_DIR
    ),
}


def read(name: str) -> str:
    return (DATA / f"{name}.xml").read_text()


def canonical(text: str) -> bytes:
    """What two definitions that mean the same have in common: no blanks between elements."""
    root = etree.fromstring(text, etree.XMLParser(remove_blank_text=True))
    return etree.tostring(root, method="c14n")


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("guest", OLD_DIRS)
def test_an_edit_changes_what_it_names_and_nothing_else(guest: str, edit: str) -> None:
    before = read(f"{guest}.in")
    named_nothing = not (DATA / f"{guest}.{edit}.xml").exists()
    expected = before if named_nothing else read(f"{guest}.{edit}")

    assert canonical(EDITS[edit](before, OLD_DIRS[guest])) == canonical(expected)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("guest", OLD_DIRS)
def test_an_edit_twice_is_the_edit_once(guest: str, edit: str) -> None:
    once = EDITS[edit](read(f"{guest}.in"), OLD_DIRS[guest])

    assert EDITS[edit](once, OLD_DIRS[guest]) == once


@pytest.mark.parametrize("guest", OLD_DIRS)
def test_the_machine_stays_the_one_that_the_guest_knows(guest: str) -> None:
    before = GuestXml(read(f"{guest}.in"))
    after = GuestXml(EDITS["target"](before.text, OLD_DIRS[guest]))

    assert (after.uuid, after.machine, after.interfaces) == (
        before.uuid,
        before.machine,
        before.interfaces,
    )


def test_nothing_of_the_target_names_the_source() -> None:
    after = EDITS["target"](read("old-bridge.in"), OLD_DIRS["old-bridge"])

    assert "/srv/nova" not in after
    assert "instance-0000000a" not in after


def test_a_definition_tells_interfaces_disks_and_machine() -> None:
    guest = GuestXml(read("zed-image.in"))
    here = OLD_DIRS["zed-image"]

    assert guest.machine == "pc-i440fx-7.2"
    assert guest.interfaces == (Interface("ethernet", "fa:16:3e:a4:9c:3c", "tapaaaaaaaa-bb"),)
    assert guest.disk_formats == {f"{here}/disk": "qcow2", f"{here}/disk.config": "raw"}


def test_a_server_of_the_lab_can_be_moved() -> None:
    assert GuestXml(read("zed-image.in")).unsupported() == ()


@pytest.mark.parametrize(
    ("where", "element", "why"),
    [
        ("devices", "<hostdev mode='subsystem' type='pci'/>", "passed through"),
        ("devices", "<tpm model='tpm-crb'/>", "TPM"),
        ("devices", "<filesystem type='mount'/>", "file system"),
        ("devices", "<shmem name='x'/>", "shares memory"),
        ("devices", "<disk type='network'><source protocol='rbd'/></disk>", "type network"),
        ("devices", "<disk type='file'><encryption format='luks'/></disk>", "encrypted"),
        ("devices", "<interface type='hostdev'/>", "interface of type hostdev"),
        ("devices", "<interface type='vhostuser'/>", "interface of type vhostuser"),
        ("os", "<kernel>/x</kernel>", "kernel"),
        ("cpu", "<numa><cell id='0'/></numa>", "NUMA"),
        (".", "<memoryBacking><hugepages/></memoryBacking>", "huge pages"),
        (".", "<memoryBacking><access mode='shared'/></memoryBacking>", "shared"),
        (".", "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>", "pinned"),
        (".", "<launchSecurity type='sev'/>", "SEV"),
    ],
)
def test_what_cannot_be_moved_is_told(where: str, element: str, why: str) -> None:
    root = etree.fromstring(read("zed-image.in"))
    found = root.find(where)
    assert found is not None
    found.append(etree.fromstring(element))

    (reason,) = GuestXml(etree.tostring(root, encoding="unicode")).unsupported()

    assert why in reason


def test_a_topology_stays_as_long_as_the_number_of_cpus_does() -> None:
    text = "<domain><vcpu>4</vcpu><cpu><topology sockets='1' cores='2' threads='2'/></cpu></domain>"
    for vcpus, sockets in ((4, "1"), (6, "6")):
        resized = GuestXml(text).resized(memory_mb=64, vcpus=vcpus).tree()
        topology = resized.find("cpu/topology")
        assert topology is not None
        assert topology.get("sockets") == sockets
        assert resized.findtext("vcpu") == str(vcpus)


def test_a_definition_tells_how_it_is_run_and_what_its_firmware_keeps() -> None:
    plain = GuestXml(read("zed-image.in"))
    assert (plain.arch, plain.virt_type, plain.loader, plain.nvram) == ("x86_64", "qemu", "", "")
    assert plain.is_novas
    path = "/var/lib/libvirt/qemu/nvram/instance-00000a0b_VARS.fd"
    text = (
        "<domain type='kvm'><name>instance-00000a0b</name><os><type arch='aarch64'>hvm</type>"
        f"<loader>/usr/share/code.fd</loader><nvram template='/usr/share/vars.fd'>{path}</nvram>"
        "</os></domain>"
    )
    guest = GuestXml(text)
    assert (guest.arch, guest.virt_type) == ("aarch64", "kvm")
    assert (guest.loader, guest.nvram) == ("/usr/share/code.fd", path)
    assert not guest.is_novas
    assert guest.renamed("instance-00000c0d").nvram == path.replace("00000a0b", "00000c0d")
    newer = GuestXml(text.replace(f">{path}<", f" type='file'><source file='{path}'/><"))
    assert newer.nvram == path
    assert newer.renamed("instance-00000c0d").nvram == path.replace("00000a0b", "00000c0d")
    assert GuestXml(text.replace(f">{path}<", " type='network'><source/><")).nvram == "no file"


def test_entities_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    document = f"""<!DOCTYPE domain [<!ENTITY leak SYSTEM "file://{tmp_path}/secret">]>
        <domain><name>&leak;</name><vcpu>1</vcpu></domain>"""

    assert "secret" not in GuestXml(document).name


@pytest.mark.parametrize("text", ["", "no xml", "<domain>"])
def test_what_is_not_xml_is_refused(text: str) -> None:
    with pytest.raises(StepFailed, match="not XML"):
        GuestXml(text)
