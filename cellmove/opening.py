"""From a configuration to a cloud: sign in, find the cells, and let go of all of it at the end."""

from __future__ import annotations

import atexit
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from cellmove.cloud import Cloud
from cellmove.config import Config
from cellmove.dbcopy import api as records
from cellmove.dbcopy.cells import MappedCell, mapped_cells, open_cells
from cellmove.dbcopy.connection import refused_url
from cellmove.dbcopy.copy import Records, read_records
from cellmove.dbcopy.database import Database
from cellmove.errors import CellmoveError, Conflict, Refused, Unreachable
from cellmove.hosts.bases import Hashes
from cellmove.hosts.connect import Storage
from cellmove.hosts.reach import RemoteHosts
from cellmove.hosts.transfer import Pace
from cellmove.model import Transfer
from cellmove.policy import Policy, PolicyFile, prepare
from cellmove.services import cinder, nova
from cellmove.services.keystone import Projects
from cellmove.services.neutron import Neutron
from cellmove.services.nova import Nova
from cellmove.services.placement import MICROVERSION, Placement
from cellmove.services.service import Absent, Recent
from cellmove.services.session import Identity, Session, sign_in

API_NAME = "the API database"
PORTS_SECONDS = 0.09
"""For how long a list of ports serves again: less than the pause of who waits for their wiring."""
_HASHES = Hashes()
"""Of a drain's hundred servers on one image, the first one alone reads it."""
_NO_NOVA = Unreachable("nova's API is not known.", "No catalog was asked for it.", "Sign in.")


@dataclass(frozen=True, slots=True)
class OpenCloud:
    """A cloud, and who we are to it."""

    cloud: Cloud
    who: Identity
    request_id: str
    """In every service's log, and in the records."""
    policy: Policy
    """What they may do."""
    project_id: Callable[[str], str]
    """A project's id or name -> its id; Refused when there is none."""
    nova: Nova = field(default_factory=lambda: Nova(Absent(_NO_NOVA)))
    """For what nova does better itself."""


def api_url(config: Config) -> sa.URL:
    """URL of the API database, with the password from where it is kept.

    Raises:
        Refused: there is none, or the password cannot be had.
    """
    try:
        url = sa.make_url(config.database.url)
    except (sa.exc.ArgumentError, ValueError):
        raise refused_url(API_NAME) from None
    password = config.database.password()
    return url if password is None else url.set(password=password)


def cells_of(config: Config, url: sa.URL, mapped: list[MappedCell]) -> dict[str, Database]:
    """Every cell's database by the cell's uuid, with the account that the configuration wants.

    Raises:
        Refused: a cell's URL cannot be used, or there is no cell.
    """
    cells = open_cells(mapped, url, credentials=config.database.cell_credentials)
    if not cells:
        raise Refused(
            "The cloud has no cells.",
            "`cell_mappings` of the API database names none but cell0.",
            "Check that `url` in [database] is nova's API database.",
        )
    return cells


def hosts_of(config: Config, cells: Mapping[str, Database]) -> RemoteHosts:
    """The hypervisors; none is reached yet.

    Raises:
        Unreachable: the SSH configuration cannot be read.
    """
    return RemoteHosts(
        ssh_config=config.ssh.config,
        bastion=config.ssh.bastion,
        by_bastion=config.ssh.relay == "bastion",
        address=config.ssh.address,
        instances_path=config.nova.instances_path,
        storage=Storage(
            config.nova.nfs_mount_point_base,
            config.nova.nfs_mount_options,
            partial(storage_address, config, cells),
        ),
        hashes=_HASHES,
    )


def storage_address(config: Config, cells: Mapping[str, Database], host: str) -> str:
    """A host's `my_block_storage_ip`: as configured, else its `my_ip`, which is nova's default."""
    configured = dict(each.split("=", 1) for each in config.nova.block_storage_ips)
    if host in configured:
        return configured[host]
    for cell in cells.values():
        with cell.read() as rows:
            if node := rows.one("compute_nodes", host=host, deleted=0):
                return str(node["host_ip"] or "")
    return ""


def signed_in(config: Config, request_id: str) -> Session:
    """A session with the cloud of the configuration.

    Raises:
        Refused: no such cloud, or it does not let us in.
        Unreachable: Keystone does not answer.
    """
    return sign_in(config.cloud.name, request_id, config.cloud.service_name)


@dataclass(frozen=True, slots=True)
class Ground:
    """What asks for no token: the databases, and the way to the hypervisors."""

    api: Database
    cells: Mapping[str, Database]
    """By cell uuid."""
    ids: Mapping[int, str]
    """A cell's id -> its uuid."""
    hosts: RemoteHosts
    close: Callable[[], None]
    """Lets go of all of it; twice is once."""

    def foresee(self, asked: str, host: str | None = None) -> None:
        """Open the way to a server, by uuid or name, and to the host that it shall come to.

        Nothing depends on it, so it raises nothing: what is wrong is told to whoever asks next.
        """
        with suppress(CellmoveError):
            if host:
                self.hosts.expect(host)
            found = self._found(asked)
            with self.api.read() as rows:
                mapping = records.instance_mapping(rows, found) if found else None
            names = {host} if host else set()
            for cell in self._cell(mapping["cell_id"] if mapping else None):
                known = self._known(cell, found)
                names |= _hosts_of(known)
                if host and _has_volumes(known):
                    self.hosts.expect(host, volumes=True)
            if names - {host}:
                self.hosts.expect(*sorted(names - {host}))
            with self.api.read() as rows:
                ids = {records.cell_of_host(rows, name) for name in names}
            for cell in (each for number in ids for each in self._cell(number)):
                with cell.read():  # two connections, which are kept: lanes ask side by side
                    self._known(cell, found)  # its tables are known then

    def _found(self, asked: str) -> str:
        """The uuid of the only server that is meant; else empty."""
        try:
            return str(uuid.UUID(asked))
        except ValueError:
            found = records.servers_named(self.cells.values(), asked)
            return found[0] if len(found) == 1 else ""

    @staticmethod
    def _known(cell: Database, server: str) -> Records | None:
        """What this cell has of the server."""
        try:
            with cell.read() as rows:
                return read_records(rows, server)
        except Conflict:  # it is not there
            return None

    def _cell(self, number: int | None) -> list[Database]:
        return [self.cells[self.ids[number]]] if number is not None and number in self.ids else []


def _hosts_of(known: Records | None) -> set[str]:
    """The server's host by these records, and the one where it waits to be confirmed."""
    if known is None:
        return set()
    names = {known.instance["host"]}
    if known.instance["vm_state"] == "resized":
        names |= {row["source_compute"] for row in known.tables["migrations"][-1:]}
    return {str(name) for name in names if name}


def _has_volumes(known: Records | None) -> bool:
    return known is not None and any(
        row["volume_id"] for row in known.tables["block_device_mapping"]
    )


def ground_of(config: Config) -> Ground:
    """The databases, and the hypervisors; of these none is reached yet.

    Raises:
        Refused: something is not configured.
        Unreachable: the API database does not answer, or the SSH configuration cannot be read.
    """
    with ExitStack() as stack:
        url = api_url(config)
        api = Database(url, name=API_NAME)
        stack.callback(api.close)
        with api.read() as rows:
            mapped = mapped_cells(rows)
        cells = cells_of(config, url, mapped)
        for cell in cells.values():
            stack.callback(cell.close)
        hosts = stack.enter_context(hosts_of(config, cells))
        hosts.expect()
        ids = {each.cell.id: each.cell.uuid for each in mapped if each.cell.uuid in cells}
        return Ground(api, cells, ids, hosts, stack.pop_all().close)


def begin_ground(config: Config) -> Callable[[], Ground]:
    """Like `ground_of`, but answers at once: what it answers waits for it, and raises."""
    future: Future[Ground] = Future()

    def run() -> None:
        try:
            ground = ground_of(config)
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            future.set_exception(error)
        else:
            atexit.register(ground.close)  # should nobody come for it
            future.set_result(ground)

    threading.Thread(target=run, name="ground", daemon=True).start()
    return future.result


@contextmanager
def open_cloud(
    config: Config,
    *,
    request_id: str,
    progress: Callable[[Transfer], None],
    bwlimit: int = 0,
    compress: bool = False,
    signing_in: Callable[[], Session] | None = None,
    ground: Callable[[], Ground] | None = None,
) -> Iterator[OpenCloud]:
    """Everything the configuration leads to, until the block ends. No hypervisor is reached yet.

    `request_id`: `req-<uuid>`, the same in every service's log. `progress` is told of copies.
    `bwlimit`: bytes a second of each copy of a disk; 0: as fast as it can. `compress`: copies are
    packed where that makes them smaller. `signing_in`, `ground`: wait for what was begun already.

    Raises:
        Refused: something is not configured, or does not let us in.
        Unreachable: a database or Keystone does not answer.
    """
    with ExitStack() as stack:
        threading.Thread(target=prepare, name="policy", daemon=True).start()
        on = ground() if ground else ground_of(config)
        stack.callback(on.close)
        on.hosts.hold(Pace(bwlimit, packed=compress))
        session = signing_in() if signing_in else signed_in(config, request_id)
        cloud = Cloud(
            api=on.api,
            cells=on.cells,
            network=Neutron(Recent(session.service("network"), {"/ports": PORTS_SECONDS})),
            placement=Placement(Recent(session.service("placement", MICROVERSION))),
            volumes=cinder.Cinder(Recent(session.optional("block-storage", cinder.MICROVERSION))),
            hosts=on.hosts,
            progress=progress,
        )
        policy = PolicyFile(session.who.credentials, config.policy.file)
        projects = Projects(session.service("identity"))
        compute = Nova(session.optional("compute", nova.MICROVERSION))
        yield OpenCloud(cloud, session.who, request_id, policy, projects.id_of, compute)
