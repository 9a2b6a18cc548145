"""What Cinder keeps of servers' volumes, against what the cells name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cellmove.audit.facts import SETTLED, Facts, Server
from cellmove.audit.findings import Finding, Severity, Where
from cellmove.cloud import Cloud
from cellmove.dbcopy.leftovers import Copy, Device
from cellmove.errors import Conflict
from cellmove.model import Attachment


def check(facts: Facts) -> Iterator[Finding]:
    """Everything that Cinder keeps; nothing when it does not answer."""
    if not facts.knows_volumes:
        return
    named = {device.attachment for device in facts.devices()}
    known = {each.id: each for found in facts.attachments.values() for each in found}
    for server_id, attachments in facts.attachments.items():
        for each in attachments:
            if each.id not in named and server_id not in facts.outside:
                yield _stray(facts.server(server_id), each)
    for device in facts.devices():
        yield from _device(facts.server(device.server), device, known.get(device.attachment))


def _device(server: Server, device: Device, found: Attachment | None) -> Iterator[Finding]:
    """What a cell names must be there, and complete where the server is."""
    if not any(each.cell == device.cell for each in server.copies):
        return
    is_here = server.here is not None and server.here.cell == device.cell
    if found is None:
        # A hidden copy's is for the way back, and only a resized server has one.
        if is_here or server.is_resized:
            yield _unknown(server, device)
    elif server.here is not None and is_here:
        yield from _unconnected(server, server.here, device, found)


def _stray(server: Server, found: Attachment) -> Finding:
    """Of a move that broke off between Cinder's answer and the row, or of a failed clean-up."""
    code = "stale-reservation" if found.status == "reserved" else "stray-attachment"
    who = "no cell names it" if server.is_there else "nova does not have the server"
    seen = f"Attachment {found.id} of volume {found.volume} is {found.status}, and {who}."
    do = (f"openstack --os-volume-api-version 3.27 volume attachment delete {found.id}",)
    safe = found.status == "reserved" and bool(server.copies or server.deleted)
    here = server.here
    return Finding(
        code,
        Severity.LEFT_OVER,
        Where(server.id, server.name, here.cell.name if here else ""),
        seen,
        do,
        thing=found.id,
        mend=partial(_unreserve, server.id, found.id) if safe else None,
    )


def _unknown(server: Server, device: Device) -> Finding:
    seen = f"{device.cell.name} names attachment {device.attachment} of volume {device.volume},"
    seen += " which Cinder does not have: the next hard reboot or start may not find the volume."
    do = (
        f"nova-manage volume_attachment get_connector --json > {server.id}.json  # on its host",
        f"nova-manage volume_attachment refresh {server.id} {device.volume} {server.id}.json",
    )
    return Finding(
        "attachment-lost",
        Severity.LOST,
        Where(server.id, server.name, device.cell.name),
        seen,
        do,
        thing=device.volume,
    )


def _unconnected(
    server: Server, here: Copy, device: Device, found: Attachment
) -> Iterator[Finding]:
    if found.status == "attached" or not here.host or here.vm_state not in SETTLED:
        return
    seen = f"Volume {device.volume} should be attached, and its attachment {found.id}"
    seen += f" is {found.status}."
    do = (
        f"openstack --os-volume-api-version 3.44 volume attachment show {found.id}",
        f"openstack --os-volume-api-version 3.44 volume attachment complete {found.id}",
    )
    yield Finding(
        "attachment-incomplete",
        Severity.LOST,
        Where(server.id, server.name, here.cell.name, here.host),
        seen,
        do,
        thing=device.volume,
    )


def _unreserve(server: str, attachment: str, cloud: Cloud) -> None:
    """Delete it if it is still only reserved: a moment before, once more."""
    found = {each.id: each for each in cloud.volumes.attachments(server)}
    if attachment not in found:
        return
    if found[attachment].status != "reserved":
        raise Conflict(
            f"Attachment {attachment} is not deleted.",
            f"It is {found[attachment].status} by now.",
            "Run the audit again.",
        )
    cloud.volumes.delete(attachment)
