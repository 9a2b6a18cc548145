#!/usr/bin/python3
"""seed.py identity|cloud: what a new lab holds. Runs once, on the way to the pristine copy."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import openstack
from keystoneauth1.exceptions import ClientException
from openstack.connection import Connection

LAB = Path(__file__).resolve().parents[1]
SERVICES = {  # user: (service name, type, port and path)
    "nova": ("nova", "compute", "8774/v2.1"),
    "neutron": ("neutron", "network", "9696"),
    "cinder": ("cinderv3", "volumev3", "8776/v3/%(project_id)s"),
    "glance": ("glance", "image", "9292"),
    "placement": ("placement", "placement", "8778"),
}
FLAVORS = {  # name: MiB of memory, GB of root disk, GB of ephemeral disk
    "c1": (128, 2, 0),
    "c2": (160, 3, 0),
    "e1": (128, 2, 1),
}
KEYSTONE_PATIENCE_SECONDS = 120


def connect(cloud: str) -> Connection:
    """A connection by the lab's clouds.yaml, once Keystone answers."""
    connection = openstack.connect(cloud=cloud)
    deadline = time.monotonic() + KEYSTONE_PATIENCE_SECONDS
    while True:
        try:
            connection.authorize()
        except (ClientException, openstack.exceptions.SDKException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return connection


def add_user(lab: Connection, name: str, project: str, roles: tuple[str, ...]) -> None:
    """A user with its password from the lab's secrets, and its roles in one project."""
    identity = lab.identity
    home = identity.find_project(project)
    secret = "service" if name in SERVICES else name
    user = identity.create_user(
        name=name,
        password=(LAB / "secrets" / secret).read_text().strip(),
        domain_id="default",
        default_project_id=home.id,
    )
    for role in roles:
        identity.assign_project_role_to_user(home, user, identity.find_role(role))


def seed_identity(lab: Connection) -> None:
    """Projects, users and roles; endpoints of every service."""
    identity = lab.identity
    base = lab.config.get_auth_args()["auth_url"].removesuffix("5000/v3")
    for role in ("service", "member", "reader"):
        if identity.find_role(role) is None:
            identity.create_role(name=role)
    for project in ("service", "demo"):
        identity.create_project(name=project, domain_id="default")
    for user, (title, kind, path) in SERVICES.items():
        add_user(lab, user, "service", ("admin", "service"))
        service = identity.create_service(name=title, type=kind)
        for interface in ("public", "internal"):
            identity.create_endpoint(
                service_id=service.id,
                interface=interface,
                url=base + path,
                region_id="RegionOne",
            )
    add_user(lab, "cellmove", "service", ("admin", "service"))
    add_user(lab, "demo", "demo", ("member",))
    # An admin makes the customer's servers where a test wants them.
    identity.assign_project_role_to_user(
        identity.find_project("demo"), identity.find_user("admin"), identity.find_role("admin")
    )


def seed_cloud(lab: Connection) -> None:
    """Image, flavors, networks, volume type; a keypair of each user's."""
    lab.create_image(
        "tiny",
        filename=str(LAB / "guest" / "tiny.qcow2"),
        disk_format="qcow2",
        container_format="bare",
        min_disk=2,
        visibility="public",
        wait=True,
    )
    for name, (ram, disk, ephemeral) in FLAVORS.items():
        lab.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=disk, ephemeral=ephemeral)
    add_network(lab, "flat1", "10.77.0", provider_network_type="flat")
    add_network(
        lab, "vlan100", "10.78.0", provider_network_type="vlan", provider_segmentation_id=100
    )
    lab.block_storage.create_type(name="nfs", extra_specs={"volume_backend_name": "nfs1"})
    lab.block_storage.create_type(
        name="shared", extra_specs={"volume_backend_name": "nfs1", "multiattach": "<is> True"}
    )
    public_key = (LAB / "keys" / "cellmove.pub").read_text()
    for cloud in ("lab", "demo"):
        connect(cloud).compute.create_keypair(name="lab", public_key=public_key)


def add_network(lab: Connection, name: str, prefix: str, **provider: str | int) -> None:
    """A shared network without DHCP: guests learn their address from the config drive."""
    network = lab.network.create_network(
        name=name, is_shared=True, provider_physical_network="physnet1", **provider
    )
    lab.network.create_subnet(
        name=name,
        network_id=network.id,
        ip_version=4,
        cidr=f"{prefix}.0/24",
        enable_dhcp=False,
        gateway_ip=None,
        allocation_pools=[{"start": f"{prefix}.50", "end": f"{prefix}.250"}],
    )


if __name__ == "__main__":
    {"identity": seed_identity, "cloud": seed_cloud}[sys.argv[1]](connect("lab"))
