"""From a configuration to a cloud: sign in, find the cells, and let go of all of it at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from cellmove.cloud import Cloud
from cellmove.config import Config
from cellmove.dbcopy.cells import MappedCell, mapped_cells, open_cells
from cellmove.dbcopy.connection import refused_url
from cellmove.dbcopy.database import Database
from cellmove.errors import Refused
from cellmove.hosts.reach import RemoteHosts
from cellmove.model import Transfer
from cellmove.services.neutron import Neutron
from cellmove.services.placement import MICROVERSION, Placement
from cellmove.services.session import Identity, Session, sign_in

API_NAME = "the API database"


@dataclass(frozen=True, slots=True)
class OpenCloud:
    """A cloud, and who we are to it."""

    cloud: Cloud
    who: Identity
    request_id: str
    """In every service's log, and in the records."""


def api_url(config: Config) -> sa.URL:
    """URL of the API database, with the password from where it is kept.

    Raises:
        Refused: there is none, or the password cannot be had.
    """
    try:
        url = sa.make_url(config.database.url)
    except sa.exc.ArgumentError:
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


def hosts_of(config: Config) -> RemoteHosts:
    """The hypervisors; none is reached yet.

    Raises:
        Unreachable: the SSH configuration cannot be read.
    """
    return RemoteHosts(
        ssh_config=config.ssh.config,
        bastion=config.ssh.bastion,
        address=config.ssh.address,
        instances_path=config.nova.instances_path,
    )


def signed_in(config: Config, request_id: str) -> Session:
    """A session with the cloud of the configuration.

    Raises:
        Refused: no such cloud, or it does not let us in.
        Unreachable: Keystone does not answer.
    """
    return sign_in(config.cloud.name, request_id, config.cloud.service_name)


@contextmanager
def open_cloud(
    config: Config, *, request_id: str, progress: Callable[[Transfer], None]
) -> Iterator[OpenCloud]:
    """Everything the configuration leads to, until the block ends. No hypervisor is reached yet.

    `request_id`: `req-<uuid>`, the same in every service's log. `progress` is told of copies.

    Raises:
        Refused: something is not configured, or does not let us in.
        Unreachable: a database or Keystone does not answer.
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
        session = signed_in(config, request_id)
        hosts = stack.enter_context(hosts_of(config))
        cloud = Cloud(
            api=api,
            cells=cells,
            network=Neutron(session.service("network")),
            placement=Placement(session.service("placement", MICROVERSION)),
            hosts=hosts,
            progress=progress,
        )
        yield OpenCloud(cloud, session.who, request_id)
