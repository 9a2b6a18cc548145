"""The order of the looks: each part only once what it needs is there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Final

from cellmove.check import databases, hosts, services
from cellmove.check.far import RemoteFar
from cellmove.check.findings import Finding, Result, guarded, ok, warn
from cellmove.check.grants import API_NEEDS, cell_needs
from cellmove.config import Config, SshConfig, require_database
from cellmove.dbcopy.cells import mapped_cells
from cellmove.dbcopy.database import Database
from cellmove.hosts import relay
from cellmove.hosts.disks import Layout
from cellmove.hosts.openssh import configuration
from cellmove.hosts.shell import Shells
from cellmove.journal import Journal
from cellmove.opening import API_NAME, api_url, cells_of, signed_in
from cellmove.policy import PolicyFile
from cellmove.services.cinder import MICROVERSION as ATTACHMENTS

HOSTS_AT_ONCE: Final = 8

Say = Callable[[str], None]


def run(config: Callable[[], Config], journal: Callable[[], Journal], say: Say) -> list[Finding]:
    """All findings, in the order in which one would mend them. `say` is told what takes long."""
    found = list(guarded("configuration", partial(_configuration, config)))
    if any(finding.result is Result.FAIL for finding in found):
        return found
    found += guarded("journal", partial(_journal, journal))
    found += guarded("Keystone", partial(_services, config()))
    with ExitStack() as stack:
        cells: dict[str, Database] = {}
        found += guarded(API_NAME, partial(_api, config(), stack, cells))
        for cell in cells.values():
            found += databases.database(cell, cell_needs())
        found += guarded("cells", partial(_cells, cells))
        names: list[str] = []
        found += guarded("hypervisors", partial(_hypervisors, cells, names))
    found += guarded("SSH", partial(_far, config(), names, say))
    return found


def _configuration(config: Callable[[], Config]) -> Iterator[Finding]:
    require_database(config(), os.environ)
    yield ok("configuration", str(config().path or "environment"))


def _journal(journal: Callable[[], Journal]) -> Iterator[Finding]:
    unfinished = journal().entries(only_open=True, brief=True)
    if unfinished:
        seen = f"{journal().where}, {len(unfinished)} move(s) neither finished nor taken back"
        yield warn("journal", seen, "`cellmove moves` lists them.")
    else:
        yield ok("journal", journal().where)


def _services(config: Config) -> Iterator[Finding]:
    session = signed_in(config, f"req-{uuid.uuid4()}")
    yield from services.identity(session.who)
    network, placement = session.service("network"), session.service("placement")
    yield from guarded("Neutron", partial(services.network, network))
    yield from guarded("Placement", partial(services.placement, placement))
    yield from services.volumes(session.optional("block-storage", ATTACHMENTS))
    policy = PolicyFile(session.who.credentials, config.policy.file)
    yield from guarded("policy", partial(services.permission, session.who, policy))
    yield from guarded("notifications", partial(services.bus, config.notifications))


def _api(config: Config, stack: ExitStack, cells: dict[str, Database]) -> Iterator[Finding]:
    """The API database; fills `cells` with what it names."""
    url = api_url(config)
    api = Database(url, name=API_NAME)
    stack.callback(api.close)
    yield from databases.database(api, API_NEEDS)
    with api.read() as rows:
        mapped = mapped_cells(rows)
    cells |= cells_of(config, url, mapped)
    for cell in cells.values():
        stack.callback(cell.close)


def _cells(cells: Mapping[str, Database]) -> Iterator[Finding]:
    yield from databases.same_release({cell.name: cell.version() for cell in cells.values()})
    for cell in cells.values():
        yield from databases.census(cell)


def _hypervisors(cells: Mapping[str, Database], names: list[str]) -> Iterator[Finding]:
    """What nova knows; fills `names`."""
    for cell in cells.values():
        with cell.read() as rows:
            found = rows.all("services", binary="nova-compute", deleted=0)
        there = [row["host"] for row in found]
        names += there
        yield from databases.computes(cell.name, {row["host"]: row["version"] for row in found})
        if there:
            yield ok(f"{cell.name}: hypervisors", ", ".join(there))
        else:
            do = "Nothing can be moved to or from it."
            yield warn(f"{cell.name}: hypervisors", "nova knows none.", do)


def _far(config: Config, names: list[str], say: Say) -> Iterator[Finding]:
    """Bastion first: without it there is no use in asking for hosts."""
    ssh = config.ssh
    layout = Layout(config.nova.instances_path)
    with ExitStack() as stack:
        shells = Shells(ssh.config, ssh.bastion)
        stack.callback(shells.close)
        if ssh.bastion:
            alone = Shells(ssh.config, "")
            stack.callback(alone.close)
            gate = RemoteFar(alone.shell(ssh.bastion))
            reached = list(hosts.bastion(ssh.bastion, gate.connect, ssh.config))
            yield from reached
            if any(finding.result is Result.FAIL for finding in reached):
                return
        say(f"Looking at {len(names)} hypervisors...")
        addresses = [ssh.address.replace("{name}", name) for name in names]
        fars = [RemoteFar(shells.shell(address)) for address in addresses]
        for far in fars:
            stack.callback(far.close)
        yield from _each_host(names, addresses, fars, layout, ssh)


def _each_host(
    names: Sequence[str],
    addresses: Sequence[str],
    fars: Sequence[RemoteFar],
    layout: Layout,
    ssh: SshConfig,
) -> Iterator[Finding]:
    """Some at a time; the first one alone, for it opens the way that all others share."""

    def look(name: str, address: str, far: RemoteFar) -> list[Finding]:
        found = hosts.hypervisor(name, address, far, layout, ssh.config)
        if ssh.relay == "bastion":
            text = configuration(ssh.config, ssh.bastion)
            found += hosts.copies(name, partial(relay.obstacle, text, ssh.bastion, address))
        return found

    trios = list(zip(names, addresses, fars, strict=True))
    for trio in trios[:1]:
        yield from look(*trio)
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        for found in pool.map(lambda trio: look(*trio), trios[1:]):
            yield from found
