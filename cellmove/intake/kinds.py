"""Kinds of server that stay where they are, each with its reason; docs/kinds.rst lists them.

A kind is told by the extra specs of the old and of the new flavor, by the properties of the
server's image (nova keeps them in its system metadata), by its records, and by its guest's
definition. What nova itself would find only after it has stopped the guest is found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cellmove.cloud import Cloud
from cellmove.dbcopy.database import Row
from cellmove.errors import Refused
from cellmove.hosts import firmware
from cellmove.hosts.machine import Offer, unplaced
from cellmove.hosts.xml import GuestXml
from cellmove.intake.found import Actor, Placed
from cellmove.model import Flavor, Host, Port

_LEAVE: Final = "Leave the server where it is."
_CHOOSE: Final = "Choose a flavor without them, or leave the server where it is."
_SWITCHES: Final = re.compile(
    r"hw[:_](mem_encryption|ephemeral_encryption|locked_memory|cpu_realtime)"
)
_NO: Final = frozenset({"", "0", "false", "no", "off", "n", "f"})
"""How a switch is written that is off; in lower case."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of server that is not moved."""

    name: str
    """As docs/kinds.rst has it: a plural."""
    why: str
    """What is in the way."""
    specs: str = ""
    """Expression for the extra specs of a flavor that make a server one of this kind."""
    images: str = ""
    """The same for image properties."""
    harmless: str = ""
    """Expression for values that do not."""
    do: str = _LEAVE

    def refusal(self, seen: str) -> Refused:
        """The reason as the user gets it."""
        return Refused(f"{self.name} are not moved: {self.why}.", seen, self.do)


PCI: Final = Kind(
    "Servers with PCI devices",
    "such a device belongs to its host",
    specs=r"pci_passthrough:alias|hw:pci_numa_affinity_policy",
    images=r"hw_pci_numa_affinity_policy",
)
SRIOV: Final = Kind(
    "Servers with SR-IOV or offloaded ports", "a port of this kind is a device of its host"
)
VGPU: Final = Kind(
    "Servers with virtual GPUs",
    "a virtual GPU is a device of its host",
    specs=r"resources\w*:(VGPU|PGPU)",
)
PMEM: Final = Kind(
    "Servers with persistent memory",
    "its content lives on a device of its host",
    specs=r"hw:pmem|resources\w*:CUSTOM_PMEM_NAMESPACE_\w+",
)
TPM: Final = Kind(
    "Servers with a virtual TPM",
    "only its owner may read the secret that its state is encrypted with",
    specs=r"hw:tpm_(version|model)",
    images=r"hw_tpm_(version|model)",
)
ENCRYPTED: Final = Kind(
    "Servers with encrypted local disks",
    "their keys are not ours to take along",
    specs=r"hw:ephemeral_encryption(_format)?",
    images=r"hw_ephemeral_encryption(_format)?",
)
SEV: Final = Kind(
    "Servers with encrypted memory (SEV)",
    "its processor's memory keys and firmware are not looked for on the target",
    specs=r"hw:mem_encryption|resources\w*:MEM_ENCRYPTION_CONTEXT",
    images=r"hw_mem_encryption",
)
NUMA: Final = Kind(
    "Servers with pinned CPUs, NUMA nodes or huge pages",
    "only nova-compute on the target can say which CPUs and memory are free",
    specs=r"hw:(cpu_policy|cpu_thread_policy|cpu_dedicated_mask|emulator_threads_policy"
    r"|mem_page_size|locked_memory|numa_\w+(\.\d+)?)|resources\w*:PCPU",
    images=r"hw_(cpu_policy|cpu_thread_policy|emulator_threads_policy|mem_page_size|locked_memory"
    r"|numa_\w+(\.\d+)?)",
    harmless=r"shared",
)
REALTIME: Final = Kind(
    "Servers with real-time CPUs",
    "they need CPUs of their own",
    specs=r"hw:cpu_realtime(_mask)?",
    images=r"hw_cpu_realtime(_mask)?",
)
ACCELERATOR: Final = Kind(
    "Servers with accelerators",
    "an accelerator is a device of its host",
    specs=r"accel:.*",
)
PLACEMENT: Final = Kind(
    "Servers whose flavor asks for further resources or traits",
    "cellmove asks Placement only for CPU, memory and disk",
    specs=r"(resources|trait|group_policy|require_tenant_aggregate).*",
    images=r"traits?_required",
    do=_CHOOSE,
)
HYPERVISOR: Final = Kind("Servers of other hypervisors than QEMU and KVM", "cellmove knows libvirt")
SHAPE: Final = Kind(
    "Servers whose flavor shapes the guest in another way than before",
    "only nova can give it that shape, at a hard reboot",
    do="Choose a flavor with the same extra specs, or leave the server where it is.",
)
UNKNOWN: Final = Kind(
    "Servers with extra specs that cellmove does not know", "they may tie it to its host"
)
FIRMWARE: Final = Kind(
    "Servers whose firmware keeps its variables in an unusual place",
    "cellmove may not read them there",
)
CONSOLE: Final = Kind(
    "Servers with a console at an unknown address", "the target has no such address"
)

ALL: Final = (
    PCI,
    SRIOV,
    VGPU,
    PMEM,
    TPM,
    ENCRYPTED,
    SEV,
    REALTIME,
    NUMA,
    ACCELERATOR,
    PLACEMENT,
    HYPERVISOR,
    SHAPE,
    UNKNOWN,
    FIRMWARE,
    CONSOLE,
)
"""A flavor or an image is of the first that matches."""

SHAPES: Final = re.compile(
    r"hw:(boot_menu|vif_multiqueue_enabled|pmu|serial_port_count|watchdog_action|hide_hypervisor_id"
    r"|input_bus|viommu_model|(max_)?cpu_(sockets|cores|threads)|cpu_max_(sockets|cores|threads)"
    r"|max_cpu_(sockets|cores|threads))|hw_(rng|video):.*|os:secure_boot|hide_hypervisor_id|quota:.*"
)
"""Extra specs that nova writes into the guest's definition, and that hold nothing of the host."""
_OUR_BUSINESS: Final = re.compile(r"(hw|hw_\w+|quota|os):.*")
_TOPOLOGY: Final = re.compile(r"hw:(max_)?cpu_(sockets|cores|threads|max_\w+)|hw:vif_multiqueue.*")


def of_server(cloud: Cloud, here: Placed) -> Iterator[Refused]:
    """Everything that keeps this server where it is, wherever it would go."""
    tables = here.records.tables
    system_metadata = {row["key"]: row["value"] for row in tables["instance_system_metadata"]}
    yield from of_image(properties_of(system_metadata))
    yield from of_secrets(system_metadata)
    yield from of_records(tables, here.pci_devices)
    yield from of_hypervisor(here.host, _hypervisor_type(cloud, here.host))


def of_wish(
    cloud: Cloud, here: Placed, target: Host, new: Flavor, ports: Iterable[Port]
) -> Iterator[Refused]:
    """Everything that keeps this server from this flavor and host."""
    yield from of_flavors(here.flavor, new)
    yield from of_vnic_types(port.vnic_type for port in ports)
    yield from of_hypervisor(target, _hypervisor_type(cloud, target))
    found = cloud.hosts.reach(here.host.name).domain(here.row["uuid"])
    if found is not None:
        yield from _of_guest(cloud, GuestXml(found.xml), here.host, target)


def of_lock(server: Row, actor: Actor) -> Iterator[Refused]:
    """An administrator may move a locked server, nobody else (nova 26: compute/api.py)."""
    owner = server["project_id"], server["user_id"]
    if server["locked"] and any(actor.policy.refusals("context_is_admin", *owner)):
        yield Refused(
            "The server is locked.",
            f"Its {server['locked_by'] or 'owner'} has locked it; you are no administrator.",
            "Unlock it: `openstack server unlock`.",
        )


def nvram_of(cloud: Cloud, host: Host, server: str) -> str:
    """Where a guest's firmware keeps its variables on its host; empty when it keeps none."""
    found = cloud.hosts.reach(host.name).domain(server)
    return GuestXml(found.xml).nvram if found is not None else ""


def of_flavors(old: Flavor, new: Flavor) -> Iterator[Refused]:
    """What the extra specs of either flavor ask for."""
    for flavor in (old,) if old.flavorid == new.flavorid else (old, new):
        for kind, keys in _sorted_specs(flavor).items():
            yield kind.refusal(f"Flavor {flavor.name} has {', '.join(keys)}.")
    changed = sorted(
        key
        for key in {**old.extra_specs, **new.extra_specs}
        if SHAPES.fullmatch(key) and old.extra_specs.get(key) != new.extra_specs.get(key)
    )
    if old.vcpus != new.vcpus:
        changed += sorted(k for k in new.extra_specs if _TOPOLOGY.fullmatch(k) and k not in changed)
    if changed:
        seen = f"Flavors {old.name} and {new.name} differ in {', '.join(changed)}"
        yield SHAPE.refusal(seen + (", or in the CPUs." if old.vcpus != new.vcpus else "."))


def of_image(properties: Mapping[str, str | None]) -> Iterator[Refused]:
    """What the properties of the server's image ask for; their names are without `image_`."""
    for kind in ALL:
        found = sorted(
            key
            for key, value in properties.items()
            if kind.images and re.fullmatch(kind.images, key) and _is_set(kind, key, value)
        )
        if found:
            yield kind.refusal(f"Its image has {', '.join(found)}.")
    hypervisor = (properties.get("img_hv_type") or "qemu").lower()
    if hypervisor not in ("qemu", "kvm"):
        yield HYPERVISOR.refusal(f"Its image has img_hv_type {hypervisor}.")


def of_records(tables: Mapping[str, Sequence[Row]], pci_devices: int) -> Iterator[Refused]:
    """What the server's own records say."""
    server, extra = tables["instances"][0], tables["instance_extra"][0]
    mappings = tables["block_device_mapping"]
    if pci_devices or _holds(extra.get("pci_requests")):
        yield PCI.refusal(f"It has {pci_devices} device(s) or requests some.")
    for column, kind in (("numa_topology", NUMA), ("resources", PMEM)):
        if _holds(extra.get(column)):
            yield kind.refusal(f"instance_extra.{column} is set.")
    if server.get("ephemeral_key_uuid") or any(
        row.get("encrypted") and row["destination_type"] == "local" for row in mappings
    ):
        yield ENCRYPTED.refusal("Its records name a key of its local disks.")


def of_secrets(system_metadata: Mapping[str, str | None]) -> Iterator[Refused]:
    """A virtual TPM leaves the name of its secret in the system metadata."""
    if system_metadata.get("vtpm_secret_uuid"):
        yield TPM.refusal("Its system metadata has vtpm_secret_uuid.")


def of_vnic_types(types: Iterable[str]) -> Iterator[Refused]:
    """Ports that are devices of a host."""
    for kind in sorted({*types} - {"normal"}):
        yield SRIOV.refusal(f"It has a port of vnic_type {kind}.")


def of_hypervisor(host: Host, kind: str) -> Iterator[Refused]:
    """What a host's compute node says that it is."""
    if kind.lower() not in ("qemu", "kvm"):
        yield HYPERVISOR.refusal(f"{host.name} runs {kind or 'something unnamed'}.")


def of_offer(guest: GuestXml, offer: Offer, source: Host, target: Host) -> Iterator[Refused]:
    """The target's libvirt must be able to run the guest, and its console must have a place."""
    for problem in offer.problems:
        yield Refused(f"{target.name} cannot run the guest.", f"{problem}.", "Choose another host.")
    for lost in unplaced(guest, offer, source.address):
        yield CONSOLE.refusal(f"{lost}.")


def of_firmware(path: str, content: bytes | None) -> Iterator[Refused]:
    """What a UEFI guest's firmware keeps must be a small file in libvirt's usual place."""
    if not firmware.is_ours(path):
        yield FIRMWARE.refusal(f"Its definition names {path}.")
    elif content is not None and len(content) > firmware.LARGEST_BYTES:
        yield Refused(
            "The firmware's variables are too large to be moved.",
            f"{path} has {len(content)} bytes; {firmware.LARGEST_BYTES} are the most.",
            _LEAVE,
        )


def properties_of(system_metadata: Mapping[str, str | None]) -> dict[str, str | None]:
    """The image's properties in a server's system metadata, under the image's own names."""
    return {
        key.removeprefix("image_"): value
        for key, value in system_metadata.items()
        if key.startswith("image_")
    }


def _of_guest(cloud: Cloud, guest: GuestXml, source: Host, target: Host) -> Iterator[Refused]:
    offer = cloud.hosts.reach(target.name).offer(guest.text)
    yield from of_offer(guest, offer, source, target)
    if path := guest.nvram:
        ours = firmware.is_ours(path)
        content = cloud.hosts.reach(source.name).nvram(path) if ours else None
        yield from of_firmware(path, content)


def _hypervisor_type(cloud: Cloud, host: Host) -> str:
    with cloud.cells[host.cell.uuid].read() as rows:
        node = rows.one("compute_nodes", uuid=host.provider, deleted=0)
    return str(node["hypervisor_type"]) if node is not None else ""


def _sorted_specs(flavor: Flavor) -> dict[Kind, list[str]]:
    found: dict[Kind, list[str]] = {}
    for key, value in sorted(flavor.extra_specs.items()):
        if (kind := _kind_of(key, value)) is not None:
            found.setdefault(kind, []).append(key)
    return found


def _kind_of(key: str, value: str) -> Kind | None:
    for kind in ALL:
        if kind.specs and re.fullmatch(kind.specs, key):
            return kind if _is_set(kind, key, value) else None
    known = SHAPES.fullmatch(key) or not _OUR_BUSINESS.fullmatch(key)
    return None if known else UNKNOWN


def _is_set(kind: Kind, key: str, value: str | None) -> bool:
    text = (value or "").strip().lower()
    if _SWITCHES.fullmatch(key) and text in _NO:
        return False
    return not (kind.harmless and re.fullmatch(kind.harmless, text))


def _holds(blob: object) -> bool:
    """Whether a JSON column holds anything."""
    return bool(blob) and str(blob).strip() not in ("[]", "null")
