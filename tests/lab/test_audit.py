"""`cellmove audit` on the lab: a server that is whole, and what is planted beside it."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from cellmove.hosts.xml import GuestXml
from cellmove.services.cinder import MICROVERSION as ATTACHMENTS
from cellmove.services.placement import MICROVERSION
from cellmove.services.service import Service
from tests.lab.kit.clean import assert_whole
from tests.lab.kit.nova import Nova, lab_session
from tests.lab.kit.places import HYPERVISORS, OUTPUTS, host_run, sql
from tests.lab.kit.program import Cellmove
from tests.lab.kit.volumes import Volumes

pytestmark = [pytest.mark.lab, pytest.mark.alone]

HOME, OTHER, THIRD = "cmp1b", "cmp2b", "cmp2a"
CHECKPOINT = "cellmove-01234567-1"


@pytest.fixture
def volumes(nova: Nova) -> Volumes:
    return Volumes(lab_session(project="demo"), nova)


@pytest.fixture
def server(nova: Nova, volumes: Volumes, blank: str) -> Iterator[tuple[str, str]]:
    """A server with a volume, and the volume."""
    with volumes.lent() as volume:
        server = nova.boot("audited", HOME, config_drive=False, more={"imageRef": blank})
        nova.wait_port(server, HOME)
        volumes.attach(server, volume)
        yield server, volume
        nova.discard(server)
        nova.servers.remove(server)
        for (attachment,) in reservations(server):
            attachments().send("DELETE", f"/attachments/{attachment}")
        volumes.wait_status(volume, "available")


def audit(cellmove: Cellmove, server: str, *more: str) -> Any:
    done = cellmove("audit", "--server", server, "--json", *more, check=False)
    assert done.code in (0, 7), done
    assert {f"Looking at {host}..." for host in HYPERVISORS} <= set(done.stderr.splitlines())
    return done.json()


def test_what_is_planted_is_found_and_mended(
    nova: Nova, cellmove: Cellmove, server: tuple[str, str]
) -> None:
    mine, volume = server
    assert_whole(cellmove, mine)

    (port,) = nova.ports(mine)
    plant_binding(port["id"])
    plant_reservation(volume, mine)
    consumer = plant_consumer(mine)
    domain = plant_domain(mine)
    plant_plug(mine, port)
    noted = ("--diskspec", "vda,checkpoint=bitmap", "--diskspec", "vdb,checkpoint=no")
    host_run(HOME, ["virsh", "checkpoint-create-as", mine, CHECKPOINT, *noted])

    found = audit(cellmove, mine)
    there = {(each["code"], each["host"]) for each in found["findings"]}
    assert there == {
        ("inactive-binding", OTHER),
        ("stale-reservation", None),
        ("phantom-consumer", OTHER),
        ("guest-left", OTHER),
        ("directory-left", OTHER),
        ("plug-left", THIRD),
        ("checkpoint", HOME),
    }
    assert {each["server"] for each in found["findings"]} == {mine}
    unsafe = [each["code"] for each in found["findings"] if not each["safe"]]
    assert unsafe == ["directory-left"]
    whole = cellmove("audit", "--json", check=False).json()
    assert whole["hosts"] == len(HYPERVISORS)
    assert {(e["code"], e["host"]) for e in whole["findings"] if e["server"] == mine} == there

    mended = audit(cellmove, mine, "--mend", "--yes")
    assert [each["error"] for each in mended["mended"]] == [None] * 6
    (left,) = mended["findings"]
    assert left["code"] == "directory-left"
    assert domain not in host_run(OTHER, ["virsh", "list", "--all", "--name"])
    assert f"tap{port['id'][:11]}" not in host_run(THIRD, ["ovs-vsctl", "list-ports", "br-int"])
    run_there(left["do"][-1])
    assert_whole(cellmove, mine)
    assert sql("api.placement", f"SELECT 1 FROM allocations WHERE consumer_id = '{consumer}'") == []
    assert nova.status(mine) == "ACTIVE"
    sql(
        "cell1.nova_cell1",
        f"DELETE FROM migrations WHERE uuid = '{consumer}' AND instance_uuid = '{mine}'",
    )


def test_what_a_server_that_is_gone_has_left_is_found(cellmove: Cellmove) -> None:
    gone = str(uuid.uuid4())
    plant_domain(gone)
    found = audit(cellmove, gone)
    assert {(e["code"], e["host"], e["safe"]) for e in found["findings"]} == {
        ("guest-without-server", OTHER, False),
        ("directory-left", OTHER, False),
    }
    for each in found["findings"]:
        run_there(each["do"][-1])
    assert_whole(cellmove, gone)


def plant_binding(port: str) -> None:
    network = lab_session().service("network")
    body = {"binding": {"host": OTHER, "vnic_type": "normal", "profile": {}}}
    answer = network.send("POST", f"/ports/{port}/bindings", body)
    assert answer.ok, answer.message


def plant_plug(server: str, port: dict[str, Any]) -> None:
    """As nova-compute leaves it that starts while the server leaves."""
    name, ids = f"tap{port['id'][:11]}", {"vm-uuid": server, "iface-id": port["id"]}
    settings = [f"external-ids:{key}={value}" for key, value in ids.items()]
    add = ["add-port", "br-int", name]
    host_run(THIRD, ["ovs-vsctl", *add, "--", "set", "Interface", name, *settings])


def attachments() -> Service:
    return lab_session(project="demo").service("block-storage", ATTACHMENTS)


def reservations(server: str) -> list[list[str]]:
    """What Cinder still reserves for the server, when a test has failed half-way."""
    where = f"instance_uuid = '{server}' AND deleted = 0"
    return sql("api.cinder", f"SELECT id FROM volume_attachment WHERE {where}")


def plant_reservation(volume: str, server: str) -> None:
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": server}}
    answer = attachments().send("POST", "/attachments", body)
    assert answer.ok, answer.message


def plant_consumer(server: str) -> str:
    """What a migration still holds that has failed."""
    migration = str(uuid.uuid4())
    sql(
        "cell1.nova_cell1",
        "INSERT INTO migrations (created_at, updated_at, deleted, uuid, instance_uuid, status,"
        " migration_type, source_compute, dest_compute, hidden, cross_cell_move)"
        f" VALUES (UTC_TIMESTAMP(), UTC_TIMESTAMP(), 0, '{migration}', '{server}', 'error',"
        f" 'resize', '{HOME}', '{OTHER}', 0, 1)",
    )
    ((provider,),) = sql(
        "cell2.nova_cell2", f"SELECT uuid FROM compute_nodes WHERE host = '{OTHER}' AND deleted = 0"
    )
    body = {
        "allocations": {provider: {"resources": {"VCPU": 1}}},
        "project_id": "lab",
        "user_id": "lab",
        "consumer_generation": None,
    }
    placement = lab_session().service("placement", MICROVERSION)
    answer = placement.send("PUT", f"/allocations/{migration}", body)
    assert answer.ok, answer.message
    return migration


def plant_domain(server: str) -> str:
    """A guest that is off, as nova would define it, and its directory; returns its name."""
    name = f"planted-{server[:8]}"
    novas = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>"
    xml = (
        f"<domain type='qemu'><name>{name}</name><uuid>{server}</uuid>"
        f"<metadata>{novas}</metadata><memory>65536</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    assert GuestXml(xml).is_novas
    host_run(OTHER, ["bash", "-c", 'virsh define /dev/stdin <<< "$0"', xml])
    host_run(OTHER, ["install", "-d", "-o", "nova", f"/var/lib/nova/instances/{server}"])
    return name


def run_there(command: str) -> None:
    """Run the command as it was printed, through the lab's SSH configuration."""
    _ssh, host, *argv = command.split()
    if "virsh" in argv:  # The account may not; an operator's own may.
        host_run(host, argv[argv.index("virsh") :])
        return
    subprocess.run(["ssh", "-F", str(OUTPUTS / "ssh_config"), host, *argv], check=True, timeout=60)
