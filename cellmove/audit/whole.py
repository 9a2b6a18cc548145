"""The audit as a whole: look, look again at what was found, and mend what does no harm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cellmove.audit import machines, neighbours, rows, underway, volumes
from cellmove.audit.facts import Facts
from cellmove.audit.findings import Finding, Severity, UnderWay, Where
from cellmove.audit.look import Say, cells_of, look
from cellmove.cloud import Cloud
from cellmove.dbcopy.api import servers_named
from cellmove.errors import CellmoveError, Refused
from cellmove.journal import Entry
from cellmove.model import UUID

AGAIN_SECONDS: Final = 3.0
"""Between two looks: what changes meanwhile was only on its way."""

Moves = Callable[[], Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Mended:
    """A finding that was mended, or why it could not be."""

    finding: Finding
    error: CellmoveError | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit answers."""

    findings: tuple[Finding, ...]
    """What is so now, the worst first."""
    under_way: tuple[UnderWay, ...]
    servers: int
    """How many were looked at."""
    hosts: int
    mended: tuple[Mended, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at."""

    cloud: Cloud
    moves: Moves
    """The journal, read at each look."""
    server: str | None = None
    """Its uuid; None: all."""
    cell: str | None = None
    """Its name; None: all."""
    instances_path: str = machines.INSTANCES
    say: Say = lambda _text: None
    again_seconds: float = AGAIN_SECONDS


def scope(
    cloud: Cloud,
    moves: Moves,
    *,
    server: str | None,
    cell: str | None,
    instances_path: str = machines.INSTANCES,
    say: Say = lambda _text: None,
) -> Scope:
    """What was asked for, in ids: a server's name or uuid, a cell's name or uuid.

    A uuid that nova does not know is taken: what is left of a server that is gone has only that.

    Raises:
        Refused: there is no such cell, or not just one server of this name.
    """
    if server is not None and not UUID.fullmatch(server):
        found = servers_named(cloud.cells.values(), server)
        if len(found) != 1:
            raise Refused(
                f"No single server is called {server!r}.",
                f"There are {len(found)}: {', '.join(found)}." if found else "There is none.",
                "Give its UUID; it need not exist any more.",
            )
        server = found[0]
    if cell is not None:
        known = cells_of(cloud)
        names = [each.name for each in known if cell in (each.name, each.uuid)]
        if not names:
            listed = ", ".join(each.name or each.uuid for each in known)
            raise Refused(
                f"There is no cell {cell!r}.", f"There are {listed}.", "Name one of them."
            )
        cell = names[0]
    return Scope(cloud, moves, server, cell, instances_path, say)


def run(
    scope: Scope, *, mend: bool = False, ask: Callable[[Sequence[Finding]], bool] | None = None
) -> Audit:
    """Look, and look again at what was found: only what stays is a finding.

    With `mend`, what can be mended without harm is, and then everything is looked at once more.
    `ask` may keep it from that.

    Raises:
        Unreachable: a source does not answer without which nothing can be judged.
    """
    found = _stable(scope)
    safe = [each for each in found.findings if each.mend]
    if not mend or not safe or (ask is not None and not ask(safe)):
        return found
    mended = tuple(_mended(scope, each) for each in safe)
    return replace(_stable(scope), mended=mended)


def _mended(scope: Scope, finding: Finding) -> Mended:
    assert finding.mend is not None
    scope.say(f"Mending: {finding.code} {finding.thing or finding.where.host}")
    try:
        finding.mend(scope.cloud)
    except CellmoveError as error:
        return Mended(finding, error)
    return Mended(finding)


def _stable(scope: Scope) -> Audit:
    first, facts = _once(scope, None)
    doubted = [each for each in first if each.code != "unreachable"]
    if doubted:
        time.sleep(scope.again_seconds)
        scope.say("Looking again at what was found...")
        hosts = {
            each
            for one in doubted
            for each in (one.where.host, *_hosts_of(facts, one.where.server))
        }
        second, facts_again = _once(scope, hosts)
        keys = {each.key for each in first}
        kept = [each for each in second if each.key in keys]
        kept += [each for each in first if each.code == "unreachable" and each not in kept]
        way = underway.under_way(facts_again)
    else:
        kept, way = list(first), underway.under_way(facts)
    order = list(Severity)
    kept.sort(key=lambda each: (order.index(each.severity), each.code, each.key))
    there = sum(1 for each in facts.servers.values() if each.is_there)
    return Audit(tuple(kept), tuple(_ours(scope, facts, way)), there, len(facts.hosts))


def _once(scope: Scope, hosts: set[str] | None) -> tuple[list[Finding], Facts]:
    moves = scope.moves()
    if scope.cell is not None and hosts is None:
        hosts = _hosts_in(scope)
    facts = look(scope.cloud, moves, server=scope.server, hosts=hosts, say=scope.say)
    busy = underway.under_way(facts)
    found = [
        each for each in _findings(scope, facts) if each.always or each.where.server not in busy
    ]
    if scope.server is not None:
        found = [each for each in found if each.where.server in (scope.server, "")]
    if scope.cell is not None:
        found = [each for each in found if each.where.cell in (scope.cell, "")]
    return found, facts


def _findings(scope: Scope, facts: Facts) -> Iterator[Finding]:
    for each in facts.troubles:
        cell = facts.cell_of.get(each.host)
        yield Finding(
            "unreachable",
            Severity.ODD,
            Where("", "", cell.name if cell else "", each.host),
            f"{each.what} {each.seen}".strip(),
            ("cellmove check",),
            thing=each.what,
            always=True,
        )
    yield from rows.check(facts)
    yield from neighbours.check(facts)
    yield from volumes.check(facts)
    yield from machines.check(facts, scope.cloud, scope.instances_path)
    yield from underway.stuck(facts)


def _hosts_of(facts: Facts, server: str) -> set[str]:
    """Where to look again: the server's places, and wherever it was seen."""
    seen = {host for host, found in facts.hosts.items() if server in found.guests}
    return seen | facts.server(server).places if server else set()


def _hosts_in(scope: Scope) -> set[str]:
    with scope.cloud.api.read() as found:
        ids = {each["name"]: each["id"] for each in found.all("cell_mappings")}
        mapped = found.all("host_mappings", cell_id=ids[scope.cell])
    return {row["host"] for row in mapped}


def _ours(scope: Scope, facts: Facts, way: dict[str, UnderWay]) -> Iterator[UnderWay]:
    for key, each in sorted(way.items()):
        cells = {copy.cell.name for copy in facts.server(key).copies}
        if scope.server in (None, key) and (scope.cell is None or scope.cell in cells):
            yield each
