"""What a UEFI guest's firmware keeps: boot entries and keys, in a file named after the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellmove.errors import StepFailed
from cellmove.hosts.xml import in_file_name
from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Move


class _FirmwareStep(Step):
    """A step on the file of a guest that has one."""

    @classmethod
    def applies(cls, move: Move) -> bool:
        return bool(move.nvram)


class CopyFirmware(_FirmwareStep):
    """Copy the variables of the stopped guest's firmware under the guest's name at the target."""

    name = "copy-firmware"

    def describe(self) -> str:
        return f"copy the firmware's variables (UEFI) to {self.move.target.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        path = self._path_there(cloud)
        if not path:
            return Finding(Status.TODO)
        wanted = cloud.hosts.reach(self.move.source.name).nvram(self.move.nvram)
        found = cloud.hosts.reach(self.move.target.name).nvram(path)
        return Finding(Status.DONE if found == wanted else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        path = self._path_there(cloud)
        if not path:
            raise StepFailed("The firmware's variables have no name.", "No guest is at the target.")
        source, target = (cloud.hosts.reach(host_of(self.move, s).name) for s in _SIDES)
        wanted = source.nvram(self.move.nvram)
        if wanted is None:  # libvirt makes them from its template, as it would at the source.
            target.remove_nvram(path)
            return
        target.write_nvram(path, wanted)
        if target.nvram(path) != wanted:
            raise StepFailed(
                f"The firmware's variables on {self.move.target.name} are not those copied.",
                "They differ from the source's right after the copy.",
                "See whether something writes to that file, then try again.",
            )

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        path = self._path_there(cloud)
        if path:
            _remove(cloud, self, "target", path)

    def _path_there(self, cloud: Cloud) -> str:
        return path_at_target(cloud, self)


class RemoveSourceFirmware(_FirmwareStep):
    """Delete the variables of the old guest's firmware: the target has them."""

    name = "remove-source-firmware"
    reversible = False

    def describe(self) -> str:
        return f"delete the old firmware variables (UEFI) on {self.move.source.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        left = cloud.hosts.reach(self.move.source.name).nvram(self.move.nvram)
        return Finding(Status.DONE if left is None else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        _remove(cloud, self, "source", self.move.nvram)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


class RemoveTargetFirmware(_FirmwareStep):
    """Delete the variables of the resized guest's firmware; the old guest has its own."""

    name = "remove-target-firmware"
    reversible = False

    def describe(self) -> str:
        return f"delete the resized guest's firmware variables (UEFI) on {self.move.target.name}"

    def inspect(self, cloud: Cloud) -> Finding:
        path = path_at_target(cloud, self)
        if not path:
            return Finding(Status.DONE)
        left = cloud.hosts.reach(self.move.target.name).nvram(path)
        return Finding(Status.DONE if left is None else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        path = path_at_target(cloud, self)
        if path:
            _remove(cloud, self, "target", path)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


_SIDES: tuple[Side, Side] = ("source", "target")


def path_at_target(cloud: Cloud, step: Step) -> str:
    """The file's path there: named after the guest, and so after its row; empty without a row."""
    move = step.move
    with cloud.target(move).read() as rows:
        # One that its owner has deleted meanwhile still tells the name.
        row = rows.one("instances", uuid=move.server)
    if row is None:
        return ""
    return in_file_name(move.nvram, move.source_domain, move.domain_template % row["id"])


def _remove(cloud: Cloud, step: Step, side: Side, path: str) -> None:
    here = cloud.hosts.reach(host_of(step.move, side).name)
    found = here.domain(step.move.server)
    if found is not None and found.state != "off":
        raise StepFailed(
            f"The firmware's variables on {here.name} are not deleted.",
            f"The guest there is {found.state}.",
            "See which of the two guests is the server's before stopping one.",
        )
    here.remove_nvram(path)
