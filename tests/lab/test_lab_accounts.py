"""Cellmove's account on bastion and hypervisors: what it is let do, and what not."""

from __future__ import annotations

import pytest

from tests.lab.inside import HYPERVISORS, as_cellmove, inside

pytestmark = pytest.mark.lab

INSTANCES = "/var/lib/nova/instances"
SERVER = "11111111-2222-3333-4444-555555555555"
TAP = "tap11111111-22"
ALLOWED = {
    "looks into an instance directory": f"-u nova ls -1A {INSTANCES}/{SERVER}",
    "makes an instance directory": f"-u nova mkdir -p {INSTANCES}/{SERVER}",
    "deletes an instance directory": f"-u nova rm -rf {INSTANCES}/{SERVER}",
    "unplugs a port": f"-u root ovs-vsctl --timeout=30 --if-exists del-port br-int {TAP}",
}
REFUSED = {
    "a shell": "-u root /bin/sh",
    "a shell as nova": "-u nova /bin/sh",
    "an interpreter": "-u nova /usr/bin/python3",
    "nova's passwords": "-u nova cat /etc/nova/nova.conf",
    "all instances": f"-u nova rm -rf {INSTANCES}",
    "a way out of the directory": f"-u nova rm -rf {INSTANCES}/{SERVER}/../x",
    "a second path": f"-u nova rm -rf {INSTANCES}/{SERVER} /etc",
    "a directory as root": f"-u root rm -rf {INSTANCES}/{SERVER}",
    "an image elsewhere": "-u nova qemu-img create -f qcow2 /etc/cron.d/x 1",
    "a bridge": "-u root ovs-vsctl --timeout=30 del-br br-int",
    "another's port": "-u root ovs-vsctl --timeout=30 --if-exists del-port br-int patch-x",
    "another account": "-u root -i",
}


@pytest.mark.parametrize("name", ["bastion", *HYPERVISORS])
def test_the_account_logs_in_by_key_through_the_bastion(name: str) -> None:
    assert as_cellmove(name).run("whoami; hostname").stdout.split() == ["cellmove", name]


@pytest.mark.parametrize("name", ["bastion", *HYPERVISORS])
def test_no_password_opens_the_account(name: str) -> None:
    host = inside(name)
    assert host.user("cellmove").password == "*"
    settings = host.check_output("/usr/sbin/sshd -T -f /etc/ssh/sshd_config_lab").splitlines()
    assert {"passwordauthentication no", "permitrootlogin no"} <= set(settings)


@pytest.mark.parametrize("name", HYPERVISORS)
def test_on_hypervisors_the_account_is_in_group_libvirt_only(name: str) -> None:
    assert sorted(inside(name).user("cellmove").groups) == ["cellmove", "libvirt"]
    assert inside(name).run("runuser -u cellmove -- virsh -c qemu:///system list").rc == 0


def test_on_the_bastion_the_account_has_no_group_but_its_own() -> None:
    assert inside("bastion").user("cellmove").groups == ["cellmove"]


@pytest.mark.parametrize("name", HYPERVISORS)
def test_sockets_have_a_directory_that_only_the_account_and_nova_enter(name: str) -> None:
    directory = inside(name).file("/var/lib/cellmove")
    assert (directory.user, directory.group, directory.mode) == ("cellmove", "nova", 0o770)


@pytest.mark.parametrize("command", ALLOWED.values(), ids=ALLOWED)
def test_sudo_allows(command: str) -> None:
    assert inside("cmp1a").run(f"runuser -u cellmove -- sudo -n -l {command}").rc == 0


@pytest.mark.parametrize("command", REFUSED.values(), ids=REFUSED)
def test_sudo_refuses(command: str) -> None:
    answer = inside("cmp1a").run(f"runuser -u cellmove -- sudo -n -l {command}")
    assert answer.rc == 1, answer.stdout


def test_sudo_does_nothing_on_the_bastion() -> None:
    answer = as_cellmove("bastion").run("sudo -n true")
    assert answer.rc == 1
    assert not inside("bastion").file("/etc/sudoers.d/cellmove").exists


@pytest.mark.parametrize("name", HYPERVISORS)
def test_the_account_reads_no_password_of_nova(name: str) -> None:
    assert inside(name).run("runuser -u cellmove -- cat /etc/nova/nova.conf").rc == 1
