"""A server's volumes as nova and Cinder have them, and what is against moving them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cellmove.cloud import Cloud
from cellmove.dbcopy.database import Row
from cellmove.errors import Refused
from cellmove.hosts.blocks import ConnectionInfo
from cellmove.model import Host, Volume

Tables = Mapping[str, Sequence[Row]]


def volumes_of(tables: Tables) -> tuple[Volume, ...]:
    """The server's volumes by its block device mappings, in their order."""
    return tuple(
        Volume(
            id=row["volume_id"] or "",
            mapping=row["uuid"] or "",
            attachment=row["attachment_id"] or "",
            device=row["device_name"] or "",
            is_root=row["boot_index"] == 0,
            multiattach=bool(_info(row).get("multiattach")),
            kind=str(_info(row).get("driver_volume_type") or ""),
        )
        for row in _mappings(tables)
    )


def stale_attachments(home: Tables, there: Tables) -> tuple[str, ...]:
    """What the hidden cell has reserved of volumes that were detached or swapped meanwhile."""
    kept = {(row["uuid"], row["volume_id"]) for row in _mappings(there)}
    return tuple(
        row["attachment_id"]
        for row in _mappings(home)
        if row["attachment_id"] and (row["uuid"], row["volume_id"]) not in kept
    )


def of_volumes(
    cloud: Cloud, server: str, tables: Tables, hosts: Sequence[Host], known: Sequence[str] = ()
) -> Iterator[Refused]:
    """Each volume must be in use, known to both services alike, and of a kind these hosts take.

    `known`: attachments that another cell's mappings rightly name.
    """
    mappings = _mappings(tables)
    if not mappings:
        return
    if not cloud.volumes.has_attachments():
        yield Refused(
            "Servers with volumes cannot be moved with this Cinder.",
            "It does not offer attachments of microversion 3.44.",
            "Upgrade Cinder to Queens or later.",
        )
        return
    named = {row["attachment_id"] for row in mappings} | set(known)
    found = cloud.volumes.attachments(server)
    for row in mappings:
        complete = _is_complete(row)
        if not complete:
            yield Refused(
                f"nova's record of volume {row['volume_id'] or 'without an id'} is not complete.",
                "It lacks the attachment's id, or how the host reaches the volume.",
                "Detach the volume and attach it again.",
            )
            continue
        yield from _of_state(cloud, row)
        yield from _of_kind(cloud, row, hosts)
        status = {each.id: each.status for each in found}.get(row["attachment_id"], "gone")
        if status != "attached":
            yield Refused(
                f"Cinder does not have volume {row['volume_id']} attached.",
                f"The attachment {row['attachment_id']} that nova names is {status}.",
                "Detach the volume and attach it again.",
            )
    for each in found:
        if each.id not in named:
            yield Refused(
                f"Volume {each.volume} has a further attachment to the server.",
                f"nova does not know {each.id}; it is {each.status}, left of an earlier move.",
                f"Delete it: `cinder attachment-delete {each.id}`.",
            )


def of_zones(cloud: Cloud, volumes: Sequence[Volume], target: Host) -> Iterator[Refused]:
    """With `cross_az_attach = False` nova attaches no volume of another zone, nor starts with one.

    nova 26: volume/cinder.py:API.check_availability_zone.
    """
    for volume in volumes:
        state = cloud.volumes.volume(volume.id)
        if state is not None and state.zone != target.zone:
            yield Refused(
                f"Volume {volume.id} is in another availability zone than {target.name}.",
                f"It is in {state.zone or 'none'}, the host in {target.zone}, and [nova] says "
                "cross_az_attach = false.",
                "Choose a host of the volume's zone with --to-host, or detach the volume first.",
            )


def _of_state(cloud: Cloud, row: Row) -> Iterator[Refused]:
    state = cloud.volumes.volume(row["volume_id"])
    if state is None or state.encrypted:
        yield Refused(
            f"Volume {row['volume_id']} cannot be moved.",
            "It is gone." if state is None else "It is encrypted, and its key is not ours to read.",
            "Detach it first, or leave the server where it is.",
        )
    elif state.migrating or state.status not in ("in-use", "reserved"):
        yield Refused(
            f"Volume {row['volume_id']} is not at rest.",
            f"Cinder calls it {'migrating' if state.migrating else state.status}.",
            "Wait until Cinder is done with it.",
        )


def _of_kind(cloud: Cloud, row: Row, hosts: Sequence[Host]) -> Iterator[Refused]:
    for host in hosts:
        obstacle = cloud.hosts.reach(host.name).volume_obstacle(_info(row))
        if obstacle:
            yield Refused(
                f"Volume {row['volume_id']} cannot be connected on {host.name}.",
                f"Seen: {obstacle}.",
                "Detach it first, or leave the server where it is.",
            )


def _is_complete(row: Row) -> bool:
    return all((row["volume_id"], row["uuid"], row["attachment_id"], _info(row).get("data")))


def _mappings(tables: Tables) -> list[Row]:
    rows = tables["block_device_mapping"]
    return [row for row in rows if row["destination_type"] == "volume"]


def _info(row: Row) -> ConnectionInfo:
    found = json.loads(row["connection_info"]) if row["connection_info"] else None
    return found if isinstance(found, dict) else {}
