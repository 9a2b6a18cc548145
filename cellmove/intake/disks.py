"""Taking in a server's local disks: what a new flavor does to them, and which cross warm."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cellmove.cloud import Cloud, Hypervisor
from cellmove.dbcopy.database import Row
from cellmove.errors import Refused
from cellmove.model import Disk, Flavor, Host
from cellmove.steps.disks import GIB, is_ephemeral


def of_sizes(old: Flavor, new: Flavor, disks: Sequence[Disk]) -> Iterator[Refused]:
    """Ephemeral disks and swap as nova 26 leaves them (virt/libvirt/driver.py: finish_migration).

    nova refuses to shrink an ephemeral disk, and leaves it as it is when the flavor gives more.
    """
    found_gb = sum(-(-disk.size_bytes // GIB) for disk in disks if is_ephemeral(disk))
    least_gb = max(found_gb, old.ephemeral_gb)
    if new.ephemeral_gb < least_gb:
        yield Refused(
            "Ephemeral disks never shrink.",
            f"The server has {least_gb} GB; flavor {new.name} gives {new.ephemeral_gb} GB.",
            f"Choose a flavor with an ephemeral disk of {least_gb} GB or more.",
        )
    if new.ephemeral_gb and not found_gb:
        yield Refused(
            "A first ephemeral disk is not made yet.",
            f"The server has none; flavor {new.name} gives {new.ephemeral_gb} GB.",
            "Choose a flavor without it.",
        )
    if old.swap_mb != new.swap_mb:
        yield Refused(
            "Swap of another size is not made yet.",
            f"Flavor {old.name} gives {old.swap_mb} MB, flavor {new.name} {new.swap_mb} MB.",
            f"Choose a flavor with {old.swap_mb} MB of swap.",
        )


def of_checkpoints(names: Sequence[str], source: Host) -> Iterator[Refused]:
    """A guest with checkpoints cannot be undefined, by nova neither."""
    if names:
        yield Refused(
            f"The guest on {source.name} has libvirt checkpoints.",
            f"They are {', '.join(sorted(names))}: of a backup program, or of a move that died.",
            "Delete them with `virsh checkpoint-delete`, or undo that move, then try again.",
        )


def of_storage(here: Hypervisor, there: Hypervisor) -> Iterator[Refused]:
    """Both hosts' instances directories must not be the same one.

    nova would then delete the server's disks with the old copy. What the hosts have mounted under
    different names is found by the server's directory, which the target has, too.
    """
    place = here.shared_place()
    if place and place == there.shared_place():
        yield Refused(
            f"{here.name} and {there.name} share their instances directory.",
            f"Both have mounted {place}.",
            "Choose a host with storage of its own: on shared storage nothing has to be copied.",
        )


def of_way(cloud: Cloud, here: Host, there: Host, disks: Sequence[Disk]) -> Iterator[Refused]:
    """Copies that are to pass through the bastion alone must be able to."""
    why = cloud.hosts.no_way(here.name, there.name) if disks else ""
    if why:
        yield Refused(
            f"The bastion cannot copy from {here.name} to {there.name}.",
            f"It was told to sign in to both, and said: {why}.",
            "Give its account a key and the hosts' keys (docs/disks.rst), or take `relay` out of "
            "[ssh].",
        )


def chains(
    here: Hypervisor, there: Hypervisor, server: Row, disks: Sequence[Disk], *, flatten: bool
) -> tuple[Disk, ...]:
    """The disks, each with whether it lies on its base at the target, too, and why not.

    nova's cache knows the server's image by the SHA-1 of its id. A base that is there already is
    compared by its hash, and counts no longer among what has to cross.
    """
    uuid, image = server["uuid"], server["image_ref"] or ""
    name = hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()

    def chain(disk: Disk) -> Disk:
        if not disk.chained:
            return disk
        if flatten:
            return replace(disk, why_flat="--flatten was asked for")
        if disk.base != name:
            return replace(disk, why_flat="it lies on another image than its server's")
        is_there = there.has_base(disk.base)
        if is_there and here.base_hash(uuid, disk.base) != there.base_hash(uuid, disk.base):
            return replace(disk, why_flat=f"{there.name} has another base of this name")
        own_bytes = disk.allocated_bytes - disk.base_bytes
        return replace(disk, allocated_bytes=own_bytes) if is_there else disk

    return tuple(chain(disk) for disk in disks)


def ways(
    here: Hypervisor, server: str, disks: Sequence[Disk], *, runs: bool, cold: bool
) -> tuple[Disk, ...]:
    """The disks, each with whether it crosses while the guest runs, and why not.

    What the guest cannot write to crosses warm only beside a disk that does: that one's
    checkpoint is the proof that the copy was whole.
    """
    if cold or not runs:
        why = "--cold was asked for" if cold else "the guest is off"
        return tuple(replace(disk, why_cold=why) for disk in disks)
    reasons = here.why_cold(server, disks)
    noted = any(disk.format == "qcow2" and not reasons[disk.name] for disk in disks)
    return tuple(
        replace(disk, warm=noted and not why, why_cold=why)
        for disk in disks
        for why in (reasons[disk.name],)
    )
