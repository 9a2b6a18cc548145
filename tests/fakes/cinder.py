"""Cinder in memory, as it was measured: attachments with their rules, exports by host."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo
from cellmove.model import Attachment, VolumeState

NFS, ISCSI = "nfs", "iscsi"


@dataclass(slots=True)
class _Volume:
    kind: str
    state: VolumeState


@dataclass(frozen=True, slots=True)
class _Attachment:
    volume: str
    server: str
    status: str = "reserved"
    connector: Mapping[str, object] = field(default_factory=dict)
    export: int = 0


class FakeVolumes:
    """A `cloud.Volumes`; the contract suite holds it to a real Cinder.

    An iSCSI volume has another unit number for each host, as with some backends; with `drift` its
    exports get new ones: information from before then leads to nothing.
    """

    def __init__(self, *, attachments_offered: bool = True) -> None:
        self._offered = attachments_offered
        self._volumes: dict[str, _Volume] = {}
        self._attachments: dict[str, _Attachment] = {}
        self.drift = 0

    def add_volume(self, kind: str = NFS, *, multiattach: bool = False, wanted: str = "") -> str:
        """Make a volume; returns its id."""
        made = wanted or str(uuid.uuid4())
        self._volumes[made] = _Volume(kind, VolumeState("available", False, multiattach))
        return made

    def set_state(self, volume: str, **facts: Any) -> None:
        """Make Cinder say something else of a volume; `facts` are fields of `VolumeState`."""
        found = self._volumes[volume]
        found.state = replace(found.state, **facts)

    def attach(self, volume: str, server: str, connector: Mapping[str, object]) -> str:
        """All that nova does to attach a volume; returns the attachment's id."""
        before = set(self._attachments)
        self.reserve(volume, server)
        (made,) = set(self._attachments) - before
        self.connect(made, connector)
        self.complete(made)
        return made

    def snapshot(self) -> dict[str, Any]:
        """All that Cinder knows but for the ids of attachments, which it chooses itself."""
        return {
            "volumes": {
                volume: (found.kind, found.state, self._status(volume))
                for volume, found in self._volumes.items()
            },
            "attachments": sorted(
                (each.volume, each.server, each.status, str(each.connector.get("host")))
                for each in self._attachments.values()
            ),
        }

    def has_attachments(self) -> bool:
        return self._offered

    def volume(self, volume: str) -> VolumeState | None:
        found = self._volumes.get(volume)
        return None if found is None else replace(found.state, status=self._status(volume))

    def attachments(self, server: str) -> tuple[Attachment, ...]:
        mine = (
            Attachment(key, each.volume, each.status)
            for key, each in self._attachments.items()
            if each.server == server
        )
        return tuple(sorted(mine, key=lambda attachment: attachment.id))

    def all_attachments(self) -> Mapping[str, tuple[Attachment, ...]]:
        servers = {each.server for each in self._attachments.values()}
        return {server: self.attachments(server) for server in servers}

    def connection_info(self, attachment: str) -> ConnectionInfo:
        found = self._attachments.get(attachment)
        if found is None or not found.connector:
            return {}
        kind = self._volumes[found.volume].kind
        data: dict[str, object] = {"access_mode": "rw"}
        if kind == NFS:
            data |= {"export": "nfs.example:/srv", "name": f"volume-{found.volume}"}
            data |= {"format": "raw", "options": None}
        else:
            data |= {"target_iqn": f"iqn.2010-10.example:{found.volume}"}
            data |= {"target_portal": "192.0.2.9:3260", "target_lun": found.export}
        return {
            "driver_volume_type": kind,
            "data": data,
            "status": found.status,
            "instance": found.server,
            "attached_at": "",
            "detached_at": "",
            "volume_id": found.volume,
            "serial": found.volume,
        }

    def reserve(self, volume: str, server: str) -> None:
        self._made(volume, server)

    def export(self, volume: str, server: str, connector: Mapping[str, object]) -> None:
        self._export(self._made(volume, server), connector)

    def _made(self, volume: str, server: str) -> str:
        what = f"Cinder did not reserve volume {volume}."
        if volume not in self._volumes:
            raise StepFailed(what, "It answered 404.")
        owners = {each.server for each in self._of(volume)}
        if owners - {server} and not self._volumes[volume].state.multiattach:
            raise StepFailed(what, "Another server has it.")
        if any(each.status == "attaching" for each in self._of(volume)):
            raise StepFailed(what, "It is attaching.")
        made = str(uuid.uuid4())
        self._attachments[made] = _Attachment(volume, server)
        return made

    def connect(self, attachment: str, connector: Mapping[str, object]) -> None:
        what = f"Cinder did not export the volume of attachment {attachment}."
        found = self._attachments.get(attachment)
        if found is None:
            raise StepFailed(what, "It answered 404.")
        alike = self._of(found.volume)
        shareable = self._volumes[found.volume].state.multiattach
        if len(alike) > 1 and not shareable and any(each.connector for each in alike):
            raise StepFailed(what, "Duplicate connectors.")
        self._export(attachment, connector)

    def _export(self, attachment: str, connector: Mapping[str, object]) -> None:
        found = self._attachments[attachment]
        number = sum(str(connector["host"]).encode()) + self.drift
        self._attachments[attachment] = replace(
            found, status="attaching", connector=dict(connector), export=number
        )

    def complete(self, attachment: str) -> None:
        if attachment not in self._attachments:
            raise StepFailed(f"Cinder did not complete attachment {attachment}.", "404.")
        found = self._attachments[attachment]
        self._attachments[attachment] = replace(found, status="attached")

    def delete(self, attachment: str) -> None:
        self._attachments.pop(attachment, None)

    def _of(self, volume: str) -> list[_Attachment]:
        return [each for each in self._attachments.values() if each.volume == volume]

    def _status(self, volume: str) -> str:
        told = self._volumes[volume].state.status
        statuses = {each.status for each in self._of(volume)}
        if told != "available" or not statuses:
            return told
        if "attached" in statuses:
            return "in-use"
        return "attaching" if "attaching" in statuses else "reserved"
