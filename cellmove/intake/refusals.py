"""What cellmove does not move (yet), each with its reason: pure questions over what intake read.

A refusal costs nothing: the guest still runs and nothing was touched. nova finds most of these
only after it has stopped the guest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from cellmove.dbcopy.api import ServerGroup, Service
from cellmove.dbcopy.database import Row
from cellmove.errors import Refused
from cellmove.model import Allocations, Candidate, Disk, Domain, Flavor, Host, Port
from cellmove.steps.disks import GIB
from cellmove.steps.network import why_not_plugged

EXTENSION = "binding-extended"
KNOWN_DISKS = re.compile(r"disk(\.config|\.swap|\.local|\.eph\d+)?")
MEMORY_SLACK_BYTES = 64 * 1024**2


def of_neutron(*, has_bindings: bool) -> Iterator[Refused]:
    """A port must be able to have a second, inactive binding; nova does not cross cells without."""
    if not has_bindings:
        yield Refused(
            "Neutron cannot bind a port at two hosts.",
            f"It has no extension {EXTENSION}.",
            "Enable it: the ML2 plugin has it since Rocky.",
        )


def of_state(server: Row) -> Iterator[Refused]:
    """The server must stand still: nova's own rule for a resize."""
    if server["vm_state"] not in ("active", "stopped"):
        yield Refused(
            "Only a running or stopped server can be resized.",
            f"Its vm_state is {server['vm_state']}.",
            "Bring it to ACTIVE or SHUTOFF first."
            if server["vm_state"] != "resized"
            else "Confirm or revert its last resize first.",
        )
    if server["task_state"]:
        yield Refused(
            "Something else works on the server.",
            f"Its task_state is {server['task_state']}.",
            "Wait until it is done, or see `openstack server show`.",
        )
    if server["launched_at"] is None:
        yield Refused("The server was never launched.", "Its launched_at is empty.", "Rebuild it.")


def of_flavors(
    old: Flavor, new: Flavor, root: Disk | None, *, boots_from_volume: bool = False
) -> Iterator[Refused]:
    """The new flavor must fit what the server has."""
    if new.disabled:
        yield Refused(
            f"Flavor {new.name} is disabled.", "Nothing new may have it.", "Choose another one."
        )
    shrinks = new.root_gb == 0 or (root is not None and root.size_bytes > new.root_gb * GIB)
    if shrinks and not boots_from_volume:
        have_gb = -(-root.size_bytes // GIB) if root is not None else old.root_gb
        yield Refused(
            "A root disk never shrinks.",
            f"It has {have_gb} GB; flavor {new.name} gives {new.root_gb} GB.",
            f"Choose a flavor with a root disk of {have_gb} GB or more.",
        )


def of_ports(ports: Sequence[Port], source: Host) -> Iterator[Refused]:
    """Plain Open vSwitch ports, as many as there are."""
    for port in ports:
        if why := why_not_plugged(port):
            yield Refused(
                "Only plain Open vSwitch ports are moved.",
                f"Port {port.id} has {why}.",
                "If it should be bound, look at the layer-2 agent of its host.",
            )
        if port.is_trunk_parent:
            yield Refused(
                "Ports with subports are not moved.",
                f"Port {port.id} is the parent of a trunk, and its subports would stay behind.",
                "Delete the trunk first, and make it again after the move.",
            )
        if port.host != source.name:
            yield Refused(
                "A port is not bound where the server is.",
                f"Port {port.id} is bound at {port.host or 'no host'}, not {source.name}.",
                "Mend the binding first, e.g. by a hard reboot.",
            )


def of_allocations(held: Allocations, near: Collection[str], source: Host) -> Iterator[Refused]:
    """Placement must know the server where it is; `near`: what belongs to the source's provider."""
    if source.provider not in held.resources or not held.resources.keys() <= set(near):
        yield Refused(
            "The server's allocation in Placement is not as it should be.",
            f"It is on {', '.join(held.resources) or 'no provider'}, not on {source.name}'s alone.",
            "Run `nova-manage placement audit` and `heal_allocations`.",
        )


def of_room(
    room: Sequence[Candidate], needs: Mapping[str, int], free: Mapping[str, int], target: Host
) -> Iterator[Refused]:
    """Placement must have found room on the target; `free` tells what is short there."""
    if room:
        return
    short = {name: amount for name, amount in needs.items() if free.get(name, 0) < amount}
    for name, amount in short.items():
        yield Refused(
            f"There is no room on {target.name}.",
            f"{amount} {name} are needed, {free.get(name, 0)} are free.",
            "Choose another host with --to-host.",
        )
    if not short:
        yield Refused(
            f"There is no room on {target.name}.",
            "Placement offers no way to give what the flavor and the ports' QoS policies want.",
            "Choose another host with --to-host.",
        )


def of_group(
    group: ServerGroup | None, server: str, hosts: Mapping[str, str], target: Host
) -> Iterator[Refused]:
    """A server group's policy holds across cells; `hosts` is member -> host.

    The soft policies only weigh. nova 26: scheduler/filters/affinity_filter.py.
    """
    if group is None:
        return
    others = [host for member, host in hosts.items() if member != server]
    there = others.count(target.name)
    if group.policy == "anti-affinity" and there >= group.max_per_host:
        yield Refused(
            f"The server's group keeps it off {target.name}.",
            f"Group {group.name} is anti-affine, allows {group.max_per_host} member(s) on a host"
            f" and has {there} there.",
            "Choose another host with --to-host.",
        )
    if group.policy == "affinity" and others and not there:
        yield Refused(
            "The server's group keeps its members together.",
            f"Group {group.name} is affine and has members on other hosts.",
            "Leave the server where it is.",
        )


def of_guest(
    found: Domain | None, reasons: Sequence[str], server: Row, host: Host
) -> Iterator[Refused]:
    """Libvirt and nova must agree on the guest, and it must be of a kind that is moved."""
    if found is None:
        yield Refused(
            f"There is no guest of the server on {host.name}.",
            "libvirt does not know it.",
            "Hard-reboot the server with nova so that it is defined again.",
        )
        return
    expected = "running" if server["vm_state"] == "active" else "off"
    if server["vm_state"] in ("active", "stopped") and found.state != expected:
        yield Refused(
            "nova and libvirt do not agree on the guest.",
            f"The server is {server['vm_state']}, the guest is {found.state}.",
            "Wait for nova's power-state sync, or start or stop the server.",
        )
    for reason in reasons:
        yield Refused("Guests of this kind are not moved yet.", reason, "Leave it where it is.")


def of_disks(
    disks: Sequence[Disk], source: Host, *, boots_from_volume: bool = False
) -> Iterator[Refused]:
    """The root disk unless it is a volume; beside it a config drive, ephemeral disks and swap."""
    names = {disk.name for disk in disks}
    if "disk" not in names and not boots_from_volume:
        yield Refused(
            f"The server's root disk is not on {source.name}.",
            f"Its directory holds {', '.join(sorted(names)) or 'nothing'}.",
            "Only servers with local disks in files are moved.",
        )
    for name in sorted(name for name in names if not KNOWN_DISKS.fullmatch(name)):
        yield Refused(
            "Servers with further local disks are not moved yet.",
            f"Its directory on {source.name} holds {name}.",
            "Leave it where it is.",
        )


def of_target(
    target: Host,
    found: Domain | None,
    *,
    has_directory: bool,
    free_bytes: int,
    needed_bytes: int,
) -> Iterator[Refused]:
    """The target must be clean of this server, and have room for its disks."""
    if found is not None or has_directory:
        what = "A guest" if found is not None else "A directory"
        yield Refused(
            f"{what} of this server is on {target.name} already.",
            "It is left of an earlier move, or both hosts share their storage.",
            "Shared storage cannot be moved across; remove a leftover by hand.",
        )
    if free_bytes < needed_bytes + MEMORY_SLACK_BYTES:
        yield Refused(
            f"There is no room for the disks on {target.name}.",
            f"{needed_bytes >> 20} MiB are needed, {free_bytes >> 20} MiB are free.",
            "Choose another host with --to-host.",
        )


def of_service(service: Service | None, host: Host, *, must_be_enabled: bool) -> Iterator[Refused]:
    """nova-compute must be up, and new enough to finish the resize if a user asks nova to."""
    if service is None or not service.is_up():
        yield Refused(
            f"nova-compute on {host.name} is not up.",
            "It has not reported for a minute, or is forced down.",
            "Start it: it must know the server afterwards.",
        )
        return
    if must_be_enabled and service.disabled:
        reason = service.disabled_reason
        # nova 26: LibvirtDriver._handle_conn_event disables it as long as libvirt is away.
        by_nova = reason.startswith("AUTO:")
        yield Refused(
            f"nova-compute on {host.name} is disabled.",
            f"The reason given: {reason or 'none'}.",
            f"{'Wait until nova enables' if by_nova else 'Enable'} it, "
            "or choose another host with --to-host.",
        )
    if service.version < 47:
        yield Refused(
            f"nova-compute on {host.name} is too old.",
            f"Its service version is {service.version}; nova's own confirm and revert need 47.",
            "Upgrade it to Ussuri or later.",
        )
