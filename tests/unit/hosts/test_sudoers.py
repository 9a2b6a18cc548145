"""The rules and the commands are two lists of the same thing: here they are held together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jinja2
import pytest

from cellmove.hosts import connect, disks, firmware, inventory, iscsi, switch
from cellmove.hosts.disks import Layout
from cellmove.model import Port

TEMPLATE = Path(__file__).parents[3] / "playbooks" / "templates" / "sudoers.j2"
SERVER = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
LAYOUT = Layout()
PORT = Port("aaaaaaaa-bbcc-4ddd-8eee-ffffffffffff", "fa:16:3e:00:00:01", "cmp1a", "ACTIVE", "ovs")
HERE = LAYOUT.directory(SERVER)
DISK, HALF = LAYOUT.disk(SERVER, "disk"), LAYOUT.half(SERVER, "disk")
SOCKET = LAYOUT.socket(SERVER, "disk")
BASE = LAYOUT.base("0123456789abcdef0123456789abcdef01234567")
KEPT = LAYOUT.kept(SERVER, BASE.rpartition("/")[2])
BASE_HALF = LAYOUT.half(SERVER, disks.BASE)
BASE_SOCKET = LAYOUT.socket(SERVER, disks.BASE)
NVRAM = f"{firmware.DIRECTORY}/instance-0000000a_VARS.fd"
NFS = {"data": {"export": "192.0.2.1:/srv/volumes", "options": "-o vers=4.2"}}
MOUNT_POINT = connect.mount_path("/var/lib/nova/mnt", NFS)
TARGET: dict[str, object] = {
    "target_portal": "192.0.2.1:3260",
    "target_iqn": "iqn.2010-10.org.openstack:volume-1",
    "target_lun": 300,
}
TARGET_6 = {**TARGET, "target_portal": "[2001:db8::1]:3260"}

AS_NOVA = {
    "make a mount point": connect.make_mount_point(MOUNT_POINT),
    "look for the directory": disks.exists(HERE),
    "list it": disks.listing(HERE),
    "list all directories": disks.listing(LAYOUT.instances_path),
    "find what is half copied": inventory.find_halves(LAYOUT.instances_path),
    "read nova's note": disks.content(LAYOUT.info(SERVER)),
    "look at a disk": disks.image_info(DISK, "qcow2"),
    "look at a disk of unknown format": disks.image_info(LAYOUT.disk(SERVER, "disk.eph0"), None),
    "make the directory": disks.make_directory(HERE),
    "write nova's note": disks.write(LAYOUT.info(SERVER)),
    "delete a half": disks.remove_half(HALF),
    "make an image": disks.image_create(HALF, "raw", 1 << 40),
    "keep an image": disks.keep_whole(HALF, DISK),
    "delete the directory": disks.remove_directory(HERE),
    "serve a disk": disks.image_server(DISK, "qcow2", SOCKET, read_only=True),
    "serve what is dirty": disks.image_server(
        DISK, "qcow2", SOCKET, read_only=True, bitmap="cellmove-0123abcd-12"
    ),
    "serve an image": disks.image_server(HALF, "raw", SOCKET, read_only=False),
    "see what a half lies on": disks.image_info(HALF, "qcow2", chain=False),
    "make an image on a base": disks.image_create(HALF, "qcow2", 1 << 40, BASE),
    "look for a base": disks.is_file(BASE),
    "look at a base": disks.image_info(BASE, "raw"),
    "serve a base": disks.image_server(BASE, "raw", BASE_SOCKET, read_only=True),
    "make the cache": disks.make_directory(LAYOUT.cache),
    "keep a base": disks.keep_base(BASE_HALF, BASE),
    "delete a base": disks.remove(BASE),
    "delete the link to a base": disks.remove(KEPT),
}
AS_ROOT = {
    "link a base": disks.link(BASE, KEPT),
    "put a base back": disks.link(KEPT, BASE),
    "mount": connect.mount(NFS, MOUNT_POINT, "hard,timeo=600"),
    "mount as it is": connect.mount({"data": {"export": "[2001:db8::1]:/"}}, MOUNT_POINT, ""),
    "name the initiator": connect.initiator(),
    "forget an iSCSI device": iscsi.forget_device(iscsi.EXAMPLE_PLACE),
    **{f"iSCSI: {each.__name__}": each(TARGET) for each in iscsi.PRIVILEGED},
    **{f"iSCSI over IPv6: {each.__name__}": each(TARGET_6) for each in iscsi.PRIVILEGED},
    "delete a bitmap": disks.remove_bitmap(DISK, "cellmove-0123abcd-12"),
    "plug": switch.plug("br-int", SERVER, PORT),
    "unplug": switch.unplug("br-int", PORT),
    "list ports": switch.ports("br-int"),
    "look at a port": switch.attachment(PORT),
    "look at all ports": switch.records(),
    "look for a firmware's variables": firmware.exists(NVRAM),
    "read them": firmware.content(NVRAM),
    "write them": firmware.write(NVRAM),
    "delete them": firmware.remove(NVRAM),
}
REFUSED = {
    "a mount elsewhere": connect.mount(NFS, "/etc", ""),
    "a mount whose files gain rights": (
        *("/usr/bin/mount", "-t", "nfs", "-o", "nosuid,nodev,suid"),
        *("192.0.2.1:/srv", MOUNT_POINT),
    ),
    "a mount of another kind": ("/usr/bin/mount", "--bind", "/etc", MOUNT_POINT),
    "a disk of the host's own": iscsi.forget_device("/sys/devices/pci0000:00/0000:00:1f.2/ata1"),
    "an iSCSI secret": (
        *iscsi.record(TARGET),
        "--op",
        "update",
        "-n",
        "node.session.auth.password",
    ),
    "a shell": ("/bin/sh", "-c", "id"),
    "another server's parent": disks.remove_directory("/var/lib/nova/instances"),
    "a way out": disks.remove_directory(f"{HERE}/../{OTHER}/.."),
    "two directories": ("/usr/bin/rm", "-rf", HERE, "/"),
    "a whole disk": disks.remove_half(DISK),
    "any file": disks.content("/etc/shadow"),
    "another note": disks.write(DISK),
    "a disk in place": ("/usr/bin/qemu-img", "create", "-q", "-f", "raw", DISK, "1"),
    "a backing file": ("/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "-b", "/x", HALF, "1"),
    "writing a whole disk": disks.image_server(DISK, "qcow2", SOCKET, read_only=False),
    "another's bitmap": (
        "/usr/bin/qemu-img",
        "bitmap",
        "--remove",
        "-f",
        "qcow2",
        DISK,
        "backup-1",
    ),
    "adding a bitmap": ("/usr/bin/qemu-img", "bitmap", "--add", DISK, "cellmove-0123abcd-1"),
    "a base that is written": disks.image_server(BASE, "raw", BASE_SOCKET, read_only=False),
    "a base of another format": disks.image_server(BASE, "qcow2", BASE_SOCKET, read_only=True),
    "a base over another": ("/usr/bin/mv", "-T", HALF, BASE),
    "the whole cache": disks.remove(f"{LAYOUT.cache}/*"),
    "a link to any file": disks.link("/etc/shadow", KEPT),
    "a disk on any file": disks.image_create(HALF, "qcow2", 1 << 40, "/etc/shadow"),
    "another socket": disks.image_server(DISK, "qcow2", "/tmp/x.sock", read_only=True),
    "a TCP port": ("/usr/bin/qemu-nbd", "--port=10809", DISK),
    "another bridge": switch.unplug("br-ex", PORT),
    "more of what is plugged": (*switch.records()[:3], "list", "Interface"),
    "another table": (*switch.records()[:-1], "Bridge"),
    "a whole bridge": ("/usr/bin/ovs-vsctl", "--timeout=30", "del-br", "br-int"),
    "more than one change": (*switch.unplug("br-int", PORT), "--", "del-br", "br-int"),
    "any file as a firmware's variables": (
        "/usr/bin/install",
        "--mode=0600",
        "/dev/stdin",
        "/etc/passwd",
    ),
    "a way out of the firmware's directory": (
        "/usr/bin/base64",
        "--wrap=0",
        f"{firmware.DIRECTORY}/../x_VARS.fd",
    ),
    "a search that runs something": (
        *inventory.find_halves(LAYOUT.instances_path),
        *("-exec", "/usr/bin/rm", "{}", ";"),
    ),
    "a search elsewhere": inventory.find_halves("/etc"),
    "a list of another directory": disks.listing("/etc"),
    "a set-uid file": ("/usr/bin/install", "--mode=4755", "/dev/stdin", NVRAM),
    "all of the firmware's directory": ("/usr/bin/rm", "-f", f"{firmware.DIRECTORY}/*"),
    "a patch port": (*switch.unplug("br-int", PORT)[:-1], "int-br-ex"),
}


def render(**variables: str) -> str:
    environment = jinja2.Environment(  # As Ansible does it.
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text()).render(**variables)


def allowed(rendered: str, user: str) -> list[tuple[str, str]]:
    """Program and expression of every rule for this user, aliases resolved."""
    joined = rendered.replace("\\\n", " ")
    aliases = dict(re.findall(r"^Cmnd_Alias (\w+) = (.*)$", joined, re.MULTILINE))
    found: list[tuple[str, str]] = []
    for rule in re.findall(rf"^cellmove ALL=\({user}\) .*NOPASSWD: (.*)$", joined, re.MULTILINE):
        for command in re.split(r"(?<=\$),\s*", aliases.get(rule, rule)):
            program, _, expression = command.partition(" ")
            found.append((program, expression))
    return found


def matching(rendered: str, user: str, argv: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (program, expression)
        for program, expression in allowed(rendered, user)
        if program == argv[0] and re.fullmatch(expression, " ".join(argv[1:]))
    ]


def visudo(path: Path) -> subprocess.CompletedProcess[str]:
    command = ["/usr/sbin/visudo", "-cf", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {
            "cellmove_user": "mover",
            "instances_path": "/srv/nova.d/instances",
            "socket_dir": "/run/cellmove",
            "bridge": "br-tenant",
        },
    ],
)
def test_sudo_takes_the_rules(tmp_path: Path, variables: dict[str, str]) -> None:
    path = tmp_path / "sudoers"
    path.write_text(render(**variables))
    path.chmod(0o440)

    assert visudo(path).returncode == 0, visudo(path).stderr


@pytest.mark.parametrize("what", AS_NOVA)
def test_nova_may_do_what_we_need(what: str) -> None:
    assert len(matching(render(), "nova", AS_NOVA[what])) == 1


@pytest.mark.parametrize("what", AS_ROOT)
def test_root_may_do_what_we_need(what: str) -> None:
    assert len(matching(render(), "root", AS_ROOT[what])) == 1


def test_nothing_else_is_allowed() -> None:
    rendered = render()
    needed = [matching(rendered, "nova", argv)[0] for argv in AS_NOVA.values()]
    needed += [matching(rendered, "root", argv)[0] for argv in AS_ROOT.values()]

    assert sorted(set(needed)) == sorted(allowed(rendered, "nova") + allowed(rendered, "root"))


@pytest.mark.parametrize("what", REFUSED)
def test_what_could_do_harm_matches_no_rule(what: str) -> None:
    rendered = render()

    for user in ("nova", "root"):
        assert matching(rendered, user, REFUSED[what]) == []


def test_every_argument_is_matched_by_a_whole_expression() -> None:
    for _, expression in allowed(render(), "nova") + allowed(render(), "root"):
        assert expression.startswith("^")
        assert expression.endswith("$")
        assert len(expression) < 1024  # sudo's limit
