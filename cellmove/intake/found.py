"""What every verb begins with: the server where it is, and the move made of what was read."""

from __future__ import annotations

import datetime as dt
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cellmove.choosing import Multipliers
from cellmove.cloud import Cloud
from cellmove.dbcopy import api, objects
from cellmove.dbcopy.cells import CELL0, mapped_cells
from cellmove.dbcopy.copy import Records, read_records
from cellmove.dbcopy.database import Row
from cellmove.errors import Conflict, Refusals, Refused
from cellmove.intake.quota import Quota
from cellmove.model import Cell, Disk, Flavor, Host, Move, Port
from cellmove.policy import Policy, PolicyFile

SHUTDOWN_TIMEOUT_SECONDS = 60
"""nova's `[DEFAULT]shutdown_timeout`; an image may ask for another (`os_shutdown_timeout`)."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who runs cellmove, and where: written into the server's history."""

    user_id: str
    project_id: str
    conductor: str = field(default_factory=socket.gethostname)
    domain_template: str = "instance-%08x"
    policy: Policy = field(default_factory=PolicyFile)
    """What they may do; by default as good as nothing."""
    quota: Quota = field(default_factory=Quota)
    multipliers: Multipliers = field(default_factory=Multipliers)
    """How hosts are weighed."""
    cross_az_attach: bool = True
    """nova's setting: whether a server may have volumes of another zone than its own."""

    def refusals(self, row: Row, *rules: str) -> Iterator[Refused]:
        """What the policy has against their doing this to the server of this row."""
        for rule in rules:
            yield from self.policy.refusals(rule, row["project_id"], row["user_id"])


@dataclass(frozen=True, slots=True)
class Placed:
    """A server where it is: its owning cell, its rows there, its hypervisor."""

    cell: Cell
    records: Records
    host: Host
    service: api.Service | None
    pci_devices: int

    @property
    def row(self) -> Row:
        return self.records.instance

    @property
    def flavor(self) -> Flavor:
        found = objects.flavor_of(self.records.tables["instance_extra"][0]["flavor"])
        assert found is not None  # nova never stores a server without its current flavor
        return found

    def system_metadata(self, key: str) -> str | None:
        rows = self.records.tables["instance_system_metadata"]
        return next((row["value"] for row in rows if row["key"] == key), None)


def locate(cloud: Cloud, server: str) -> str:
    """The uuid of a server given by uuid, or by a name that only one server bears.

    Raises:
        Refused: none or several bear the name.
    """
    try:
        return str(uuid.UUID(server))
    except ValueError:
        found = api.servers_named(cloud.cells.values(), server)
    if len(found) != 1:
        seen = "No cell has one." if not found else f"{len(found)} do: {', '.join(found)}."
        raise Refused(f"No single server is named {server!r}.", seen, "Give its UUID.")
    return found[0]


def find(cloud: Cloud, server: str) -> Placed:
    """The server where nova has it.

    Raises:
        Refused: it is in no cell, or its host is not one that servers are moved from.
    """
    with cloud.api.read() as rows:
        mapping = api.instance_mapping(rows, server)
        cells = {mapped.cell.id: mapped.cell for mapped in mapped_cells(rows)}
        building = api.is_building(rows, server)
    cell = cells.get(mapping["cell_id"]) if mapping is not None else None
    if cell is None or building or cell.uuid == CELL0:
        seen = "nova has no mapping of it to a cell." if not building else "nova is building it."
        raise Refused(
            f"There is no server {server} in any cell.",
            "It is in cell0: it was never placed." if cell and cell.uuid == CELL0 else seen,
            "See `openstack server list --all-projects`.",
        )
    return placed(cloud, cell, server)


def placed(cloud: Cloud, cell: Cell, server: str) -> Placed:
    """The server as this cell knows it.

    Raises:
        Refused: the cell does not have it, or its host is not one that servers are moved from.
    """
    try:
        return _placed(cloud, cell, server)
    except Conflict as error:
        raise Refused(error.what, error.seen, error.do) from None


def _placed(cloud: Cloud, cell: Cell, server: str) -> Placed:
    with cloud.api.read() as api_rows, cloud.cells[cell.uuid].read() as rows:
        records = read_records(rows, server)
        name = records.instance["host"]
        zone = api.zone_of_host(api_rows, name) if name else ""
        found = api.host(rows, name, cell, zone) if name else None
        if found is None:
            raise Refused(
                "The server is on no host that nova knows.",
                f"Its row names {name or 'none'}.",
                "Only servers with a hypervisor are moved.",
            )
        cloud.hosts.expect(found.name)
        pci = rows.count("pci_devices", instance_uuid=server, deleted=0)
        return Placed(cell, records, found, api.compute_service(rows, name), pci)


def make_move(
    where: Placed,
    actor: Actor,
    request_id: str,
    *,
    kind: str,
    source: Host,
    target: Host,
    migration: str,
    flavors: tuple[Flavor, Flavor],
    vm_state: str,
    ports: tuple[Port, ...],
    disks: tuple[Disk, ...],
    nvram: str = "",
) -> Move:
    row = where.row
    timeout = where.system_metadata("image_os_shutdown_timeout")
    return Move(
        id=str(uuid.uuid4()),
        request_id=request_id,
        server=row["uuid"],
        name=row["display_name"] or row["uuid"],
        project_id=row["project_id"],
        user_id=row["user_id"],
        actor_user_id=actor.user_id,
        actor_project_id=actor.project_id,
        conductor=actor.conductor,
        kind="resize" if kind == "resize" else "migration",
        source=source,
        target=target,
        migration=migration,
        old_flavor=flavors[0],
        new_flavor=flavors[1],
        vm_state=vm_state,
        power_state=row["power_state"] or 0,
        ports=ports,
        disks=disks,
        source_domain=actor.domain_template % row["id"],
        domain_template=actor.domain_template,
        started_at=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S}",
        shutdown_timeout_seconds=int(timeout or SHUTDOWN_TIMEOUT_SECONDS),
        nvram=nvram,
    )


@contextmanager
def among(row: Row, reasons: list[Refused]) -> Iterator[None]:
    """What is refused in the block, so that nothing more can be asked, joins these reasons.

    Raises:
        Refused: it was; Refusals with these reasons before it.
    """
    try:
        yield
    except Refusals as error:
        raise_all(row, [*reasons, *error.reasons])
    except Refused as error:
        raise_all(row, [*reasons, error])


def raise_all(row: Row, found: Sequence[Refused]) -> None:
    """Refuse for all of these reasons, if there is any."""
    if len(found) == 1:
        raise found[0]
    if found:
        raise Refusals(f"Server {row['display_name']} ({row['uuid']}) cannot be moved.", found)
