"""Two cells and an API database in SQLite files, and servers in them as nova 26 writes them."""

from __future__ import annotations

import datetime
import functools
import json
import sqlite3
import tempfile
import uuid as uuids
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from cellmove.dbcopy.database import Database, Rows, Schema, now
from cellmove.model import Cell, Flavor, Port
from tests.fakes import schema

CELL0 = "00000000-0000-0000-0000-000000000000"
CELL1 = Cell(2, "c1c1c1c1-0000-4000-8000-000000000001", "cell1")
CELL2 = Cell(3, "c2c2c2c2-0000-4000-8000-000000000002", "cell2")
CELLS = (CELL1, CELL2)
HOSTS = {"cmp1a": CELL1, "cmp1b": CELL1, "cmp2a": CELL2, "cmp2b": CELL2}
ZONES = {CELL1.uuid: "az1", CELL2.uuid: "az2"}
PROJECT = "9a1b2c3d4e5f60718293a4b5c6d7e8f9"
USER = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
IMAGE = "6d4fa5a3-55a9-4b65-9c4c-1d1f8b0c3d61"
NETWORK = "f3c4a6de-8a34-4e0a-9df3-f5a1f2f6f0aa"
NEIGHBOURS = {
    "cmp1a": "eeeeeeee-1a1a-4aaa-8aaa-000000000001",
    "cmp2a": "eeeeeeee-2a2a-4aaa-8aaa-000000000002",
}
"""Foreign servers that are always there: nobody's move may touch them."""

C1 = Flavor(4, "c1", "c1", 128, 1, 2, 0, 0, created_at="2026-11-01T08:00:00Z")
C2 = Flavor(
    5,
    "c2",
    "c2",
    160,
    1,
    3,
    0,
    0,
    extra_specs={"team:x": "1"},
    created_at="2026-11-01T08:00:01Z",
)
FLAVORS = {"c1": C1, "c2": C2}

BORN = datetime.datetime(2026, 11, 20, 9, 0, 0)
_FIRST_IDS = {CELL1.uuid: 100, CELL2.uuid: 700}
"""So that an id of one cell never means something in the other."""


def fake_databases(folder: Path) -> tuple[Database, dict[str, Database]]:
    """An API database and two cells of two hosts each, in SQLite files under `folder`."""
    for name, content in _templates().items():
        (folder / name).write_bytes(content)
    of_api, of_cell = _schemas()
    api = Database(_url(folder, "api"), name="the API database", schema=of_api)
    cells = {
        cell.uuid: Database(_url(folder, cell.name), name=f"cell {cell.name}", schema=of_cell)
        for cell in CELLS
    }
    # URLs are only known now.
    with api.write() as rows:
        for cell in CELLS:
            url = _url(folder, cell.name)
            rows.change(
                "cell_mappings",
                {"database_connection": url, "updated_at": None},
                id=cell.id,
            )
    for database in cells.values():
        with database.write() as rows:
            rows.change("services", {"last_seen_up": now()}, expect=None, deleted=0)
    return api, cells


def snapshot(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables: what a law compares that says `nothing changed`.

    Read with sqlite3 itself: the code under test is not asked.
    """
    connection = sqlite3.connect(str(db._engine.url.database))
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        return {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            for (name,) in names.fetchall()
            if not name.startswith("sqlite_")
        }
    finally:
        connection.close()


@contextmanager
def counted(db: Database) -> Iterator[list[str]]:
    """The statements sent to a database while the block runs: each one is a round trip."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        sent.append(statement)

    event.listen(db._engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(db._engine, "before_cursor_execute", note)


def port_of(server: str, host: str) -> Port:
    """The one port that `add_server` gives a server."""
    last = uuids.UUID(server).bytes[-3:]
    return Port(
        id=str(uuids.uuid5(uuids.NAMESPACE_OID, f"port of {server}")),
        mac="fa:16:3e:" + ":".join(f"{byte:02x}" for byte in last),
        host=host,
        status="ACTIVE",
        vif_type="ovs",
        details={
            "port_filter": True,
            "connectivity": "l2",
            "bound_drivers": {"0": "openvswitch"},
        },
    )


def add_server(
    api: Database,
    cell: Database,
    *,
    uuid: str,
    host: str,
    vm_state: str = "active",
    name: str = "web-1",
    flavor: Flavor = C1,
    project: str = PROJECT,
    **columns: Any,
) -> None:
    """Write a server as nova 26 leaves one that has been built and once resized within its cell.

    It has an image's root disk, one port, a tag, metadata, two actions with their events and a
    confirmed migration. `columns` overrides columns of its `instances` row.
    """
    with cell.write() as rows:
        instance = _instance(uuid, host, vm_state, name, flavor) | {"project_id": project}
        rows.insert("instances", [instance | columns])
        _add_details(rows, uuid, host, flavor)
        _add_devices(rows, uuid, host)
        _add_history(rows, uuid, host, flavor)
    with api.write() as rows:
        mapping = {
            "instance_uuid": uuid,
            "cell_id": HOSTS[host].id,
            "project_id": project,
            "user_id": USER,
            "queued_for_delete": False,
        }
        rows.insert("instance_mappings", [mapping | _times(BORN)])
        spec = json.dumps(request_spec(uuid, flavor))
        rows.insert("request_specs", [{"instance_uuid": uuid, "spec": spec} | _times(BORN)])


def envelope(name: str, version: str, data: Mapping[str, Any], *changes: str) -> dict[str, Any]:
    """A versioned object as nova writes it."""
    made = {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": dict(data),
    }
    return made | ({"nova_object.changes": list(changes)} if changes else {})


def flavor_envelope(flavor: Flavor) -> dict[str, Any]:
    """A flavor as nova 26 keeps it in `instance_extra.flavor`."""
    data = {
        "id": flavor.id,
        "name": flavor.name,
        "memory_mb": flavor.memory_mb,
        "vcpus": flavor.vcpus,
        "root_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "flavorid": flavor.flavorid,
        "swap": flavor.swap_mb,
        "rxtx_factor": flavor.rxtx_factor,
        "vcpu_weight": flavor.vcpu_weight,
        "disabled": flavor.disabled,
        "is_public": flavor.is_public,
        "extra_specs": dict(flavor.extra_specs),
        "description": None,
        "created_at": flavor.created_at,
        "updated_at": flavor.updated_at,
        "deleted_at": None,
        "deleted": False,
    }
    return envelope("Flavor", "1.2", data)


def request_spec(uuid: str, flavor: Flavor) -> dict[str, Any]:
    """A request spec as nova 26 keeps it."""
    properties = envelope("ImageMetaProps", "1.34", {"hw_disk_bus": "virtio"}, "hw_disk_bus")
    image = {
        "id": IMAGE,
        "name": "guest",
        "min_ram": 0,
        "min_disk": 0,
        "properties": properties,
    }
    limits = dict.fromkeys(("numa_topology", "vcpu", "disk_gb", "memory_mb"))
    data = {
        "image": envelope("ImageMeta", "1.8", image, "id", "name"),
        "numa_topology": None,
        "pci_requests": envelope("InstancePCIRequests", "1.1", {"requests": []}, "requests"),
        "project_id": PROJECT,
        "user_id": USER,
        "availability_zone": None,
        "flavor": flavor_envelope(flavor),
        "num_instances": 1,
        "ignore_hosts": None,
        "force_hosts": None,
        "force_nodes": None,
        "requested_destination": None,
        "retry": None,
        "limits": envelope("SchedulerLimits", "1.0", limits),
        "instance_group": None,
        "scheduler_hints": {},
        "instance_uuid": uuid,
        "security_groups": envelope("SecurityGroupList", "1.1", {"objects": []}),
        "is_bfv": False,
        "requested_resources": None,
    }
    return envelope("RequestSpec", "1.14", data, "flavor", "image", "is_bfv")


def _instance(uuid: str, host: str, vm_state: str, name: str, flavor: Flavor) -> dict[str, Any]:
    return _times(BORN, updated=5) | {
        "uuid": uuid,
        "user_id": USER,
        "image_ref": IMAGE,
        "kernel_id": "",
        "ramdisk_id": "",
        "hostname": name,
        "launch_index": 0,
        "power_state": 1 if vm_state == "active" else 4,
        "vm_state": vm_state,
        "memory_mb": flavor.memory_mb,
        "vcpus": flavor.vcpus,
        "root_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "host": host,
        "node": host,
        "instance_type_id": flavor.id,
        "reservation_id": "r-abcd1234",
        "launched_at": BORN + datetime.timedelta(seconds=5),
        "availability_zone": ZONES[HOSTS[host].uuid],
        "display_name": name,
        "display_description": name,
        "launched_on": host,
        "locked": False,
        "root_device_name": "/dev/vda",
        "config_drive": "",
        "auto_disk_config": True,
        "progress": 0,
        "shutdown_terminate": False,
        "disable_terminate": False,
        "cleaned": 0,
        "hidden": False,
    }


def _add_details(rows: Rows, uuid: str, host: str, flavor: Flavor) -> None:
    owned = {"instance_uuid": uuid} | _times(BORN)
    flavors = {"cur": flavor_envelope(flavor), "old": None, "new": None}
    extra = {
        "flavor": json.dumps(flavors),
        "pci_requests": "[]",
        "keypairs": json.dumps(envelope("KeyPairList", "1.3", {"objects": []}, "objects")),
        "vcpu_model": json.dumps(envelope("VirtCPUModel", "1.0", {"arch": None}, "arch")),
    }
    rows.insert("instance_extra", [owned | extra])
    cache = json.dumps([_vif(port_of(uuid, host))])
    rows.insert("instance_info_caches", [owned | {"network_info": cache}])
    rows.insert("instance_metadata", [owned | {"key": "role", "value": "web"}])
    system = {
        "image_min_ram": "0",
        "image_base_image_ref": IMAGE,
        "image_hw_disk_bus": "virtio",
        "owner_project_name": None,
    }
    values = [owned | {"key": key, "value": value} for key, value in system.items()]
    rows.insert("instance_system_metadata", values)
    fault = {"code": 500, "message": "once", "details": "long ago", "host": host}
    rows.insert("instance_faults", [owned | fault])
    rows.insert("instance_id_mappings", [{"uuid": uuid} | _times(BORN)])
    rows.insert("tags", [{"resource_id": uuid, "tag": tag} for tag in ("blue", "green")])


def _add_devices(rows: Rows, uuid: str, host: str) -> None:
    owned = {"instance_uuid": uuid} | _times(BORN)
    disk = {
        "uuid": str(uuids.uuid5(uuids.NAMESPACE_OID, f"disk of {uuid}")),
        "source_type": "image",
        "destination_type": "local",
        "device_type": "disk",
        "disk_bus": "virtio",
        "boot_index": 0,
        "device_name": "/dev/vda",
        "delete_on_termination": True,
        "image_id": IMAGE,
        "connection_info": None,
        "encrypted": False,
    }
    rows.insert("block_device_mapping", [owned | disk])
    port = port_of(uuid, host)
    vif = {
        "address": f"{port.mac}/{port.id}",
        "uuid": port.id,
        "tag": None,
        "network_id": None,
    }
    rows.insert("virtual_interfaces", [owned | vif])


def _add_history(rows: Rows, uuid: str, host: str, flavor: Flavor) -> None:
    owned = {"instance_uuid": uuid}
    for minutes, (action, events) in enumerate(
        (
            (
                "create",
                (
                    "conductor_schedule_and_build_instances",
                    "compute__do_build_and_run_instance",
                ),
            ),
            (
                "resize",
                ("conductor_migrate_server", "cold_migrate", "compute_prep_resize"),
            ),
        )
    ):
        at = BORN + datetime.timedelta(minutes=minutes)
        request = f"req-{uuids.uuid5(uuids.NAMESPACE_OID, action + uuid)}"
        who = {
            "user_id": USER,
            "project_id": PROJECT,
            "request_id": request,
            "start_time": at,
        }
        (action_id,) = rows.insert(
            "instance_actions",
            [owned | who | {"action": action} | _times(at, updated=3)],
        )
        done = {
            "action_id": action_id,
            "start_time": at,
            "result": "Success",
            "host": host,
        }
        ends = {"finish_time": at + datetime.timedelta(seconds=2)} | _times(at, updated=2)
        rows.insert(
            "instance_actions_events",
            [done | ends | {"event": name} for name in events],
        )
    old = {
        "uuid": str(uuids.uuid5(uuids.NAMESPACE_OID, f"old migration of {uuid}")),
        "source_compute": host,
        "dest_compute": host,
        "source_node": host,
        "dest_node": host,
        "dest_host": "192.0.2.1",
        "status": "confirmed",
        "migration_type": "resize",
        "user_id": USER,
        "project_id": PROJECT,
        "old_instance_type_id": flavor.id,
        "new_instance_type_id": flavor.id,
        "hidden": False,
        "cross_cell_move": False,
    }
    rows.insert("migrations", [owned | old | _times(BORN, updated=60)])


def _vif(port: Port) -> dict[str, Any]:
    address = {"type": "fixed", "version": 4, "meta": {}, "floating_ips": []}
    subnet = {
        "cidr": "10.0.0.0/24",
        "dns": [],
        "gateway": {"address": "10.0.0.1", "type": "gateway", "version": 4, "meta": {}},
        "ips": [address | {"address": "10.0.0.5"}],
        "routes": [],
        "version": 4,
        "meta": {"dhcp_server": "10.0.0.2"},
    }
    network = {
        "id": NETWORK,
        "bridge": "br-int",
        "label": "tenant",
        "subnets": [subnet],
        "meta": {
            "injected": False,
            "tenant_id": PROJECT,
            "mtu": 1450,
            "physical_network": None,
            "tunneled": True,
        },
    }
    return {
        "id": port.id,
        "address": port.mac,
        "network": network,
        "type": port.vif_type,
        "details": dict(port.details),
        "devname": port.device,
        "ovs_interfaceid": port.id,
        "qbh_params": None,
        "qbg_params": None,
        "active": True,
        "vnic_type": port.vnic_type,
        "profile": {},
        "preserve_on_delete": False,
        "delegate_create": True,
        "meta": {},
    }


def _times(created: datetime.datetime, updated: int | None = None) -> dict[str, Any]:
    """`updated`: seconds after the creation; None: never."""
    later = None if updated is None else created + datetime.timedelta(seconds=updated)
    return {"created_at": created, "updated_at": later}


def _url(folder: Path, name: str) -> str:
    return f"sqlite:///{folder / name}"


@functools.cache
def _schemas() -> tuple[Schema, Schema]:
    """Of the API database and of a cell: reflected once a process, not once a test."""
    return Schema(), Schema()


@functools.cache
def _templates() -> dict[str, bytes]:
    """The three files as every test begins with them: made once, then copied."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, metadata in (
            ("api", schema.API),
            *((cell.name, schema.CELL) for cell in CELLS),
        ):
            engine = sa.create_engine(_url(folder, name))
            metadata.create_all(engine)
            engine.dispose()
        api = Database(_url(folder, "api"), name="api")
        cells = {cell.uuid: Database(_url(folder, cell.name), name=cell.name) for cell in CELLS}
        for cell in CELLS:
            _begin_ids(cells[cell.uuid], _FIRST_IDS[cell.uuid])
        for database, version in (
            (api, "b30f573d3377"),
            *((cells[cell.uuid], "ccb0fa1a2252") for cell in CELLS),
        ):
            with database.write() as rows:
                rows.insert("alembic_version", [{"version_num": version}])
        fill(api, cells)
        for database in (api, *cells.values()):
            database.close()
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _begin_ids(database: Database, first: int) -> None:
    tables = [
        (name, first) for name in schema.CELL.tables if name not in ("tags", "alembic_version")
    ]
    with closing(sqlite3.connect(str(database._engine.url.database))) as connection:
        connection.executemany("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", tables)
        connection.commit()


def fill(api: Database, cells: Mapping[str, Database]) -> None:
    """The mappings, hosts, flavors and neighbours of the fake cloud, into schemas without rows."""
    _fill_api(api)
    for cell in CELLS:
        _fill_cell(cells[cell.uuid], cell)
    for host, server in NEIGHBOURS.items():
        cell = HOSTS[host]
        add_server(api, cells[cell.uuid], uuid=server, host=host, name=f"other-{cell.name}")


def _fill_api(api: Database) -> None:
    with api.write() as rows:
        common = {
            "transport_url": "rabbit://",
            "database_connection": "",
            "disabled": False,
        }
        named = [
            (1, CELL0, "cell0"),
            *((cell.id, cell.uuid, cell.name) for cell in CELLS),
        ]
        values = [common | {"id": id_, "uuid": uuid, "name": name} for id_, uuid, name in named]
        rows.insert("cell_mappings", values)
        hosts = [{"host": host, "cell_id": cell.id} for host, cell in HOSTS.items()]
        rows.insert("host_mappings", hosts)
        for cell in CELLS:
            zone = ZONES[cell.uuid]
            (aggregate,) = rows.insert("aggregates", [{"uuid": cell.uuid, "name": zone}])
            named_zone = {
                "aggregate_id": aggregate,
                "key": "availability_zone",
                "value": zone,
            }
            rows.insert("aggregate_metadata", [named_zone])
            members = [host for host, its in HOSTS.items() if its == cell]
            values = [{"aggregate_id": aggregate, "host": host} for host in members]
            rows.insert("aggregate_hosts", values)
        for flavor in FLAVORS.values():
            _add_flavor(rows, flavor)


def _add_flavor(rows: Rows, flavor: Flavor) -> None:
    row = {
        "id": flavor.id,
        "name": flavor.name,
        "flavorid": flavor.flavorid,
        "memory_mb": flavor.memory_mb,
        "vcpus": flavor.vcpus,
        "root_gb": flavor.root_gb,
        "ephemeral_gb": flavor.ephemeral_gb,
        "swap": flavor.swap_mb,
        "rxtx_factor": flavor.rxtx_factor,
        "vcpu_weight": flavor.vcpu_weight,
        "disabled": flavor.disabled,
        "is_public": flavor.is_public,
        "created_at": (flavor.created_at or "").rstrip("Z"),
    }
    rows.insert("flavors", [row])
    specs = [{"flavor_id": flavor.id, "key": k, "value": v} for k, v in flavor.extra_specs.items()]
    rows.insert("flavor_extra_specs", specs)


def _fill_cell(database: Database, cell: Cell) -> None:
    with database.write() as rows:
        group = {"name": "default", "description": "default", "project_id": PROJECT}
        rows.insert("security_groups", [group])
        for number, host in enumerate(name for name, its in HOSTS.items() if its == cell):
            service, node = _service(host), _node(host, cell, number)
            rows.insert("services", [service])
            rows.insert("compute_nodes", [node])


def _service(host: str) -> dict[str, Any]:
    return {
        "uuid": str(uuids.uuid5(uuids.NAMESPACE_OID, f"service of {host}")),
        "host": host,
        "binary": "nova-compute",
        "topic": "compute",
        "report_count": 7,
        "disabled": False,
        "forced_down": False,
        "version": 66,
    }


def _node(host: str, cell: Cell, number: int) -> dict[str, Any]:
    return {
        "uuid": str(uuids.uuid5(uuids.NAMESPACE_OID, f"node of {host}")),
        "host": host,
        "hypervisor_hostname": host,
        "hypervisor_type": "QEMU",
        "hypervisor_version": 7002015,
        "host_ip": f"192.0.2.{cell.id * 10 + number}",
        "vcpus": 4,
        "memory_mb": 4096,
        "local_gb": 40,
        "vcpus_used": 0,
        "memory_mb_used": 512,
        "local_gb_used": 0,
        "free_ram_mb": 3584,
        "free_disk_gb": 40,
        "running_vms": 0,
        "cpu_info": "{}",
        "stats": "{}",
        "mapped": 1,
    }
