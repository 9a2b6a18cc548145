"""What cellmove does not move (yet), each with its reason: pure questions over what intake read.

A refusal costs nothing: the guest still runs and nothing was touched. nova finds most of these
only after it has stopped the guest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cellmove.dbcopy.api import ServerGroup, Service
from cellmove.dbcopy.database import Row
from cellmove.errors import Refused
from cellmove.model import Allocations, Binding, Disk, Domain, Flavor, Host, Port
from cellmove.steps.allocations import amounts
from cellmove.steps.disks import GIB

KNOWN_DISKS = ("disk", "disk.config")
EXTRA_SPECS_REFUSED = ("hw:", "hw_", "resources", "trait", "pci_passthrough", "accel:", "quota:")
LOCAL_COLUMNS_REFUSED = {
    "numa_topology": "a NUMA topology (pinning, huge pages)",
    "resources": "persistent memory",
}
MEMORY_SLACK_BYTES = 64 * 1024**2


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


def of_records(tables: Mapping[str, Sequence[Row]], pci_devices: int) -> Iterator[Refused]:
    """Volumes, further disks and host devices are not moved yet."""
    for bdm in tables["block_device_mapping"]:
        if bdm["destination_type"] == "volume":
            yield Refused(
                "Servers with volumes are not moved yet.",
                f"Volume {bdm['volume_id']} is attached.",
                "Detach it first, or leave the server where it is.",
            )
        elif bdm["boot_index"] != 0:
            yield Refused(
                "Servers with ephemeral disks or swap are not moved yet.",
                f"It has a local disk of {bdm['volume_size']} GB beside its root disk.",
                "Leave it where it is.",
            )
    extra = tables["instance_extra"][0]
    for column, what in LOCAL_COLUMNS_REFUSED.items():
        if extra.get(column):
            yield Refused(
                f"Servers with {what} are not moved yet.",
                f"instance_extra.{column} is set.",
                "Leave it where it is.",
            )
    if pci_devices or json.loads(extra.get("pci_requests") or "[]"):
        yield Refused(
            "Servers with PCI devices are not moved.",
            f"It has {pci_devices} device(s) or requests some.",
            "Detach them first: they belong to their host.",
        )


def of_flavors(old: Flavor, new: Flavor, root: Disk | None) -> Iterator[Refused]:
    """The new flavor must fit what the server has."""
    if new.disabled:
        yield Refused(
            f"Flavor {new.name} is disabled.", "Nothing new may have it.", "Choose another one."
        )
    for flavor in dict.fromkeys((old.flavorid, new.flavorid)):
        chosen = old if flavor == old.flavorid else new
        refused = sorted(k for k in chosen.extra_specs if k.startswith(EXTRA_SPECS_REFUSED))
        if refused:
            yield Refused(
                "Flavors with such extra specs are not moved yet.",
                f"Flavor {chosen.name} has {', '.join(refused)}.",
                "Choose a plain flavor, or leave the server where it is.",
            )
        if chosen.ephemeral_gb or chosen.swap_mb:
            yield Refused(
                "Servers with ephemeral disks or swap are not moved yet.",
                f"Flavor {chosen.name} gives {chosen.ephemeral_gb} GB and {chosen.swap_mb} MB.",
                "Choose a flavor without them, or leave the server where it is.",
            )
    if new.root_gb == 0 or (root is not None and root.size_bytes > new.root_gb * GIB):
        have_gb = -(-root.size_bytes // GIB) if root is not None else old.root_gb
        yield Refused(
            "A root disk never shrinks.",
            f"It has {have_gb} GB; flavor {new.name} gives {new.root_gb} GB.",
            f"Choose a flavor with a root disk of {have_gb} GB or more.",
        )


def of_ports(ports: Sequence[Port], source: Host) -> Iterator[Refused]:
    """One plain Open vSwitch port."""
    if len(ports) > 1:
        yield Refused(
            "Servers with several ports are not moved yet.",
            f"It has {len(ports)} ports.",
            "Leave it where it is.",
        )
    for port in ports:
        if port.vif_type != "ovs" or port.details.get("ovs_hybrid_plug"):
            hybrid = " (hybrid plug)" if port.details.get("ovs_hybrid_plug") else ""
            yield Refused(
                "Only plain Open vSwitch ports are moved.",
                f"Port {port.id} has vif_type {port.vif_type}{hybrid}.",
                "If it should be bound, look at the layer-2 agent of its host.",
            )
        if port.vnic_type != "normal" or port.has_resource_request or port.is_trunk_parent:
            kind = "a trunk" if port.is_trunk_parent else f"vnic_type {port.vnic_type}"
            if port.has_resource_request:
                kind = "a resource request (QoS)"
            yield Refused(
                "Ports of this kind are not moved yet.",
                f"Port {port.id} has {kind}.",
                "Leave the server where it is.",
            )
        if port.host != source.name:
            yield Refused(
                "A port is not bound where the server is.",
                f"Port {port.id} is bound at {port.host or 'no host'}, not {source.name}.",
                "Mend the binding first, e.g. by a hard reboot.",
            )


def of_bindings(port: Port, bindings: Sequence[Binding], target: Host) -> Iterator[Refused]:
    """A leftover binding of an earlier try would make ours look made."""
    if any(binding.host == target.name for binding in bindings):
        yield Refused(
            f"Port {port.id} has a binding at {target.name} already.",
            "It is left of an earlier move.",
            f"Delete it: `openstack port binding delete --host {target.name} {port.id}`.",
        )


def of_allocations(
    held: Allocations, free: Mapping[str, int], new: Flavor, source: Host, target: Host
) -> Iterator[Refused]:
    """Placement must know the server where it is, and have room where it goes."""
    if set(held.resources) != {source.provider}:
        yield Refused(
            "The server's allocation in Placement is not as it should be.",
            f"It is on {', '.join(held.resources) or 'no provider'}, not on {source.name}'s alone.",
            "Run `nova-manage placement audit` and `heal_allocations`.",
        )
    for name, amount in amounts(new).items():
        if free.get(name, 0) < amount:
            yield Refused(
                f"There is no room on {target.name}.",
                f"{amount} {name} are needed, {free.get(name, 0)} are free.",
                "Choose another host with --to-host.",
            )


def of_group(
    group: ServerGroup | None, server: str, hosts: Mapping[str, str], target: Host
) -> Iterator[Refused]:
    """A server group's policy holds across cells; `hosts` is member -> host."""
    if group is None:
        return
    others = {member: host for member, host in hosts.items() if member != server}
    if group.policy == "anti-affinity" and target.name in others.values():
        yield Refused(
            f"The server's group keeps it off {target.name}.",
            f"Group {group.name} is anti-affine and has a member there.",
            "Choose another host with --to-host.",
        )
    if group.policy == "affinity" and set(others.values()) - {target.name}:
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


def of_disks(disks: Sequence[Disk], source: Host) -> Iterator[Refused]:
    """The root disk, and a config drive beside it."""
    names = {disk.name for disk in disks}
    if "disk" not in names:
        yield Refused(
            f"The server's root disk is not on {source.name}.",
            f"Its directory holds {', '.join(sorted(names)) or 'nothing'}.",
            "Only servers with local disks in files are moved.",
        )
    for name in sorted(names - set(KNOWN_DISKS)):
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
        yield Refused(
            f"nova-compute on {host.name} is disabled.",
            "Nothing new may be placed there.",
            "Enable it, or choose another host with --to-host.",
        )
    if service.version < 47:
        yield Refused(
            f"nova-compute on {host.name} is too old.",
            f"Its service version is {service.version}; nova's own confirm and revert need 47.",
            "Upgrade it to Ussuri or later.",
        )
