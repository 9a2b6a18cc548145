"""What Placement and Neutron keep of servers, against where the servers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from cellmove.audit.facts import SETTLED, Facts, Server
from cellmove.audit.findings import Finding, Severity, Where
from cellmove.cloud import Cloud
from cellmove.model import ServerPort

UNBOUND = ("unbound", "binding_failed", "")


def check(facts: Facts) -> Iterator[Finding]:
    """Everything that these two keep."""
    for consumer, held in facts.held.items():
        yield from _consumer(facts, consumer, held)
    for server in facts.servers.values():
        yield from _unbooked(facts, server)
    for port in facts.ports.values():
        yield from _port(facts, port)
    for host, ports in facts.bound.items():
        for port_id in sorted(ports):
            yield from _binding(facts, host, port_id)


def _consumer(
    facts: Facts, consumer: str, held: Mapping[str, Mapping[str, int]]
) -> Iterator[Finding]:
    hosts = {facts.host_of[provider] for provider in held if provider in facts.host_of}
    if not hosts or consumer in facts.outside:
        return  # Nothing of a hypervisor's, or a server that is being built.
    server = facts.server(consumer)
    if server.is_there:
        yield from _of_server(facts, server, held)
        return
    found = facts.behind.get(consumer, ())
    if any(each.in_flight for each in found):
        return
    owner = next((each.server for each in found), facts.moved.get(consumer, ""))
    where = ", ".join(sorted(hosts))
    if owner:
        yield _phantom(facts, consumer, facts.server(owner), where)
        return
    gone = bool(server.deleted)
    seen = f"Consumer {consumer} holds {_shown(held)} on {where};"
    seen += " nova has deleted this server." if gone else " nova knows no such server or migration."
    yield Finding(
        "allocation-without-server",
        Severity.LEFT_OVER,
        Where(consumer, server.name, _cell(facts, hosts), where),
        seen,
        (_release(consumer),),
        thing=consumer,
        mend=partial(_empty, consumer) if gone else None,
    )


def _phantom(facts: Facts, consumer: str, owner: Server, where: str) -> Finding:
    """What a migration holds that is over: room that nobody uses, and counted against a quota."""
    here = owner.here
    seen = f"Migration {consumer} is over, and holds {_shown(facts.held[consumer])} on {where}."
    cell = _cell(facts, set(where.split(", ")))
    own = facts.held.get(owner.id, {})
    if here is None or not here.host or facts.provider_of(here) in own or not owner.is_there:
        return Finding(
            "phantom-consumer",
            Severity.LEFT_OVER,
            Where(owner.id, owner.name, cell, where),
            f"{seen} It counts against the project's quota.",
            (_release(consumer),),
            thing=consumer,
            mend=partial(_empty, consumer),
        )
    seen += " The server holds nothing on its own host."
    do = (_release(consumer), f"nova-manage placement heal_allocations --instance {owner.id}")
    return Finding(
        "allocation-astray",
        Severity.LOST,
        Where(owner.id, owner.name, cell, where),
        seen,
        do,
        thing=consumer,
    )


def _of_server(
    facts: Facts, server: Server, held: Mapping[str, Mapping[str, int]]
) -> Iterator[Finding]:
    here = server.here
    if here is None or not here.host:
        return
    own = facts.provider_of(here)
    others = {facts.host_of[each]: each for each in held if each in facts.host_of and each != own}
    for host, provider in sorted(others.items()):
        seen = f"It holds {_shown({provider: held[provider]})} on {host}, and lives on {here.host}."
        twice = own in held
        kept = " ".join(
            f"--allocation rp={each},{name}={amount}"
            for each, amounts in held.items()
            if each not in others.values()
            for name, amount in sorted(amounts.items())
        )
        do = (
            f"openstack resource provider allocation set {server.id} {kept}"
            if twice
            else f"nova-manage placement heal_allocations --instance {server.id}",
        )
        yield Finding(
            "two-providers" if twice else "wrong-provider",
            Severity.DOUBLE if twice else Severity.LOST,
            Where(server.id, server.name, here.cell.name, host),
            seen,
            do,
        )


def _unbooked(facts: Facts, server: Server) -> Iterator[Finding]:
    here = server.here
    if here is None or not here.host or here.vm_state not in SETTLED or server.id in facts.held:
        return
    seen = f"It is on {here.host} and holds nothing in Placement: others may be given its room."
    do = (f"nova-manage placement heal_allocations --instance {server.id}",)
    yield Finding(
        "no-allocation",
        Severity.LOST,
        Where(server.id, server.name, here.cell.name, here.host),
        seen,
        do,
    )


def _port(facts: Facts, port: ServerPort) -> Iterator[Finding]:
    if port.server in facts.outside:
        return
    server = facts.server(port.server)
    if not server.is_there:
        seen = (
            f"Port {port.id} (on {port.host or 'no host'}) is of a server that nova does not have."
        )
        do = (f"openstack port delete {port.id}",)
        cell = _cell(facts, {port.host})
        yield Finding(
            "port-without-server",
            Severity.LEFT_OVER,
            Where(port.server, "", cell, port.host),
            seen,
            do,
            thing=port.id,
        )
        return
    here = server.here
    if here is None or not here.host or here.vm_state not in SETTLED:
        return
    elsewhere = port.host != here.host
    if not elsewhere and port.vif_type not in UNBOUND:
        return
    seen = f"Port {port.id} is bound to {port.host or 'no host'} ({port.vif_type or 'unbound'})"
    seen += f"; the server is on {here.host}."
    # Neutron takes no second binding of a host, so an inactive one there has to go first.
    do = (f"openstack port set --host {here.host} {port.id}",)
    yield Finding(
        "port-elsewhere" if elsewhere else "port-unbound",
        Severity.LOST,
        Where(server.id, server.name, here.cell.name, here.host),
        seen,
        do,
        thing=port.id,
    )


def _binding(facts: Facts, host: str, port_id: str) -> Iterator[Finding]:
    """A second binding is for a resize or a live migration in flight."""
    port = facts.ports.get(port_id)
    if port is None or port.host == host:
        return
    server = facts.server(port.server)
    if not server.is_there or host in server.places:
        return
    here = server.here
    on = here.host if here else "no host"
    seen = f"Port {port_id} has an inactive binding on {host}; the server is on {on}."
    seen += " The next move to that host would fail on it."
    do = (f"cellmove audit --server {server.id} --mend",)
    yield Finding(
        "inactive-binding",
        Severity.LEFT_OVER,
        Where(server.id, server.name, _cell(facts, {host}), host),
        seen,
        do,
        thing=port_id,
        mend=lambda cloud: cloud.network.unbind(port_id, host),
    )


def _empty(consumer: str, cloud: Cloud) -> None:
    found = cloud.placement.allocations(consumer)
    if found.resources:
        cloud.placement.replace([replace(found, resources={})])


def _release(consumer: str) -> str:
    return f"openstack resource provider allocation delete {consumer}"


def _shown(held: Mapping[str, Mapping[str, int]]) -> str:
    total: dict[str, int] = {}
    for amounts in held.values():
        for name, amount in amounts.items():
            total[name] = total.get(name, 0) + amount
    return ", ".join(f"{amount} {name}" for name, amount in sorted(total.items()))


def _cell(facts: Facts, hosts: set[str]) -> str:
    """The cell of all of these hosts; empty when they are of several."""
    cells = {facts.cell_of[host].name for host in hosts if host in facts.cell_of}
    return cells.pop() if len(cells) == 1 else ""
