"""Asking all sources: databases first, then services, then every hypervisor once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from cellmove.audit.facts import Facts, Trouble, facts_of, only
from cellmove.cloud import Cloud
from cellmove.dbcopy.cells import CELL0, mapped_cells
from cellmove.dbcopy.leftovers import (
    CellRecords,
    Migration,
    migrations_named,
    migrations_of,
    read_api,
    read_cell,
)
from cellmove.errors import CellmoveError, Unreachable
from cellmove.hosts.inventory import Inventory
from cellmove.journal import Entry
from cellmove.model import Cell, ServerPort

HOSTS_AT_ONCE: Final = 8

Say = Callable[[str], None]


def look(
    cloud: Cloud,
    moves: Sequence[Entry],
    *,
    server: str | None = None,
    hosts: Collection[str] | None = None,
    say: Say = lambda _text: None,
) -> Facts:
    """Everything once, of all servers or of one. `hosts`: only these hypervisors; None: all.

    A host that does not answer, or a cloud without Cinder, is a trouble; what no judgement can be
    made without is an error.

    Raises:
        Unreachable: a database, Neutron or Placement does not answer.
    """
    facts = _databases(cloud, moves, server)
    facts = _services(cloud, facts, server, hosts)
    names = [name for name in _names(facts.cells) if hosts is None or name in hosts]
    found: dict[str, Inventory] = {}
    troubles = list(facts.troubles)
    for name, answer in _each_host(cloud, names, say):
        if isinstance(answer, Inventory):
            found[name] = answer
        else:
            troubles.append(Trouble(answer.what, answer.seen, answer.do, name))
    facts = replace(facts, hosts=found, troubles=tuple(troubles))
    return facts if server is None else only(facts, server)


def cells_of(cloud: Cloud) -> list[Cell]:
    """All cells but cell0."""
    with cloud.api.read() as rows:
        return [each.cell for each in mapped_cells(rows) if each.cell.uuid != CELL0]


def _databases(cloud: Cloud, moves: Sequence[Entry], server: str | None) -> Facts:
    cells = cells_of(cloud)
    with ExitStack() as stack:
        # A server that changes its cell meanwhile is shown in the new one before it is mapped
        # there, and hidden in the old one later still: so the mapping is read first, and all at
        # one time.
        api_rows = stack.enter_context(cloud.api.read())
        opened = [(cell, stack.enter_context(cloud.cells[cell.uuid].read())) for cell in cells]
        api = read_api(api_rows, server)
        read = tuple(read_cell(rows, cell, server) for cell, rows in opened)
    mine = [each for each in moves if server is None or each.move.server == server]
    return replace(
        facts_of(api, read),
        open_moves={each.move.server: each for each in mine if each.is_open},
        moved={each.move.migration: each.move.server for each in mine},
    )


def _services(
    cloud: Cloud, facts: Facts, server: str | None, hosts: Collection[str] | None
) -> Facts:
    troubles: tuple[Trouble, ...] = ()
    try:
        if server is None:
            attachments = cloud.volumes.all_attachments()
        else:
            attachments = {server: cloud.volumes.attachments(server)}
    except Unreachable as error:
        attachments = {}
        # A cloud without Cinder has no volumes.
        if any(facts.devices()):
            troubles = (Trouble(error.what, error.seen, error.do),)
    ports, bound = _ports(cloud, facts, server, hosts)
    migrations = _migrations(cloud, facts, server)
    held = cloud.placement.held() if server is None else _held(cloud, server, migrations)
    strangers = held.keys() - facts.servers.keys()
    behind: dict[str, tuple[Migration, ...]] = {}
    for cell in facts.cells:
        with cloud.cells[cell.cell.uuid].read() as rows:
            for each in migrations_named(rows, cell.cell, strangers):
                behind[each.uuid] = (*behind.get(each.uuid, ()), each)
    return replace(
        facts,
        attachments=attachments,
        knows_volumes=not troubles,
        ports=ports,
        bound=bound,
        held=held,
        behind=behind,
        troubles=troubles,
    )


def _ports(
    cloud: Cloud, facts: Facts, server: str | None, hosts: Collection[str] | None
) -> tuple[Mapping[str, ServerPort], Mapping[str, frozenset[str]]]:
    if server is None:
        ports = {each.id: each for each in cloud.network.server_ports()}
        names = facts.cell_of.keys()
        wanted = sorted(names if hosts is None else names & set(hosts))
        return ports, {host: cloud.network.bound_to(host) for host in wanted}
    mine = cloud.network.ports(server)
    bound: dict[str, set[str]] = {}
    for port in mine:
        for binding in cloud.network.bindings(port.id):
            bound.setdefault(binding.host, set()).add(port.id)
    ports = {each.id: ServerPort(each.id, server, each.host, each.vif_type) for each in mine}
    return ports, {host: frozenset(found) for host, found in bound.items()}


def _migrations(cloud: Cloud, facts: Facts, server: str | None) -> set[str]:
    """Uuids of all migrations of one server."""
    if server is None:
        return set()
    found = set(facts.moved)
    for cell in facts.cells:
        with cloud.cells[cell.cell.uuid].read() as rows:
            found |= {each.uuid for each in migrations_of(rows, cell.cell, server)}
    return found - {""}


def _held(
    cloud: Cloud, server: str, migrations: Iterable[str]
) -> dict[str, Mapping[str, Mapping[str, int]]]:
    asked = (cloud.placement.allocations(each) for each in (server, *sorted(migrations)))
    return {each.consumer: each.resources for each in asked if each.resources}


def _names(cells: Sequence[CellRecords]) -> list[str]:
    return sorted(host for cell in cells for host in cell.hypervisors)


def _each_host(
    cloud: Cloud, names: Sequence[str], say: Say
) -> Iterator[tuple[str, Inventory | CellmoveError]]:
    """Some at a time; the first one alone, for it opens the way that all others share."""

    def ask(name: str) -> tuple[str, Inventory | CellmoveError]:
        say(f"Looking at {name}...")
        try:
            return name, cloud.hosts.reach(name).inventory()
        except CellmoveError as error:
            return name, error

    yield from map(ask, names[:1])
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        yield from pool.map(ask, names[1:])
