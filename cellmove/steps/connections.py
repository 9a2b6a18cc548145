"""Volumes on both hypervisors: connected, disconnected, and in the definition of the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import ConnectionInfo, volume_disks, with_volumes
from cellmove.model import SHARED_KINDS
from cellmove.steps.base import Finding, Saved, Status
from cellmove.steps.volumes import (
    MAPPINGS,
    VolumeStep,
    parsed,
    require_off,
)

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Volume


class _Disconnect(VolumeStep):
    """Disconnect the volumes from the host where the guest has stopped; mounts stay."""

    shared = False

    def describe(self) -> str:
        return f"disconnect {self.count} from {self.host}"

    def inspect(self, cloud: Cloud) -> Finding:
        here = self.hypervisor(cloud)
        connected = [
            volume for volume, info in self._leaving(cloud).items() if here.volume_connected(info)
        ]
        return Finding(
            Status.TODO if connected else Status.DONE, saved={"connected": sorted(connected)}
        )

    def execute(self, cloud: Cloud) -> None:
        here = self.hypervisor(cloud)
        require_off(here, self.move, "disconnected from")
        for info in self._leaving(cloud).values():
            here.disconnect_volume(info)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        noted, stored = self.noted(cloud), self._leaving(cloud)
        for volume in self.volumes:
            if volume.id in saved.get("connected", ()):
                info = self.fresh(cloud, volume, noted.get(volume.id, "")) or stored[volume.id]
                self.hypervisor(cloud).connect_volume(info)

    def _leaving(self, cloud: Cloud) -> dict[str, ConnectionInfo]:
        """Volume id -> how it is connected; without those that nothing is to be done for."""
        found = self.mappings(cloud)
        infos = {
            volume.id: parsed(found[volume.mapping]["connection_info"])
            for volume in self.volumes
            if volume.mapping in found and not self._is_used(cloud, volume)
        }
        return {
            volume: info
            for volume, info in infos.items()
            # Journals before 1.0 do not say of which kind a volume is.
            if info and info.get("driver_volume_type") not in SHARED_KINDS
        }

    def _is_used(self, cloud: Cloud, volume: Volume) -> bool:
        """Whether another server on this host has the volume too (multiattach)."""
        if not volume.multiattach:
            return False
        with self.database(cloud).read() as rows:
            found = rows.all(MAPPINGS, volume_id=volume.id, deleted=0)
            owners = {row["instance_uuid"] for row in found} - {self.move.server}
            there = rows.all("instances", uuid=sorted(owners), host=self.host, deleted=0)
        return bool(there)


class DisconnectSourceVolumes(_Disconnect):
    """Nothing on the source leads to the volumes any more."""

    name = "disconnect-source-volumes"
    side = "source"


class DisconnectTargetVolumes(_Disconnect):
    """Nothing on the target leads to the volumes any more."""

    name = "disconnect-target-volumes"
    side = "target"


class _Connect(VolumeStep):
    """Connect the volumes on the host, as its own nova-compute would."""

    def describe(self) -> str:
        return f"connect {self.count} on {self.host}"

    def inspect(self, cloud: Cloud) -> Finding:
        here, infos = self.hypervisor(cloud), self._infos(cloud)
        connected = [
            volume for volume, info in infos.items() if info and here.volume_connected(info)
        ]
        status = Status.DONE if len(connected) == len(infos) else Status.TODO
        return Finding(status, saved={"connected": sorted(connected)})

    def execute(self, cloud: Cloud) -> None:
        for info in self._infos(cloud).values():
            self.hypervisor(cloud).connect_volume(info)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = self.hypervisor(cloud)
        require_off(here, self.move, "disconnected from")
        for volume, info in self._infos(cloud).items():
            if info and volume not in saved.get("connected", ()):
                here.disconnect_volume(info)

    def _infos(self, cloud: Cloud) -> dict[str, ConnectionInfo]:
        noted = self.noted(cloud)
        return {
            volume.id: self.fresh(cloud, volume, noted.get(volume.id, ""))
            for volume in self.volumes
        }


class ConnectSharedVolumes(_Connect):
    """What both hosts may reach at once, while the guest at the source stops."""

    name = "connect-shared-volumes"
    side = "target"
    shared = True


class ConnectTargetVolumes(_Connect):
    """The target's guest will find its volumes."""

    name = "connect-target-volumes"
    side = "target"
    shared = False


class ConnectSourceVolumes(_Connect):
    """The old guest will find its volumes."""

    name = "connect-source-volumes"
    side = "source"


class _Place(VolumeStep):
    """Put the way to each volume into the guest's definition; bus and address stay."""

    def describe(self) -> str:
        return f"define the guest on {self.host} with {self.count}"

    def inspect(self, cloud: Cloud) -> Finding:
        found = self.hypervisor(cloud).domain(self.move.server)
        if found is None:
            return Finding(Status.TODO)
        wanted = self._placed(cloud, found.xml)
        if wanted is not None and volume_disks(wanted) == volume_disks(found.xml):
            return Finding(Status.DONE)
        return Finding(Status.TODO, saved={"xml": [found.xml]})

    def execute(self, cloud: Cloud) -> None:
        here = self.hypervisor(cloud)
        found = here.domain(self.move.server)
        wanted = None if found is None else self._placed(cloud, found.xml)
        if wanted is None:
            raise StepFailed(
                f"The guest on {self.host} does not get its volumes.",
                "It is not defined, or its mappings do not say how to reach them.",
                "Look at the server's block device mappings.",
            )
        require_off(here, self.move, "put into the definition on")
        here.define(wanted)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = self.hypervisor(cloud)
        found = here.domain(self.move.server)
        if found is None or not saved.get("xml") or found.xml == saved["xml"][0]:
            return
        require_off(here, self.move, "taken from the definition on")
        here.define(saved["xml"][0])

    def _placed(self, cloud: Cloud, xml: str) -> str | None:
        """The definition with all volumes; None while a mapping does not say how to reach one."""
        rows = self.mappings(cloud)
        infos = {
            volume.id: parsed(rows[volume.mapping]["connection_info"])
            for volume in self.move.volumes
            if volume.mapping in rows
        }
        if len(infos) < len(self.move.volumes) or not all(infos.values()):
            return None
        devices = {volume.id: volume.device for volume in self.move.volumes}
        return with_volumes(xml, infos, devices)


class PlaceTargetVolumes(_Place):
    """The target's guest starts with its volumes."""

    name = "place-target-volumes"
    side = "target"


class PlaceSourceVolumes(_Place):
    """The old guest starts with the volumes that the server has now."""

    name = "place-source-volumes"
    side = "source"
