"""Cinder: which side may reach the volumes, from the reservation to the last delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.steps.base import Finding, Saved, Status, other
from cellmove.steps.volumes import (
    ATTACHED,
    MAPPINGS,
    RESERVED,
    VolumeStep,
    mapping_of,
    require_off,
)

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Volume


class _Reserve(VolumeStep):
    """Reserve each volume for one side, while the other still has it."""

    def describe(self) -> str:
        return f"reserve {self.count} for {self.host} in Cinder"

    def inspect(self, cloud: Cloud) -> Finding:
        spare = self.spare(cloud)
        status = Status.DONE if all(spare.values()) else Status.TODO
        before = sorted(each for found in spare.values() for each in found)
        return Finding(status, saved={"before": before})

    def execute(self, cloud: Cloud) -> None:
        for volume, spare in self.spare(cloud).items():
            if not spare:
                cloud.volumes.reserve(volume, self.move.server)
        here = self.hypervisor(cloud)
        found = here.domain(self.move.server)
        if found is None or found.state == "off":
            # It is asked and kept: while this host waits for the guest, the server is down.
            here.connector()

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        if "before" not in saved:
            return
        for spare in self.spare(cloud).values():
            for each in sorted(set(spare) - set(saved["before"])):
                cloud.volumes.delete(each)


class ReserveTargetAttachments(_Reserve):
    """Nobody else can take the volumes on their way."""

    name = "reserve-target-attachments"
    side = "target"


class ReserveSourceAttachments(_Reserve):
    """The volumes can come home."""

    name = "reserve-source-attachments"
    side = "source"


class _Release(VolumeStep):
    """Delete the attachments through which the guest had its volumes; reservations stay."""

    def describe(self) -> str:
        return f"release {self.count} from {self.host} in Cinder"

    def inspect(self, cloud: Cloud) -> Finding:
        left = {volume.attachment for volume in self.volumes} & set(self.attachments(cloud))
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        require_off(self.hypervisor(cloud), self.move, "released from")
        there = self.attachments(cloud)
        for volume in self.volumes:
            if volume.attachment in there:
                cloud.volumes.delete(volume.attachment)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        there, noted = self.attachments(cloud), self.noted(cloud)
        for volume in self.volumes:
            if volume.attachment in there:
                continue
            # What was reserved takes the place of what is gone, and is replaced itself.
            if noted.get(volume.id) in there or self.unnamed(cloud, volume):
                self.export(cloud, volume)
                self.replace(cloud, volume)


class ReleaseSourceAttachments(_Release):
    """Cinder takes the volumes' exports to the source away, so that the target may have them."""

    name = "release-source-attachments"
    side = "source"
    shared = False


class ReleaseSharedAttachments(_Release):
    """The same for what the target may reach already: its guest is launched meanwhile."""

    name = "release-shared-attachments"
    side = "source"
    shared = True


class ReleaseTargetAttachments(_Release):
    """Cinder takes the volumes' exports to the target away."""

    name = "release-target-attachments"
    side = "target"


class _Export(VolumeStep):
    """Tell Cinder which host takes the volumes: it makes the exports and how to reach them."""

    def describe(self) -> str:
        return f"export {self.count} to {self.host}"

    def inspect(self, cloud: Cloud) -> Finding:
        there, noted = self.attachments(cloud), self.noted(cloud)
        attached = {each for each, found in there.items() if found.status == ATTACHED}
        if all(noted.get(volume.id) in attached for volume in self.volumes):
            return Finding(Status.DONE)
        waiting = [volume.id for volume in self.volumes for _ in self._waiting(cloud, volume)]
        return Finding(Status.TODO, saved={"waiting": waiting})

    def execute(self, cloud: Cloud) -> None:
        for volume in self.volumes:
            self.export(cloud, volume)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        """A connector cannot be taken back: a new reservation replaces what has one, noted too."""
        others = {row["attachment_id"] for row in self.mappings(cloud, other(self.side)).values()}
        for volume in self.volumes:
            there, noted = self.attachments(cloud), self.noted(cloud).get(volume.id, "")
            theirs = others | {volume.attachment}
            exported = [
                each
                for each in there.values()
                if each.volume == volume.id and each.id not in theirs and each.status != RESERVED
            ]
            wait = saved.get("waiting", ()).count(volume.id)
            if noted not in there or there[noted] in exported:
                for each in exported:
                    cloud.volumes.complete(each.id)  # Cinder reserves nothing beside half an export
                self._note_another(cloud, volume, noted, wait)
            for each in exported:
                cloud.volumes.delete(each.id)
            for left in self._waiting(cloud, volume)[wait:]:
                cloud.volumes.delete(left)

    def _note_another(self, cloud: Cloud, volume: Volume, noted: str, wait: int) -> None:
        """Reserved before what is exported goes, so that nobody else can take the volume."""
        while len(self._waiting(cloud, volume)) <= wait:
            cloud.volumes.reserve(volume.id, self.move.server)
        reserved = {"attachment_id": self._waiting(cloud, volume)[-1]}
        with self.database(cloud).write() as rows:
            rows.change(MAPPINGS, reserved, **mapping_of(volume, noted))

    def _waiting(self, cloud: Cloud, volume: Volume) -> list[str]:
        """Reservations that no mapping names: the other side's, as long as it does not note it."""
        named = set(self.noted(cloud).values())
        return [each for each in self.spare(cloud)[volume.id] if each not in named]


class ExportSharedToTarget(_Export):
    """The target may reach what both may reach at once, while the guest at the source stops."""

    name = "export-shared-to-target"
    side = "target"
    shared = True


class ExportToTarget(_Export):
    """The target may reach the volumes."""

    name = "export-to-target"
    side = "target"
    shared = False


class ExportToSource(_Export):
    """The source may reach the volumes again."""

    name = "export-to-source"
    side = "source"


class _DeleteReservations(VolumeStep):
    """Delete the attachments of the side that the server does not come back to."""

    reversible = False

    def describe(self) -> str:
        return f"delete the attachments for {self.host} in Cinder"

    def inspect(self, cloud: Cloud) -> Finding:
        return Finding(Status.TODO if self._left(cloud) else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        for each in self._left(cloud):
            cloud.volumes.delete(each)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")

    def _left(self, cloud: Cloud) -> list[str]:
        here = {row["attachment_id"] for row in self.mappings(cloud).values()}
        kept = {row["attachment_id"] for row in self.mappings(cloud, other(self.side)).values()}
        ours = (here | set(self.move.stale_attachments)) - kept
        return sorted(ours & set(self.attachments(cloud)))


class DeleteSourceAttachments(_DeleteReservations):
    """The volumes will not come back to the source."""

    name = "delete-source-attachments"
    side = "source"


class DeleteTargetAttachments(_DeleteReservations):
    """The volumes have gone home."""

    name = "delete-target-attachments"
    side = "target"
