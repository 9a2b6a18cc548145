"""What cellmove talks about: frozen values without any I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["resize", "migration"]
"""What nova calls it: `migration` when the flavor stays, else `resize`."""

UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""As nova writes it."""

GuestState = Literal["running", "paused", "off"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A nova cell, as `cell_mappings` names it."""

    id: int
    """Row id in the API database: what `instance_mappings.cell_id` holds."""
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class Host:
    """A hypervisor as nova knows it: one compute service with one compute node."""

    name: str
    """`services.host`."""
    node: str
    """`compute_nodes.hypervisor_hostname`."""
    node_id: int
    """`compute_nodes.id`: valid in its own cell only."""
    provider: str
    """`compute_nodes.uuid`, which is the resource provider's uuid in Placement."""
    address: str
    """`compute_nodes.host_ip`, what nova writes to `migrations.dest_host`."""
    zone: str
    """Availability zone."""
    cell: Cell


@dataclass(frozen=True, slots=True)
class Flavor:
    """A flavor, with all that nova keeps of it in a server's records."""

    id: int
    """`flavors.id` in the API database: what `instances.instance_type_id` holds."""
    flavorid: str
    name: str
    memory_mb: int
    vcpus: int
    root_gb: int
    ephemeral_gb: int
    swap_mb: int
    rxtx_factor: float = 1.0
    vcpu_weight: int | None = 0
    disabled: bool = False
    is_public: bool = True
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    created_at: str | None = None
    """ISO 8601 with `Z`, as nova's objects write it."""
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """A Neutron port of a server, as its active binding shows it."""

    id: str
    mac: str
    host: str
    status: str
    """`ACTIVE` or `DOWN`."""
    vif_type: str
    vnic_type: str = "normal"
    profile: Mapping[str, object] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    has_resource_request: bool = False
    is_trunk_parent: bool = False

    @property
    def device(self) -> str:
        """Name of the tap device: nova takes `tap` and the first 11 characters of the port id."""
        return f"tap{self.id[:11]}"


@dataclass(frozen=True, slots=True)
class Binding:
    """One of a port's bindings (Neutron extension `binding-extended`)."""

    host: str
    active: bool
    vif_type: str
    vnic_type: str = "normal"
    profile: Mapping[str, object] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerPort:
    """A port of any server, in a list of all of them."""

    id: str
    server: str
    """What Neutron calls its device."""
    host: str
    """Of the active binding; empty: none."""
    vif_type: str


@dataclass(frozen=True, slots=True)
class Network:
    """A Neutron network, as nova's network cache knows it."""

    id: str
    name: str
    project_id: str
    mtu: int | None
    physical_network: str | None
    tunneled: bool
    """Whether its traffic goes through tunnels (VXLAN, GRE, Geneve)."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A Neutron subnet, as nova's network cache knows it."""

    id: str
    cidr: str
    gateway: str | None
    nameservers: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    """Destination and next hop of each."""
    dhcp_server: str | None = None
    ipv6_address_mode: str | None = None


@dataclass(frozen=True, slots=True)
class Vif:
    """A port with all that nova's network cache says of it (nova: virtual interface)."""

    port: Port
    active: bool
    """As nova sees it: ACTIVE, or switched off by its owner."""
    network: Network
    subnets: tuple[Subnet, ...]
    addresses: Mapping[str, tuple[str, ...]]
    """Fixed address -> the floating addresses that lead to it."""


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """What a port wants of one provider in Placement: the guarantees of its QoS policy."""

    port: str
    id: str
    """Neutron's name of the group: the key of the provider in the binding's profile."""
    resources: Mapping[str, int]
    """Resource class -> amount, e.g. `NET_BW_EGR_KILOBIT_PER_SEC`."""
    traits: tuple[str, ...] = ()
    """What the provider must be, e.g. `CUSTOM_PHYSNET_PHYSNET1`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way in which a host could give what is asked for."""

    resources: Mapping[str, Mapping[str, int]]
    """Provider uuid -> resource class -> amount: the claim to be."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Id of a resource group -> uuid of the provider that would serve it."""


@dataclass(frozen=True, slots=True)
class Allocations:
    """What one consumer holds in Placement."""

    consumer: str
    resources: Mapping[str, Mapping[str, int]]
    """Provider uuid -> resource class -> amount; empty: the consumer holds nothing."""
    generation: int | None
    """The consumer's generation; None: the consumer does not exist."""
    project_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """One local disk of a server: a file in its instance directory."""

    name: str
    """File name: `disk`, `disk.eph0`, `disk.config`..."""
    format: str
    """`qcow2` or `raw`."""
    size_bytes: int
    """What the guest sees (virtual size)."""
    allocated_bytes: int = 0
    """What it takes on the file system, its backing files included."""
    version: int = 3
    """Of the qcow2 format: 3 (compat 1.1) or 2."""
    warm: bool = False
    """Copied while the guest runs; then only what it wrote last is copied while it is off."""
    why_cold: str = ""
    """Why it cannot be copied while the guest runs; empty when it can or the guest is off."""
    base: str = ""
    """The file of the host's image cache that it lies on; empty: it lies on none."""
    base_bytes: int = 0
    """How much of `allocated_bytes` is the base's."""
    why_flat: str = ""
    """Why it crosses without what it lies on; empty: it keeps its base, or lies on nothing."""

    @property
    def chained(self) -> bool:
        """Whether it lies on its base at the target, too."""
        return bool(self.base) and not self.why_flat


SHARED_KINDS = ("nfs", "rbd")
"""Kinds of volume whose export is the same for all hosts; nothing on one is to be disconnected."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A Cinder volume of a server, as the block device mapping in its visible cell names it."""

    id: str
    mapping: str
    """Uuid of the block device mapping: the same in both cells."""
    attachment: str
    """The attachment through which the guest had it when the move began."""
    device: str
    """`/dev/vdb`: what nova tells Cinder as the mount point; the guest may see another name."""
    is_root: bool = False
    """Whether the server boots from it."""
    multiattach: bool = False
    kind: str = ""
    """Cinder's `driver_volume_type`; empty in journals before 1.0: handled as any other then."""

    @property
    def is_shared(self) -> bool:
        """Whether any number of hosts may reach it at once; of others, some allow but one host."""
        return self.kind in SHARED_KINDS


@dataclass(frozen=True, slots=True)
class Attachment:
    """A volume's attachment to a server, as Cinder has it."""

    id: str
    volume: str
    status: str
    """`reserved` without a connector, `attaching` with one, `attached` when completed."""


@dataclass(frozen=True, slots=True)
class VolumeState:
    """What Cinder says of a volume by itself."""

    status: str
    """`in-use`, `reserved`, `retyping`..."""
    encrypted: bool
    multiattach: bool
    migrating: bool = False
    """Whether Cinder is moving it to another backend."""
    zone: str = ""
    """Availability zone."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A guest as its hypervisor's libvirt shows it."""

    uuid: str
    name: str
    state: GuestState
    xml: str
    """The inactive definition, without security information."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a disk's copy is; sent to whoever watches."""

    disk: str
    done_bytes: int
    total_bytes: int
    round: int | None = None
    """0: all of it, while the guest runs; 1...: what was written meanwhile; None: it is off."""
    seconds: float = 0.0
    """Since the round began."""


@dataclass(frozen=True, slots=True)
class Move:
    """All that is known before a verb begins: the steps of a score are made of it alone.

    It is written to the journal as it is, so it holds no secret.
    """

    id: str
    request_id: str
    """`req-<uuid>`: in every service's log and in the server's action rows."""
    server: str
    name: str
    project_id: str
    user_id: str
    actor_user_id: str
    """Who runs cellmove: written to `migrations` and the action rows."""
    actor_project_id: str
    conductor: str
    """Name of the machine cellmove runs on: the host of the conductor's events."""
    kind: Kind
    source: Host
    target: Host
    migration: str
    """Its uuid: of a row in either cell, and of the consumer that holds the source's allocation."""
    old_flavor: Flavor
    new_flavor: Flavor
    vm_state: str
    """`active` or `stopped`: before the resize."""
    power_state: int
    ports: tuple[Port, ...]
    disks: tuple[Disk, ...]
    source_domain: str
    """Name of the guest on the source."""
    domain_template: str
    """nova's `instance_name_template`: a guest's name is made of its row's id in its cell."""
    started_at: str
    """UTC, `YYYY-MM-DD HH:MM:SS`: start time of the server's action."""
    shutdown_timeout_seconds: int = 60
    claim: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What the server takes at the target, provider by provider; empty: the new flavor, of the
    target's own provider alone."""
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Port -> profile of its binding at the host that this verb leads to (resize: the target's as
    it is to be, revert: the source's as it is). `Port.profile` is of the other one."""
    volumes: tuple[Volume, ...] = ()
    stale_attachments: tuple[str, ...] = ()
    """Reservations that the hidden cell holds for volumes that the server has no more (revert)."""
    nvram: str = ""
    """Path of what the guest's firmware keeps (UEFI) on the source; empty without such firmware."""

    @property
    def boots_from_volume(self) -> bool:
        """Whether the root disk is a volume, so that the server takes no local room for it."""
        return any(volume.is_root for volume in self.volumes)
