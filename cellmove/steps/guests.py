"""libvirt on both hypervisors: the guest stops here and starts there, and never runs twice."""

from __future__ import annotations

import json
import posixpath
import time
from typing import TYPE_CHECKING, ClassVar

from cellmove.errors import StepFailed
from cellmove.hosts.blocks import volume_disks, with_volumes
from cellmove.hosts.machine import fitted
from cellmove.hosts.xml import GuestXml, for_target
from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of, other

if TYPE_CHECKING:
    from cellmove.cloud import Cloud, Hypervisor
    from cellmove.hosts.machine import Offer
    from cellmove.model import Flavor, Host

WIRING_TIMEOUT_SECONDS = 300
"""As long as nova waits for its ports (`vif_plugging_timeout`)."""

HOME_TIMEOUT_SECONDS = 15
"""Undo waits no longer: the guest runs already, and its agent may be what is broken."""

WIRING_PAUSE_SECONDS = 0.1
PLUGS_PAUSE_SECONDS = 1.0
"""Between two looks for a port that was unplugged meanwhile: rare, and a command on the host."""


class _GuestStep(Step):
    """A step on the guest of one side."""

    side: ClassVar[Side]

    @property
    def host(self) -> str:
        return host_of(self.move, self.side).name

    def hypervisor(self, cloud: Cloud) -> Hypervisor:
        return cloud.hosts.reach(self.host)

    def wired(self, cloud: Cloud) -> bool:
        """Neutron alone proves little: it calls a port ACTIVE before its tap device is there."""
        here = self.hypervisor(cloud)
        return all(
            port.host == self.host and port.status == "ACTIVE" and here.wired(port)
            for port in cloud.network.ports(self.move.server)
        )

    def await_wired(self, cloud: Cloud, timeout_seconds: float) -> bool:
        """Whether the running guest's ports are wired within this time.

        A port whose binding has gone away and come back may be unplugged as late as now: neutron
        21's agent takes the news of the first only seconds later, and does not look again.
        """
        here = self.hypervisor(cloud)
        looked = time.monotonic()
        deadline = looked + timeout_seconds
        while not self.wired(cloud):
            now = time.monotonic()
            if now > deadline:
                return False
            if now >= looked + PLUGS_PAUSE_SECONDS:
                looked = now
                for port in self.move.ports:
                    if not here.plugged(port):
                        here.plug(self.move.server, port)
            time.sleep(WIRING_PAUSE_SECONDS)
        return True

    def launch(self, cloud: Cloud) -> Hypervisor:
        """Start the guest on this side, paused, unless it is on already."""
        here = self.hypervisor(cloud)
        there = cloud.hosts.reach(host_of(self.move, other(self.side)).name)
        elsewhere = there.domain(self.move.server)
        if elsewhere is not None and elsewhere.state != "off":
            raise StepFailed(
                f"The guest on {self.host} is not started.",
                f"It is {elsewhere.state} on {there.name}: it must never run twice.",
                f"Stop it on {there.name} first.",
            )
        here.start(self.move.server, paused=True)
        return here

    def put_off(self, cloud: Cloud) -> None:
        """Stop the guest on this side at once: nothing of it is used yet."""
        here = self.hypervisor(cloud)
        if here.domain(self.move.server) is not None:
            here.shutdown(self.move.server, 0)


class _DefineGuest(_GuestStep):
    """Define the guest on one side from its definition on the other; it is not started yet."""

    def describe(self) -> str:
        return f"define the guest on {self.host}, not started"

    def inspect(self, cloud: Cloud) -> Finding:
        found = self.hypervisor(cloud).domain(self.move.server)
        return Finding(Status.TODO if found is None else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        here = self.hypervisor(cloud)
        if here.domain(self.move.server) is not None:
            return
        there = cloud.hosts.reach(self._other.name)
        known = there.domain(self.move.server)
        if known is None:
            raise StepFailed(
                f"There is no definition of the guest on {there.name}.",
                f"libvirt of {there.name} does not know {self.move.server}.",
                "Hard-reboot the server with nova so that it is defined again.",
            )
        definition = for_target(
            known.xml,
            domain_name=self._domain_name(cloud),
            flavor=self._flavor,
            old_dir=posixpath.dirname(there.disk_path(self.move.server, "disk")),
            new_dir=posixpath.dirname(here.disk_path(self.move.server, "disk")),
        )
        here.define(self._fitted(definition, here.offer(known.xml)))

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = self.hypervisor(cloud)
        found = here.domain(self.move.server)
        if found is not None and found.state != "off":
            raise StepFailed(
                f"The guest on {self.host} is not undefined.",
                f"It is {found.state}.",
                "See which of the two guests has the server's data before stopping one.",
            )
        here.undefine(self.move.server)

    def _fitted(self, definition: str, offer: Offer) -> str:
        """The definition with what the host decides: machine, CPU, consoles."""
        if offer.problems:
            raise StepFailed(
                f"{self.host} cannot run the guest.",
                f"{'; '.join(offer.problems)}.",
                "Choose another host.",
            )
        mine, its = host_of(self.move, self.side).address, self._other.address
        return fitted(GuestXml(definition), offer, here=its, there=mine).text

    @property
    def _other(self) -> Host:
        return host_of(self.move, other(self.side))

    @property
    def _flavor(self) -> Flavor:
        return self.move.old_flavor if self.side == "source" else self.move.new_flavor

    def _domain_name(self, cloud: Cloud) -> str:
        """A guest is named after its row's id, which differs from cell to cell."""
        database = cloud.cells[host_of(self.move, self.side).cell.uuid]
        with database.read() as rows:
            row = rows.one("instances", uuid=self.move.server, deleted=0)
        if row is None:
            raise StepFailed("The guest cannot be named.", "Its row is not in the cell.")
        return str(self.move.domain_template % row["id"])


class DefineTargetGuest(_DefineGuest):
    """libvirt of the target accepts the guest's definition before the guest is stopped."""

    name = "define-target-guest"
    side = "target"


class DefineSourceGuest(_DefineGuest):
    """The guest has its old definition on the source again."""

    name = "define-source-guest"
    side = "source"


class _StopGuest(_GuestStep):
    """Shut the guest down."""

    def describe(self) -> str:
        if self.move.vm_state == "stopped":
            return f"see that the guest on {self.host} is off"
        return f"shut the guest on {self.host} down, within {self.move.shutdown_timeout_seconds} s"

    def inspect(self, cloud: Cloud) -> Finding:
        found = self.hypervisor(cloud).domain(self.move.server)
        if found is None or found.state == "off":
            return Finding(Status.DONE)
        return Finding(Status.TODO, saved={"state": [found.state]})

    def execute(self, cloud: Cloud) -> None:
        timeout_seconds = self.move.shutdown_timeout_seconds
        self.hypervisor(cloud).shutdown(self.move.server, timeout_seconds)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = self.hypervisor(cloud)
        found = here.domain(self.move.server)
        if not saved.get("state") or found is None:
            return
        if found.state == "off":
            # Its tap devices went with it, and Open vSwitch does not always take up new ones of
            # the same names: the ports are plugged anew, once the new devices are there.
            for port in self.move.ports:
                here.unplug(port)
        here.start(self.move.server)
        for port in self.move.ports:
            here.plug(self.move.server, port)
        self.await_wired(cloud, HOME_TIMEOUT_SECONDS)


class StopSourceGuest(_StopGuest):
    """From here on the server is down."""

    name = "stop-source-guest"
    side = "source"


class StopTargetGuest(_StopGuest):
    """The resized guest stops for the way home."""

    name = "stop-target-guest"
    side = "target"


class _ForgetGuest(_GuestStep):
    """Undefine the guest; disks and NVRAM stay."""

    def describe(self) -> str:
        return f"undefine the guest on {self.host}; its disks are kept"

    def inspect(self, cloud: Cloud) -> Finding:
        found = self.hypervisor(cloud).domain(self.move.server)
        if found is None:
            return Finding(Status.DONE)
        return Finding(Status.TODO, saved={"xml": [found.xml]})

    def execute(self, cloud: Cloud) -> None:
        here = self.hypervisor(cloud)
        found = here.domain(self.move.server)
        if found is not None and found.state != "off":
            raise StepFailed(
                f"The guest on {self.host} was started again.",
                f"It is {found.state}; its disks may differ from the copy.",
                "Find out who started it: cellmove had shut it down.",
            )
        here.undefine(self.move.server)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = self.hypervisor(cloud)
        if saved.get("xml") and here.domain(self.move.server) is None:
            here.define(self._with_volumes(cloud, saved["xml"][0]))

    def _with_volumes(self, cloud: Cloud, xml: str) -> str:
        """The definition as it was, but for volumes that were exported anew meanwhile."""
        infos = {}
        with cloud.cells[host_of(self.move, self.side).cell.uuid].read() as rows:
            for volume in self.move.volumes:
                row = rows.one("block_device_mapping", uuid=volume.mapping, deleted=0)
                if row is not None and row["connection_info"]:
                    infos[volume.id] = json.loads(row["connection_info"])
        if len(infos) < len(self.move.volumes) or not infos:
            return xml
        renewed = with_volumes(xml, infos)
        return xml if volume_disks(renewed) == volume_disks(xml) else renewed


class ForgetSourceGuest(_ForgetGuest):
    """Nothing can start the old guest behind our back."""

    name = "forget-source-guest"
    side = "source"


class ForgetTargetGuest(_ForgetGuest):
    """Nothing can start the resized guest any more."""

    name = "forget-target-guest"
    side = "target"


class LaunchTargetGuest(_GuestStep):
    """QEMU and the guest's tap devices come while the layer-2 agent has yet to look."""

    name = "launch-target-guest"
    side = "target"

    def describe(self) -> str:
        if self.move.vm_state == "stopped":
            return f"leave the guest on {self.host} off, as it was"
        return f"launch the guest on {self.host}, paused"

    def inspect(self, cloud: Cloud) -> Finding:
        if self.move.vm_state == "stopped":
            return Finding(Status.DONE)
        found = self.hypervisor(cloud).domain(self.move.server)
        is_on = found is not None and found.state != "off"
        return Finding(Status.DONE if is_on else Status.TODO)

    def execute(self, cloud: Cloud) -> None:
        if self.move.vm_state != "stopped":
            self.launch(cloud)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        self.put_off(cloud)


class _StartGuest(_GuestStep):
    """Start the guest, paused until its ports are wired; a stopped server stays off."""

    def describe(self) -> str:
        if self.move.vm_state == "stopped":
            return f"leave the guest on {self.host} off, as it was"
        return f"start the guest on {self.host} when its ports are wired"

    def inspect(self, cloud: Cloud) -> Finding:
        if self.move.vm_state == "stopped":
            return Finding(Status.DONE)
        found = self.hypervisor(cloud).domain(self.move.server)
        runs = found is not None and found.state == "running" and self.wired(cloud)
        state = "off" if found is None else found.state
        return Finding(Status.DONE if runs else Status.TODO, saved={"state": [state]})

    def execute(self, cloud: Cloud) -> None:
        if self.move.vm_state == "stopped":
            return
        here = self.launch(cloud)
        # What the next step asks of the networks is asked and kept while the wiring takes its time.
        cloud.network.vifs(self.move.server)
        if not self.await_wired(cloud, WIRING_TIMEOUT_SECONDS):
            raise StepFailed(
                f"The guest's ports on {self.host} are not wired.",
                f"They are not ACTIVE after {WIRING_TIMEOUT_SECONDS} s.",
                f"Look at the layer-2 agent of {self.host}.",
            )
        here.resume(self.move.server)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        if saved.get("state") == ["paused"]:
            self.hypervisor(cloud).pause(self.move.server)
        else:
            self.put_off(cloud)


class StartTargetGuest(_StartGuest):
    """The server is up again, in its new place."""

    name = "start-target-guest"
    side = "target"


class StartSourceGuest(_StartGuest):
    """The server is up again, at home."""

    name = "start-source-guest"
    side = "source"
