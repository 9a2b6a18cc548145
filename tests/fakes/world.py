"""The fake cloud: two cells of two hosts each, one server to move, and neighbours to leave alone.

The databases are real SQLite files under the real record code; the services and hypervisors are
held to the real ones by the contract suite and the lab.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import sqlite3
import uuid
import weakref
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellmove.cloud import Cloud
from cellmove.dbcopy.database import Database, now
from cellmove.hosts.blocks import with_volumes
from cellmove.hosts.xml import GuestXml
from cellmove.intake import Actor, intake_confirm, intake_resize, intake_revert
from cellmove.journal import Verb
from cellmove.model import Allocations, Move, Port, Transfer
from cellmove.steps.allocations import amounts
from cellmove.steps.base import Saved, Status, Step
from tests.fakes.cinder import ISCSI, NFS, FakeVolumes
from tests.fakes.databases import (
    BORN,
    C1,
    CELL1,
    HOSTS,
    NEIGHBOURS,
    PROJECT,
    USER,
    add_server,
    fake_databases,
    port_of,
)
from tests.fakes.hypervisor import BASE_CONTENT, FakeFile, FakeHosts
from tests.fakes.network import FakeNetwork
from tests.fakes.permission import Everybody
from tests.fakes.placement import FakePlacement, Inventory
from tests.fakes.trap import Trap

SERVER = "11111111-2222-4333-8444-555555555555"
ACTOR = Actor(
    user_id="admin-user", project_id="admin-project", conductor="conductor-1", policy=Everybody()
)
REQUESTS: dict[Verb, str] = {
    "resize": "req-00000000-0000-4000-8000-000000000001",
    "confirm": "req-00000000-0000-4000-8000-000000000002",
    "revert": "req-00000000-0000-4000-8000-000000000003",
}
CONTENT = b"what the guest wrote" * 100
GIB = 1024**3
CLOCKS = ("updated_at", "last_seen_up")
CHOSEN = ("attachment_id",)
"""Cinder makes a new one when an old one is to come back; `unsound` looks at what it names."""
VOLUMES = {
    NFS: "aaaaaaaa-0000-4000-8000-000000000001",
    ISCSI: "aaaaaaaa-0000-4000-8000-000000000002",
}
"""The server's volumes: kind -> id."""

DOMAIN = """<domain type='qemu'>
  <name>{name}</name>
  <uuid>{server}</uuid>
  <memory unit='KiB'>131072</memory>
  <currentMemory unit='KiB'>131072</currentMemory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <nvram>/var/lib/libvirt/qemu/nvram/{name}_VARS.fd</nvram>
  </os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/var/lib/nova/instances/{server}/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='{mac}'/>
      <target dev='{device}'/>
      <model type='virtio'/>
    </interface>
  </devices>
</domain>
"""


@dataclass(frozen=True, slots=True)
class State:
    """A world put aside."""

    databases: Mapping[str, bytes]
    services: bytes
    """What the fakes of Neutron, Placement and the hosts hold."""


class _File:
    """A database's file behind the back of the code under test."""

    def __init__(self, path: str) -> None:
        # The collector of garbage may close it in any thread.
        self._raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._raw.close)
        self._raw.execute("PRAGMA synchronous = OFF")
        self._content = b""
        self._version = -1

    def content(self) -> bytes:
        """The whole file."""
        with closing(sqlite3.connect(":memory:")) as memory:
            self._raw.backup(memory)
            whole = memory.serialize()
        # Bytes 18 and 19 say that there is a write-ahead log; memory has none.
        self._content = whole[:18] + b"\x01\x01" + whole[20:]
        self._version = self._seen()
        return self._content

    def put_back(self, content: bytes) -> None:
        """Make the file what it was; nothing is done when it is so still."""
        if self._content is content and self._seen() == self._version:
            return
        with closing(sqlite3.connect(":memory:")) as memory:
            memory.deserialize(content)
            memory.backup(self._raw)
        self._content, self._version = content, self._seen()

    def query(self, sql: str, *values: str) -> list[dict[str, Any]]:
        """What a SELECT finds."""
        cursor = self._raw.execute(sql, values)
        names = [name for name, *_ in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows but for the times that move by themselves."""
        return {
            table: sorted(self._raw.execute(query).fetchall(), key=repr)
            for table, query in self._queries.items()
        }

    @functools.cached_property
    def _queries(self) -> dict[str, str]:
        found = self._raw.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
        )
        columns: dict[str, list[str]] = {}
        for table, column in found:
            columns.setdefault(table, []).extend([f'"{column}"'] * (column not in CLOCKS + CHOSEN))
        return {table: f'SELECT {", ".join(of)} FROM "{table}"' for table, of in columns.items()}

    def _seen(self) -> int:
        """Another number whenever somebody else has committed."""
        return int(self._raw.execute("PRAGMA data_version").fetchone()[0])


class World:
    """The fake cloud with its server on cmp1a, before anything is done to it.

    `databases` are filled ones that may be no files; such a world is neither saved nor compared.
    """

    def __init__(
        self,
        folder: Path,
        vm_state: str = "active",
        databases: tuple[Database, dict[str, Database]] | None = None,
    ) -> None:
        self.trap = Trap()
        self.progress: list[Transfer] = []
        self.api, self.cells = databases or fake_databases(folder)
        self.hosts = FakeHosts(HOSTS)
        self.hosts.midway = lambda: self.trap.spring("inside")
        self.network = FakeNetwork(wire=self._is_wired)
        self.placement = FakePlacement()
        self.volumes = FakeVolumes()
        cell = self.cells[CELL1.uuid]
        power_state = 1 if vm_state == "active" else 4
        add_server(
            self.api, cell, uuid=SERVER, host="cmp1a", vm_state=vm_state, power_state=power_state
        )
        self._add_providers()
        self._add_guest(SERVER, "cmp1a", running=False)
        for number, (kind, volume) in enumerate(VOLUMES.items()):
            self.attach(self.volumes.add_volume(kind, wanted=volume), f"/dev/vd{'bc'[number]}")
        if vm_state == "active":
            self.hosts.by_name["cmp1a"].start(SERVER)
        for host, neighbour in NEIGHBOURS.items():
            self._add_guest(neighbour, host, running=True)

    @functools.cached_property
    def _files(self) -> dict[str, _File]:
        databases = {"api": self.api, **self.cells}
        return {
            name: _File(str(database._engine.url.database)) for name, database in databases.items()
        }

    @property
    def cloud(self) -> Cloud:
        """What the steps see: each call through it is counted and may be trapped."""
        return Cloud(
            api=self.trap.around(self.api),
            cells={uuid: self.trap.around(cell) for uuid, cell in self.cells.items()},
            network=self.trap.around(self.network),
            placement=self.trap.around(self.placement),
            volumes=self.trap.around(self.volumes),
            hosts=self.trap.around(self.hosts),
            progress=self.progress.append,
        )

    def move(self, verb: Verb, flavor: str | None = "c2") -> Move:
        """The move of this verb, as intake makes it now."""
        self._report_services()
        if verb == "resize":
            return intake_resize(
                self.cloud,
                SERVER,
                flavor=flavor,
                to_host="cmp2a",
                to_cell=None,
                actor=ACTOR,
                request_id=REQUESTS[verb],
            )
        intake = intake_confirm if verb == "confirm" else intake_revert
        return intake(self.cloud, SERVER, actor=ACTOR, request_id=REQUESTS[verb])

    def attach(self, volume: str, device: str, host: str = "cmp1a") -> None:
        """Attach a volume to the server where it is, as nova does: in Cinder, rows and guest."""
        here = self.hosts.by_name[host]
        attachment = self.volumes.attach(volume, SERVER, here.connector())
        info = here.connect_volume(self.volumes.connection_info(attachment))
        mapping = {
            "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{volume} of {SERVER}")),
            "instance_uuid": SERVER,
            "source_type": "volume",
            "destination_type": "volume",
            "device_type": "disk",
            "disk_bus": "virtio",
            "boot_index": None,
            "device_name": device,
            "delete_on_termination": False,
            "volume_id": volume,
            "volume_size": 1,
            "connection_info": json.dumps(info),
            "attachment_id": attachment,
            "encrypted": False,
            "created_at": BORN,
        }
        with self.cells[HOSTS[host].uuid].write() as rows:
            rows.insert("block_device_mapping", [mapping])
            found = rows.all("block_device_mapping", instance_uuid=SERVER, deleted=0)
        infos = {
            row["volume_id"]: json.loads(row["connection_info"])
            for row in found
            if row["volume_id"]
        }
        guest = here.domain(SERVER)
        assert guest is not None
        here.define(with_volumes(guest.xml, infos, {volume: device}))

    def save(self) -> State:
        """The whole world, to be loaded again."""
        placement = self.placement._inventories, self.placement._consumers
        volumes = self.volumes._volumes, self.volumes._attachments
        services = self.network._ports, placement, self.hosts.by_name, volumes
        databases = {name: file.content() for name, file in self._files.items()}
        return State(databases, pickle.dumps(services))

    def load(self, state: State) -> None:
        """Put the world back to a saved state."""
        for name, content in state.databases.items():
            self._files[name].put_back(content)
        ports, placement, hosts, volumes = pickle.loads(state.services)
        self.volumes._volumes, self.volumes._attachments = volumes
        self.network._ports = ports
        self.placement._inventories, self.placement._consumers = placement
        self.hosts.by_name = hosts
        self.trap.arm(0, "before")

    def snapshot(self) -> dict[str, Any]:
        """All there is, but for when a row was last written."""
        return {
            **{name: file.rows() for name, file in self._files.items()},
            "network": self.network.snapshot(),
            "placement": self.placement.snapshot(),
            "volumes": self.volumes.snapshot(),
            "hosts": self.hosts.snapshot(),
        }

    def query(self, database: str, sql: str, *values: str) -> list[dict[str, Any]]:
        """Ask a database (`api`, or a cell's uuid) behind the back of the code under test."""
        return self._files[database].query(sql, *values)

    def _report_services(self) -> None:
        """Every nova-compute says that it is alive: the world may have been put aside for long."""
        for cell in self.cells.values():
            with cell.write() as rows:
                rows.change("services", {"last_seen_up": now()}, expect=None, deleted=0)

    def _is_wired(self, port: str, host: str) -> bool:
        hypervisor = self.hosts.by_name[host]
        return any(ids["iface-id"] == port for ids in hypervisor.ports.values())

    def _add_providers(self) -> None:
        for cell in self.cells.values():
            with cell.read() as rows:
                for node in rows.all("compute_nodes"):
                    room = {"VCPU": 16, "MEMORY_MB": 4096, "DISK_GB": 100}
                    inventory = {name: Inventory(total) for name, total in room.items()}
                    self.placement.add_provider(node["uuid"], inventory)

    def _add_guest(self, server: str, host: str, *, running: bool) -> None:
        known = port_of(server, host)
        port = self.network.add_port(
            server, host, id=known.id, mac=known.mac, details=known.details
        )
        self._define(server, host, port, running=running)
        with self.cells[HOSTS[host].uuid].read() as rows:
            node = rows.all("compute_nodes", host=host)[0]
        held = {node["uuid"]: amounts(C1)}
        self.placement.replace([Allocations(server, held, None, PROJECT, USER)])

    def _define(self, server: str, host: str, port: Port, *, running: bool) -> None:
        with self.cells[HOSTS[host].uuid].read() as rows:
            row = rows.all("instances", uuid=server)[0]
        xml = DOMAIN.format(
            name=f"instance-{row['id']:08x}", server=server, mac=port.mac, device=port.device
        )
        hypervisor = self.hosts.by_name[host]
        hypervisor.plug(server, port)
        base = ""
        if host == "cmp1a":  # No other host has the image.
            base = hashlib.sha1(row["image_ref"].encode(), usedforsecurity=False).hexdigest()
            hypervisor.bases[base] = BASE_CONTENT
        disk = FakeFile("qcow2", 2 * GIB, CONTENT + server.encode(), base)
        hypervisor.nvrams[GuestXml(xml).nvram] = b"boot entries of " + server.encode()
        hypervisor.add_guest(xml, {"disk": disk}, running=running)


def perform(step: Step, world: World) -> tuple[bool, Saved]:
    """Do a step as the conductor does: whether it was ours to do, and what its first look kept."""
    look = step.inspect(world.cloud)
    assert look.status is not Status.BLOCKED, look.why
    if look.status is Status.DONE:
        return False, {}
    step.execute(world.cloud)
    after = step.inspect(world.cloud)
    assert after.status is Status.DONE, (step.name, after)
    return True, look.saved
