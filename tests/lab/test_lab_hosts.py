"""What each part of the lab runs, as whom, and what it does not see."""

from __future__ import annotations

import subprocess

import pytest
from testinfra.host import Host

from tests.lab.inside import HYPERVISORS, OUTPUTS, inside

pytestmark = pytest.mark.lab

ADDRESSES = {
    "cmp1a": "10.98.1.11",
    "cmp1b": "10.98.1.12",
    "cmp2a": "10.98.2.11",
    "cmp2b": "10.98.2.12",
}
HOST_DAEMONS = {
    "sshd": "root",
    "virtlogd": "root",
    "libvirtd": "root",
    "ovsdb-server": "root",
    "ovs-vswitchd": "root",
    "taps-up": "root",
    "neutron-openvswitch-agent": "neutron",
    "nova-compute": "nova",
}
SERVICES = {
    "mariadb-api",
    "mariadb-cell1",
    "mariadb-cell2",
    "rabbitmq",
    "memcached",
    "identity:keystone",
    "cloud:placement",
    "cloud:glance-api",
    "cloud:neutron-server",
    "cloud:cinder-api",
    "cloud:cinder-scheduler",
    "cloud:cinder-volume",
    "cloud:nova-api",
    "cloud:nova-scheduler",
    "cloud:nova-conductor-super",
    "cloud:nova-conductor-cell1",
    "cloud:nova-conductor-cell2",
    "heartbeat-monitor",
}


def running(host: Host) -> dict[str, str]:
    """Each daemon that a host's supervisor says is running, and its process id."""
    rows = [line.split() for line in host.run("supervisorctl status").stdout.splitlines()]
    return {row[0]: row[3].rstrip(",") for row in rows if row[1] == "RUNNING"}


@pytest.mark.parametrize("name", HYPERVISORS)
def test_a_hypervisor_runs_its_daemons_as_their_own_users(name: str) -> None:
    host = inside(name)
    users = {
        daemon: host.check_output("ps -o user= -p %s", pid) for daemon, pid in running(host).items()
    }
    assert users == HOST_DAEMONS


def test_the_bastion_runs_sshd_and_nothing_else() -> None:
    assert set(running(inside("bastion"))) == {"sshd"}


def test_the_services_run() -> None:
    assert set(running(inside("ctl"))) == SERVICES


@pytest.mark.parametrize("name", HYPERVISORS)
def test_a_hypervisor_has_a_name_and_an_address_of_its_own(name: str) -> None:
    host = inside(name)
    assert host.run("hostname").stdout.strip() == name
    assert host.interface("eth0").addresses == [ADDRESSES[name]]


def test_no_two_hypervisors_are_the_same_machine_to_libvirt() -> None:
    capabilities = [inside(name).check_output("virsh capabilities") for name in HYPERVISORS]
    uuids = {text.split("<uuid>")[1][:36] for text in capabilities}
    assert len(uuids) == len(HYPERVISORS)


@pytest.mark.parametrize("name", HYPERVISORS)
def test_a_hypervisor_cannot_offer_kvm(name: str) -> None:
    assert not inside(name).file("/dev/kvm").exists


@pytest.mark.parametrize("name", ["bastion", *HYPERVISORS])
def test_a_host_sees_neither_the_checkout_nor_the_secrets_of_the_lab(name: str) -> None:
    host = inside(name)
    assert not host.file(str(OUTPUTS)).exists
    assert not host.file("/var/lib/cellmove-lab/secrets").exists


@pytest.mark.parametrize("name", HYPERVISORS)
def test_instances_belong_to_nova(name: str) -> None:
    directory = inside(name).file("/var/lib/nova/instances")
    assert (directory.user, directory.group) == ("nova", "nova")


def test_the_lab_says_that_it_is_well() -> None:
    said = subprocess.run(
        ["/var/lib/cellmove-lab/bin/status.py"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout
    assert "the lab is well" in said.stdout
