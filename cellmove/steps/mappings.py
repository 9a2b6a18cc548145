"""Volumes in both cells: nova's block device mappings, and how hosts reach what they name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cellmove.dbcopy.database import now
from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo
from cellmove.steps.base import Finding, Saved, Status, host_of
from cellmove.steps.volumes import (
    ATTACHED,
    MAPPINGS,
    VolumeStep,
    mapping_of,
    parsed,
    text_of,
    volumes_of,
)

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Row

SECRETS = ("password", "keyring", "secret_key", "token")
"""Parts of the names under which drivers put secrets into connection information."""

CELLS_OWN = ("id", "created_at", "updated_at", "connection_info", "attachment_id")
"""Columns of a mapping that each cell has for itself while the server is resized."""


class _Note(VolumeStep):
    """Put one side's reservations into its block device mappings."""

    def describe(self) -> str:
        cell = host_of(self.move, self.side).cell.name
        return f"note the reserved attachments of {self.count} in {cell}"

    def inspect(self, cloud: Cloud) -> Finding:
        noted, spare = self.noted(cloud), self.spare(cloud)
        if all(noted.get(volume) in found for volume, found in spare.items()):
            return Finding(Status.DONE)
        return Finding(Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        spare = self.spare(cloud)
        with self.database(cloud).write() as rows:
            for volume in self.move.volumes:
                row = rows.one(MAPPINGS, uuid=volume.mapping, deleted=0)
                if row is None or not spare[volume.id]:
                    raise StepFailed(
                        f"Volume {volume.id} is not reserved for {self.host}.",
                        "Its mapping or its reservation is gone.",
                        "Look at its attachments in Cinder.",
                    )
                if row["attachment_id"] not in spare[volume.id]:
                    named = {"attachment_id": spare[volume.id][0]}
                    rows.change(MAPPINGS, named, **mapping_of(volume, volume.attachment))

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        there, noted = self.attachments(cloud), self.noted(cloud)
        for volume in self.move.volumes:
            now_named = noted.get(volume.id, volume.attachment)
            if now_named == volume.attachment:
                continue
            if volume.attachment in there:
                values = {"attachment_id": volume.attachment}
            elif now_named in there and there[now_named].status == ATTACHED:
                # The old one was released; this one was exported to the same host in its place.
                info = self.fresh(cloud, volume, now_named)
                values = {"connection_info": text_of(self.hypervisor(cloud).connect_volume(info))}
            else:
                continue
            with self.database(cloud).write() as rows:
                rows.change(MAPPINGS, values, **mapping_of(volume, now_named))


class NoteTargetAttachments(_Note):
    """nova at the target knows its own attachments."""

    name = "note-target-attachments"
    side = "target"


class NoteSourceAttachments(_Note):
    """nova at the source knows the reservations that wait for a revert."""

    name = "note-source-attachments"
    side = "source"


class _Store(VolumeStep):
    """Store how the host reaches the volumes: nova's own reboot and detach go by that."""

    def describe(self) -> str:
        cell = host_of(self.move, self.side).cell.name
        return f"store in {cell} how {self.host} reaches {self.count}"

    def inspect(self, cloud: Cloud) -> Finding:
        rows = self.mappings(cloud)
        stored = {
            volume.mapping: rows[volume.mapping]["connection_info"]
            for volume in self.volumes
            if volume.mapping in rows
        }
        done = len(stored) == len(self.volumes) and all(
            _tells(
                parsed(stored[volume.mapping]),
                self.fresh(cloud, volume, rows[volume.mapping]["attachment_id"]),
            )
            for volume in self.volumes
        )
        kept = {
            mapping: [] if text is None else [_harmless(text)] for mapping, text in stored.items()
        }
        return Finding(Status.DONE if done else Status.TODO, saved=kept)

    def execute(self, cloud: Cloud) -> None:
        noted = self.noted(cloud)
        infos = {
            volume: self.fresh(cloud, volume, noted.get(volume.id, "")) for volume in self.volumes
        }
        here = self.hypervisor(cloud)
        texts = {volume: text_of(here.connect_volume(info)) for volume, info in infos.items()}
        with self.database(cloud).write() as rows:
            for volume, text in texts.items():
                named = mapping_of(volume, noted[volume.id])
                rows.change(MAPPINGS, {"connection_info": text}, **named)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        with self.database(cloud).write() as rows:
            for volume in self.volumes:
                row = rows.one(MAPPINGS, uuid=volume.mapping, deleted=0)
                if row is None or volume.mapping not in saved:
                    continue
                old = next(iter(saved[volume.mapping]), None)
                if _harmless(row["connection_info"] or "") != (old or ""):
                    stale = {"connection_info": old}
                    rows.change(MAPPINGS, stale, uuid=volume.mapping, deleted=0)


class StoreSharedConnections(_Store):
    """nova at the target can handle what both hosts may reach at once."""

    name = "store-shared-connections"
    side = "target"
    shared = True


class StoreTargetConnections(_Store):
    """nova at the target can handle the volumes from here on."""

    name = "store-target-connections"
    side = "target"
    shared = False


class StoreSourceConnections(_Store):
    """Fresh ones: what nova itself keeps over a revert may lead to nothing, or to another's."""

    name = "store-source-connections"
    side = "source"


class CarryVolumesHome(VolumeStep):
    """Bring the source's mappings up to date: volumes attached, detached or swapped while resized.

    nova carries home what was attached or detached, and forgets what was swapped.
    """

    name = "carry-volumes-home"
    side = "source"

    def describe(self) -> str:
        return f"bring {self.move.source.cell.name}'s list of volumes up to date"

    def inspect(self, cloud: Cloud) -> Finding:
        home, wanted = self.mappings(cloud), self._wanted(cloud)
        if wanted is not None and home.keys() == wanted.keys():
            current = all(_same(home[mapping], row) for mapping, row in wanted.items())
            if current:
                return Finding(Status.DONE)
        kept = [
            json.dumps({k: v for k, v in row.items() if k != "connection_info"}, default=str)
            for row in home.values()
        ]
        return Finding(Status.TODO, saved={"rows": kept})

    def execute(self, cloud: Cloud) -> None:
        home, wanted = self.mappings(cloud), self._wanted(cloud)
        if wanted is None:
            raise StepFailed(
                "The list of volumes cannot be brought home.",
                "A volume has no reservation for the source.",
                "Look at the volumes' attachments in Cinder.",
            )
        with self.database(cloud).write() as rows:
            for mapping, row in wanted.items():
                if mapping not in home:
                    rows.insert(MAPPINGS, [row])
                elif not _same(home[mapping], row):
                    rows.change(MAPPINGS, row, uuid=mapping, deleted=0)
            for mapping, row in home.items():
                if mapping not in wanted:
                    gone = {"deleted": row["id"], "deleted_at": now()}
                    rows.change(MAPPINGS, gone, uuid=mapping, deleted=0)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        kept = {row["uuid"]: row for row in map(json.loads, saved.get("rows", ()))}
        if "rows" not in saved:
            return
        with self.database(cloud).write() as rows:
            for row in rows.all(MAPPINGS, **volumes_of(self.move.server)):
                if row["uuid"] not in kept:
                    rows.delete(MAPPINGS, id=row["id"])
            for mapping, row in kept.items():
                found = rows.one(MAPPINGS, uuid=mapping)
                if found is not None and not _same(found, row):
                    rows.change(MAPPINGS, row, uuid=mapping)

    def _wanted(self, cloud: Cloud) -> dict[str, Row] | None:
        """The source's mappings as they should be, less what each cell has for itself."""
        there = self.mappings(cloud, "target")
        home, spare = self.mappings(cloud), self.spare(cloud)
        wanted = {}
        for volume in self.move.volumes:
            row = there.get(volume.mapping)
            if row is None or not spare[volume.id]:
                return None
            old = home.get(volume.mapping, {}).get("attachment_id")
            own = old if old in spare[volume.id] else spare[volume.id][0]
            carried = {key: value for key, value in row.items() if key not in CELLS_OWN}
            wanted[volume.mapping] = {**carried, "attachment_id": own}
        return wanted


def _tells(stored: ConnectionInfo, fresh: ConnectionInfo) -> bool:
    """Whether stored information has all that Cinder says; connecting has added to it."""
    old, new = stored.get("data"), fresh.get("data")
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return False
    same = all(stored.get(key) == fresh.get(key) for key in ("driver_volume_type", "serial"))
    return (
        same
        and all(old.get(key) == value for key, value in new.items())
        and bool(stored.get("multiattach")) == bool(fresh.get("multiattach"))
    )


def _harmless(text: str) -> str:
    """Connection information without its secrets; the same text when it has none."""
    info = parsed(text)
    data = info.get("data")
    if not isinstance(data, Mapping):
        return text
    kept = {key: value for key, value in data.items() if not any(part in key for part in SECRETS)}
    return text if kept == data else text_of({**info, "data": kept})


def _same(row: Row, wanted: Mapping[str, object]) -> bool:
    """As the journal has it: times come back as text."""
    return all(_plain(row.get(key)) == _plain(value) for key, value in wanted.items())


def _plain(value: object) -> str | None:
    return None if value is None else str(int(value) if isinstance(value, bool) else value)
