"""The server's volumes: attachments in Cinder, connections on the hosts, block device mappings.

One side gives the volumes up and the other takes them; a revert is a resize with the sides
exchanged. Attachments are found again by what they are: those of this server that are only
`reserved` and that the other cell's mappings do not name are this side's.

Cinder chooses the ids of attachments, so an undo gives back an attachment that is the same but for
its id, and notes that. No connection information is kept in the journal with a secret in it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo
from cellmove.steps.base import Side, Step, host_of, other

if TYPE_CHECKING:
    from cellmove.cloud import Cloud, Hypervisor
    from cellmove.dbcopy.database import Database, Row
    from cellmove.model import Attachment, Move, Volume

MAPPINGS = "block_device_mapping"
RESERVED, ATTACHED = "reserved", "attached"


class VolumeStep(Step):
    """A step for all volumes of the server on one side."""

    side: ClassVar[Side]

    @classmethod
    def applies(cls, move: Move) -> bool:
        """Only servers with volumes, or with leftovers of volumes, have such a step."""
        return bool(move.volumes or move.stale_attachments)

    @property
    def host(self) -> str:
        return host_of(self.move, self.side).name

    @property
    def count(self) -> str:
        """The number of volumes, in words."""
        number = len(self.move.volumes)
        return f"{number} volume{'s'[: number != 1]}"

    def hypervisor(self, cloud: Cloud) -> Hypervisor:
        return cloud.hosts.reach(self.host)

    def database(self, cloud: Cloud) -> Database:
        return cloud.cells[host_of(self.move, self.side).cell.uuid]

    def mappings(self, cloud: Cloud, side: Side | None = None) -> dict[str, Row]:
        """The mappings of volumes in a side's cell, by uuid."""
        cell = host_of(self.move, side or self.side).cell
        with cloud.cells[cell.uuid].read() as rows:
            found = rows.all(MAPPINGS, **volumes_of(self.move.server))
        return {row["uuid"]: row for row in found}

    def noted(self, cloud: Cloud) -> dict[str, str]:
        """Volume id -> the attachment that this side's mapping names, where it has one."""
        found = self.mappings(cloud)
        return {
            volume.id: found[volume.mapping]["attachment_id"] or ""
            for volume in self.move.volumes
            if volume.mapping in found
        }

    def attachments(self, cloud: Cloud) -> dict[str, Attachment]:
        """All attachments of the server, by id."""
        return {each.id: each for each in cloud.volumes.attachments(self.move.server)}

    def spare(self, cloud: Cloud) -> dict[str, list[str]]:
        """Volume id -> its reserved attachments that the other cell's mappings do not name."""
        taken = {row["attachment_id"] for row in self.mappings(cloud, other(self.side)).values()}
        found: dict[str, list[str]] = {volume.id: [] for volume in self.move.volumes}
        for each in self.attachments(cloud).values():
            if each.status == RESERVED and each.id not in taken and each.volume in found:
                found[each.volume].append(each.id)
        return found

    def export(self, cloud: Cloud, volume: Volume, attachment: Attachment) -> None:
        """Bring an attachment to `attached` on this side's host, from wherever it stands."""
        if attachment.status == RESERVED:
            # nova sends the device's name with the connector: the API takes it nowhere else.
            connector = {**self.hypervisor(cloud).connector(), "mountpoint": volume.device}
            cloud.volumes.connect(attachment.id, connector)
        if attachment.status != ATTACHED:
            cloud.volumes.complete(attachment.id)

    def replace(self, cloud: Cloud, volume: Volume, keep: str) -> None:
        """See that the volume has a reservation beside `keep` that no cell's mapping names."""
        named = {row["attachment_id"] for row in self.mappings(cloud).values()}
        if not set(self.spare(cloud)[volume.id]) - named - {keep}:
            cloud.volumes.reserve(volume.id, self.move.server)

    def fresh(self, cloud: Cloud, volume: Volume, attachment: str) -> ConnectionInfo:
        """How this side's host reaches the volume, from Cinder; empty while it does not."""
        found = cloud.volumes.connection_info(attachment) if attachment else {}
        return {**found, "multiattach": True} if found and volume.multiattach else found


def volumes_of(server: str) -> dict[str, Any]:
    """Finds the mappings of a server's volumes."""
    return {"instance_uuid": server, "destination_type": "volume", "deleted": 0}


def mapping_of(volume: Volume, attachment: str) -> dict[str, Any]:
    """Finds a mapping that names this attachment still."""
    return {"uuid": volume.mapping, "attachment_id": attachment, "deleted": 0}


def require_off(here: Hypervisor, move: Move, what: str) -> None:
    """Volumes are only handled under a guest that is off.

    Raises:
        StepFailed: it runs or is paused.
    """
    found = here.domain(move.server)
    if found is not None and found.state != "off":
        raise StepFailed(
            f"The volumes are not {what} {here.name}.",
            f"The guest there is {found.state}.",
            "See which of the two guests has the server's data before stopping one.",
        )


def parsed(text: str | None) -> ConnectionInfo:
    """Connection information as nova stores it; empty when there is none."""
    found = json.loads(text) if text else None
    return found if isinstance(found, dict) else {}


def text_of(info: ConnectionInfo) -> str:
    """Connection information in the form in which nova stores it."""
    return json.dumps(dict(info))
