"""Cinder: which side may reach the volumes, from the reservation to the last delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.errors import StepFailed
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
        left = {volume.attachment for volume in self.move.volumes} & set(self.attachments(cloud))
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        require_off(self.hypervisor(cloud), self.move, "released from")
        there = self.attachments(cloud)
        for volume in self.move.volumes:
            if volume.attachment in there:
                cloud.volumes.delete(volume.attachment)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        there, noted = self.attachments(cloud), self.noted(cloud)
        for volume in self.move.volumes:
            named = noted.get(volume.id, "")
            if volume.attachment in there or named not in there:
                continue
            # What was reserved takes the place of what is gone, and is replaced itself.
            self.export(cloud, volume, there[named])
            self.replace(cloud, volume, keep=named)


class ReleaseSourceAttachments(_Release):
    """Cinder takes the volumes' exports to the source away."""

    name = "release-source-attachments"
    side = "source"


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
        done = all(noted.get(volume.id) in attached for volume in self.move.volumes)
        return Finding(Status.DONE if done else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        there, noted = self.attachments(cloud), self.noted(cloud)
        for volume in self.move.volumes:
            found = there.get(noted.get(volume.id, ""))
            if found is None:
                raise StepFailed(
                    f"Volume {volume.id} is not reserved for {self.host}.",
                    "Cinder does not know the attachment that its mapping names.",
                    "Look at the volume's attachments in Cinder.",
                )
            self.export(cloud, volume, found)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        """A connector cannot be taken back: a new reservation replaces what has one, noted too."""
        others = {row["attachment_id"] for row in self.mappings(cloud, other(self.side)).values()}
        for volume in self.move.volumes:
            for each in self.attachments(cloud).values():
                foreign = each.volume != volume.id or each.id in others | {volume.attachment}
                if foreign or each.status == RESERVED:
                    continue
                if self.noted(cloud).get(volume.id) == each.id:
                    self._note_another(cloud, volume, each.id)
                cloud.volumes.delete(each.id)

    def _note_another(self, cloud: Cloud, volume: Volume, exported: str) -> None:
        """Reserved before the other one goes, so that nobody else can take the volume."""
        cloud.volumes.complete(exported)  # Cinder reserves nothing of what is half exported
        self.replace(cloud, volume, keep=exported)
        reserved = {"attachment_id": self.spare(cloud)[volume.id][0]}
        with self.database(cloud).write() as rows:
            rows.change(MAPPINGS, reserved, **mapping_of(volume, exported))


class ExportToTarget(_Export):
    """The target may reach the volumes."""

    name = "export-to-target"
    side = "target"


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
