"""What hypervisors have, against what nova has there: guests, files, ports, tools of a move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cellmove.audit.facts import Facts, Server
from cellmove.audit.findings import Finding, Severity, Where
from cellmove.cloud import Cloud
from cellmove.errors import CellmoveError
from cellmove.hosts.inventory import Inventory
from cellmove.hosts.xml import GuestXml
from cellmove.model import Port

INSTANCES = "/var/lib/nova/instances"


def check(facts: Facts, cloud: Cloud, instances_path: str = INSTANCES) -> Iterator[Finding]:
    """Everything on the hosts that were reached."""
    for host, found in facts.hosts.items():
        for server_id, is_active in found.guests.items():
            yield from _guest(facts, cloud, host, server_id, is_active=is_active)
        for name in found.directories:
            yield from _directory(facts, host, found, name, instances_path)
        yield from _plugs(facts, host, found)
        yield from _tools(facts, host, found, instances_path)
    yield from _running(facts)
    yield from _missing(facts)


def _guest(
    facts: Facts, cloud: Cloud, host: str, server_id: str, *, is_active: bool
) -> Iterator[Finding]:
    """A guest is on its server's host; while that is resized, on no other one either."""
    server = facts.server(server_id)
    if server.is_there:
        if server.here is not None and server.here.host != host and not server.is_live:
            yield _elsewhere(facts, host, server, server.here.host, is_active=is_active)
    elif _is_novas(cloud, host, server_id):
        state = "runs" if is_active else "is off"
        seen = f"A guest that nova made {state} on {host}, and nova has no such server."
        stop = (f"ssh {host} sudo virsh destroy {server_id}",) if is_active else ()
        where = Where(server_id, "", _cell(facts, host), host)
        do = (*stop, _undefine(host, server_id))
        yield Finding("guest-without-server", Severity.LEFT_OVER, where, seen, do)


def _elsewhere(facts: Facts, host: str, server: Server, home: str, *, is_active: bool) -> Finding:
    """A guest on another host than nova has its server on."""
    where = Where(server.id, server.name, _cell(facts, host), host)
    undefine = _undefine(host, server.id)
    if is_active:
        seen = f"Its guest runs on {host}; nova has it on {home or 'no host'}."
        do = (f"ssh {host} sudo virsh shutdown {server.id}", undefine)
        return Finding("guest-elsewhere", Severity.DOUBLE, where, seen, do)
    seen = f"Its guest is off on {host}; nova has it on {home or 'no host'}."
    if home not in facts.hosts or server.id not in facts.hosts[home].guests:
        return Finding("guest-left", Severity.LEFT_OVER, where, seen, (undefine,))
    seen += " It is there, too."
    mend = partial(_forget, host, home, server.id)
    return Finding("guest-left", Severity.LEFT_OVER, where, seen, (undefine,), mend=mend)


def _running(facts: Facts) -> Iterator[Finding]:
    """Two running guests of one server write to the same volumes."""
    where: dict[str, list[str]] = {}
    for host, found in facts.hosts.items():
        for server_id, is_active in found.guests.items():
            if is_active:
                where.setdefault(server_id, []).append(host)
    for server_id, hosts in where.items():
        server = facts.server(server_id)
        if len(hosts) < 2 or server.is_live:
            continue
        here = server.here.host if server.here else ""
        seen = f"Its guest runs on {' and on '.join(hosts)}; nova has it on {here or 'no host'}."
        do = tuple(f"ssh {host} sudo virsh destroy {server_id}" for host in hosts if host != here)
        yield Finding(
            "running-twice",
            Severity.DOUBLE,
            Where(server_id, server.name),
            seen,
            do if here in hosts else (),
            always=True,
        )


def _missing(facts: Facts) -> Iterator[Finding]:
    for server in facts.servers.values():
        here = server.here
        if here is None or here.vm_state != "active" or here.host not in facts.hosts:
            continue
        if server.id in facts.hosts[here.host].guests:
            continue
        elsewhere = [host for host, found in facts.hosts.items() if server.id in found.guests]
        seen = f"nova has it active on {here.host}, and libvirt there does not know it."
        seen += f" {', '.join(elsewhere)} does." if elsewhere else ""
        do = (f"openstack server reboot --hard {server.id}",) if not elsewhere else ()
        yield Finding(
            "guest-missing",
            Severity.LOST,
            Where(server.id, server.name, here.cell.name, here.host),
            seen,
            do,
        )


def _directory(
    facts: Facts, host: str, found: Inventory, name: str, path: str
) -> Iterator[Finding]:
    """Disks are where the server is, or waits to go back to."""
    server_id = found.directories[name]
    server = facts.server(server_id)
    ours = name == server_id
    if server_id in facts.outside or (server.is_there and found.is_shared and ours):
        return
    if host in server.places and (ours or server.migrations or server.is_resized):
        return
    who = "the server is on " + (server.here.host or "no host") if server.here else "no server"
    if not server.is_there:
        who = "nova has no such server"
    seen = f"{host} has the directory {name}, and {who}."
    if server_id in found.guests:
        seen += " Its guest is defined there."
    remove = f"ssh {host} sudo -n -u nova -- /usr/bin/rm -rf {path}/{name}"
    yield Finding(
        "directory-left",
        Severity.LEFT_OVER,
        Where(server_id, server.name, _cell(facts, host), host),
        f"{seen} It may hold the only copy of a disk: look before you delete it.",
        (f"ssh {host} sudo ls -l {path}/{name}", remove),
        thing=name,
    )


def _plugs(facts: Facts, host: str, found: Inventory) -> Iterator[Finding]:
    """Ports are plugged where the server is; nova-compute plugs all that it knows as it starts."""
    for server_id, ports in found.plugs.items():
        server = facts.server(server_id)
        if server_id in found.guests or server_id in facts.outside or host in server.places:
            continue
        who = "nova has no such server"
        if server.is_there:
            who = f"the server is on {(server.here and server.here.host) or 'no host'}"
        seen = f"{host} has {len(ports)} port(s) of it plugged and no guest, and {who}."
        yield Finding(
            "plug-left",
            Severity.LEFT_OVER,
            Where(server_id, server.name, _cell(facts, host), host),
            seen,
            tuple(
                f"ssh {host} sudo ovs-vsctl --if-exists del-port tap{each[:11]}" for each in ports
            ),
            mend=partial(_unplug, host, server_id, ports),
        )


def _tools(facts: Facts, host: str, found: Inventory, path: str) -> Iterator[Finding]:
    """Checkpoints, half copies and disk servers end with their move."""
    cell = _cell(facts, host)
    for server_id, names in found.checkpoints.items():
        server = facts.server(server_id)
        seen = f"Its guest on {host} has {', '.join(names)}, of a move that is over."
        seen += " QEMU notes all that it writes."
        do = tuple(f"ssh {host} sudo virsh checkpoint-delete {server_id} {name}" for name in names)
        yield Finding(
            "checkpoint",
            Severity.LEFT_OVER,
            Where(server_id, server.name, cell, host),
            seen,
            do,
            mend=partial(_forget_writes, host, server_id),
        )
    for server_id, names in found.halves.items():
        server = facts.server(server_id)
        seen = f"{host} has a half copy of {', '.join(names)}, and no move is under way."
        halves = (f"{path}/{server_id}/{name}.cellmove" for name in names)
        do = tuple(f"ssh {host} sudo -n -u nova -- /usr/bin/rm -f {each}" for each in halves)
        yield Finding(
            "half-copy", Severity.LEFT_OVER, Where(server_id, server.name, cell, host), seen, do
        )
    for server_id, processes in found.exports.items():
        server = facts.server(server_id)
        numbers = " ".join(map(str, processes))
        seen = f"{host} serves a disk of it (process {numbers}), and no move is under way."
        do = (f"ssh {host} sudo kill {numbers}",)
        yield Finding(
            "disk-server", Severity.LEFT_OVER, Where(server_id, server.name, cell, host), seen, do
        )


def _is_novas(cloud: Cloud, host: str, server: str) -> bool:
    """A guest that somebody else made is nobody's business; one that went meanwhile, too."""
    try:
        found = cloud.hosts.reach(host).domain(server)
    except CellmoveError:
        return False
    return found is not None and GuestXml(found.xml).is_novas


def _forget(host: str, home: str, server: str, cloud: Cloud) -> None:
    """Forget a guest that is off: disks and firmware stay, and nova's own guest is elsewhere."""
    if cloud.hosts.reach(home).domain(server) is not None:
        cloud.hosts.reach(host).undefine(server)


def _unplug(host: str, server: str, ports: Sequence[str], cloud: Cloud) -> None:
    """Unplug what no guest has: the server's own host is another one."""
    hypervisor = cloud.hosts.reach(host)
    if hypervisor.domain(server) is None:
        for each in ports:
            hypervisor.unplug(Port(each, mac="", host=host, status="DOWN", vif_type="ovs"))


def _forget_writes(host: str, server: str, cloud: Cloud) -> None:
    hypervisor = cloud.hosts.reach(host)
    hypervisor.forget_writes(server, hypervisor.disks(server))


def _undefine(host: str, server: str) -> str:
    return f"ssh {host} sudo virsh undefine --keep-nvram {server}"


def _cell(facts: Facts, host: str) -> str:
    cell = facts.cell_of.get(host)
    return cell.name if cell else ""
