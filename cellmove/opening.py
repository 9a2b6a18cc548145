"""From a configuration to a cloud: sign in, find the cells, and let go of all of it at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from cellmove.cloud import Cloud
from cellmove.config import Config
from cellmove.dbcopy.cells import MappedCell, mapped_cells, open_cells
from cellmove.dbcopy.connection import refused_url
from cellmove.dbcopy.database import Database
from cellmove.errors import Refused, Unreachable
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
from cellmove.services.service import Absent
from cellmove.services.session import Identity, Session, sign_in

API_NAME = "the API database"
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


def hosts_of(config: Config, cells: Mapping[str, Database], bwlimit: int = 0) -> RemoteHosts:
    """The hypervisors; none is reached yet. `bwlimit`: bytes a second of each copy; 0: no limit.

    Raises:
        Unreachable: the SSH configuration cannot be read.
    """
    return RemoteHosts(
        ssh_config=config.ssh.config,
        bastion=config.ssh.bastion,
        address=config.ssh.address,
        instances_path=config.nova.instances_path,
        storage=Storage(
            config.nova.nfs_mount_point_base,
            config.nova.nfs_mount_options,
            partial(storage_address, config, cells),
        ),
        pace=Pace(bwlimit),
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


@contextmanager
def open_cloud(
    config: Config,
    *,
    request_id: str,
    progress: Callable[[Transfer], None],
    bwlimit: int = 0,
    signing_in: Callable[[], Session] | None = None,
) -> Iterator[OpenCloud]:
    """Everything the configuration leads to, until the block ends. No hypervisor is reached yet.

    `request_id`: `req-<uuid>`, the same in every service's log. `progress` is told of copies.
    `bwlimit`: bytes a second of each copy of a disk; 0: as fast as it can. `signing_in`: waits for
    a sign-in that was begun already.

    Raises:
        Refused: something is not configured, or does not let us in.
        Unreachable: a database or Keystone does not answer.
    """
    with ExitStack() as stack:
        threading.Thread(target=prepare, name="policy", daemon=True).start()
        url = api_url(config)
        api = Database(url, name=API_NAME)
        stack.callback(api.close)
        with api.read() as rows:
            mapped = mapped_cells(rows)
        cells = cells_of(config, url, mapped)
        for cell in cells.values():
            stack.callback(cell.close)
        hosts = stack.enter_context(hosts_of(config, cells, bwlimit))
        hosts.expect()
        session = signing_in() if signing_in else signed_in(config, request_id)
        cloud = Cloud(
            api=api,
            cells=cells,
            network=Neutron(session.service("network")),
            placement=Placement(session.service("placement", MICROVERSION)),
            volumes=cinder.Cinder(session.optional("block-storage", cinder.MICROVERSION)),
            hosts=hosts,
            progress=progress,
        )
        policy = PolicyFile(session.who.credentials, config.policy.file)
        projects = Projects(session.service("identity"))
        compute = Nova(session.optional("compute", nova.MICROVERSION))
        yield OpenCloud(cloud, session.who, request_id, policy, projects.id_of, compute)
