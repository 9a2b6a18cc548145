"""Open vSwitch on both hypervisors: the guests' ports, as nova's os-vif keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of

if TYPE_CHECKING:
    from cellmove.cloud import Cloud, Hypervisor


class _WiringStep(Step):
    """Plug or unplug all ports of the guest on one side."""

    side: ClassVar[Side]
    plugs: ClassVar[bool]

    def describe(self) -> str:
        verb = "plug" if self.plugs else "unplug"
        count = len(self.move.ports)
        host = host_of(self.move, self.side).name
        return f"{verb} {count} port{'s'[: count != 1]} on {host}'s bridge"

    def inspect(self, cloud: Cloud) -> Finding:
        here = self._hypervisor(cloud)
        plugged = [port.id for port in self.move.ports if here.plugged(port)]
        wanted = [port.id for port in self.move.ports] if self.plugs else []
        if plugged == wanted:
            return Finding(Status.DONE)
        return Finding(Status.TODO, saved={"plugged": plugged})

    def execute(self, cloud: Cloud) -> None:
        self._set(cloud, {port.id for port in self.move.ports} if self.plugs else set())

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        self._set(cloud, set(saved.get("plugged", ())))

    def _set(self, cloud: Cloud, wanted: set[str]) -> None:
        here = self._hypervisor(cloud)
        for port in self.move.ports:
            if port.id in wanted:
                here.plug(self.move.server, port)
            else:
                here.unplug(port)

    def _hypervisor(self, cloud: Cloud) -> Hypervisor:
        return cloud.hosts.reach(host_of(self.move, self.side).name)


class UnplugSourcePorts(_WiringStep):
    """Take the stopped guest's ports off the source's bridge."""

    name = "unplug-source-ports"
    side = "source"
    plugs = False


class PlugTargetPorts(_WiringStep):
    """Put the guest's ports onto the target's bridge."""

    name = "plug-target-ports"
    side = "target"
    plugs = True


class UnplugTargetPorts(_WiringStep):
    """Take the resized guest's ports off the target's bridge."""

    name = "unplug-target-ports"
    side = "target"
    plugs = False


class PlugSourcePorts(_WiringStep):
    """Put the guest's ports back onto the source's bridge."""

    name = "plug-source-ports"
    side = "source"
    plugs = True
