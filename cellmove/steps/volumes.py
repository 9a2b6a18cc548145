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
    """A step for the server's volumes on one side."""

    side: ClassVar[Side]
    shared: ClassVar[bool | None] = None
    """Whether it is for those that any number of hosts may reach, for the others, or for all."""

    @classmethod
    def applies(cls, move: Move) -> bool:
        """Only servers with such volumes, or with leftovers of volumes, have such a step."""
        return bool(cls.chosen(move) or (cls.shared is None and move.stale_attachments))

    @classmethod
    def chosen(cls, move: Move) -> tuple[Volume, ...]:
        """The volumes of a move that are such a step's."""
        return tuple(each for each in move.volumes if cls.shared in (None, each.is_shared))

    @property
    def volumes(self) -> tuple[Volume, ...]:
        return self.chosen(self.move)

    @property
    def host(self) -> str:
        return host_of(self.move, self.side).name

    @property
    def count(self) -> str:
        """The number of volumes, in words."""
        number = len(self.volumes)
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

    def export(self, cloud: Cloud, volume: Volume) -> None:
        """Export the volume to this side's host, through what was reserved for it.

        While another host has the volume, Cinder gives no reservation a connector, but it makes an
        attachment with one, as for a live migration: that takes the reservation's place.

        Raises:
            StepFailed: nothing was reserved, or Cinder cannot export it.
        """
        there, reserved = self.attachments(cloud), self.noted(cloud).get(volume.id, "")
        found = there.get(reserved)
        if found is not None and found.status == ATTACHED:
            return
        others = (each for each in there.values() if each.volume == volume.id)
        if any(each.id != reserved and each.status != RESERVED for each in others):
            self._export_beside(cloud, volume, reserved)
            return
        if found is None:
            raise StepFailed(
                f"Volume {volume.id} is not reserved for {self.host}.",
                "Cinder does not know the attachment that its mapping names.",
                "Look at the volume's attachments in Cinder.",
            )
        if found.status == RESERVED:
            cloud.volumes.connect(reserved, self._connector(cloud, volume))
        cloud.volumes.complete(reserved)

    def _export_beside(self, cloud: Cloud, volume: Volume, reserved: str) -> None:
        made = self.unnamed(cloud, volume)
        if made is None:  # else an earlier try of ours made it
            cloud.volumes.export(volume.id, self.move.server, self._connector(cloud, volume))
            made = self.unnamed(cloud, volume)
        if made is None:
            raise StepFailed(
                f"Volume {volume.id} is not exported to {self.host}.",
                "Cinder made an attachment and does not list it.",
                "Look at the volume's attachments in Cinder.",
            )
        if made.status != ATTACHED:
            cloud.volumes.complete(made.id)
        # One waits for the other side; more were left by tries that Cinder could not connect.
        left = [each for each in self.spare(cloud)[volume.id] if each != reserved]
        for each in (*left[1:], reserved):
            cloud.volumes.delete(each)
        with self.database(cloud).write() as rows:
            rows.change(MAPPINGS, {"attachment_id": made.id}, **mapping_of(volume, reserved))

    def unnamed(self, cloud: Cloud, volume: Volume) -> Attachment | None:
        """The volume's attachment with a connector that is in no mapping yet."""
        sides: tuple[Side, Side] = ("source", "target")
        mappings = [row for side in sides for row in self.mappings(cloud, side).values()]
        known = {row["attachment_id"] for row in mappings}
        known |= {volume.attachment, *self.move.stale_attachments}
        for each in self.attachments(cloud).values():
            if each.volume == volume.id and each.id not in known and each.status != RESERVED:
                return each
        return None

    def _connector(self, cloud: Cloud, volume: Volume) -> dict[str, object]:
        """As nova, with the device's name: the API takes that nowhere else."""
        return {**self.hypervisor(cloud).connector(), "mountpoint": volume.device}

    def replace(self, cloud: Cloud, volume: Volume) -> None:
        """See that the volume has a reservation that no cell's mapping names."""
        named = {row["attachment_id"] for row in self.mappings(cloud).values()}
        if not set(self.spare(cloud)[volume.id]) - named:
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
