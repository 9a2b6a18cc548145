"""Neutron: where the server's ports are bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cellmove.errors import StepFailed
from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of, other

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Binding, Port

UNUSABLE = ("unbound", "binding_failed")
"""`vif_type` of a binding that no layer-2 agent can wire."""

PROFILE_KEYS_KEPT = ("trusted", "tag")
"""What the user put into a binding profile; the rest belongs to the host it was bound on."""


class BindPorts(Step):
    """Bind each port at the target too, inactive: what cannot be bound is found before the stop."""

    name = "bind-ports"

    def describe(self) -> str:
        count = len(self.move.ports)
        return f"bind {count} port{'s'[: count != 1]} at {self.move.target.name}, inactive"

    def inspect(self, cloud: Cloud) -> Finding:
        target = self.move.target.name
        bound = {
            port.id: binding
            for port in self.move.ports
            if (binding := _binding(cloud, port.id, target)) is not None
        }
        if len(bound) == len(self.move.ports):
            return Finding(Status.DONE)
        return Finding(Status.TODO, saved={"bound": sorted(bound)})

    def execute(self, cloud: Cloud) -> None:
        for port in self.move.ports:
            made = _bind(cloud, port, self.move.target.name)
            if made.vif_type in UNUSABLE:
                raise StepFailed(
                    f"Port {port.id} cannot be bound at {self.move.target.name}.",
                    f"Neutron gives its binding the vif_type {made.vif_type}.",
                    "Is the layer-2 agent of that host alive, and does it serve the network?",
                )

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        for port in reversed(self.move.ports):
            if port.id not in saved.get("bound", ()):
                cloud.network.unbind(port.id, self.move.target.name)


class _ActivateBindings(Step):
    """Make one side's bindings the active ones."""

    side: ClassVar[Side]

    def describe(self) -> str:
        count = len(self.move.ports)
        host = host_of(self.move, self.side).name
        return f"activate the binding{'s'[: count != 1]} at {host}"

    def inspect(self, cloud: Cloud) -> Finding:
        host = host_of(self.move, self.side).name
        if all(_is_active(cloud, port.id, host) for port in self.move.ports):
            return Finding(Status.DONE)
        bindings = {port.id: _binding(cloud, port.id, host) for port in self.move.ports}
        usable = [port for port, b in bindings.items() if b and b.vif_type not in UNUSABLE]
        return Finding(Status.TODO, saved={"usable": usable})

    def execute(self, cloud: Cloud) -> None:
        for port in self.move.ports:
            _activate(cloud, port.id, host_of(self.move, self.side).name)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = host_of(self.move, self.side).name
        for port in self.move.ports:
            _activate(cloud, port.id, host_of(self.move, other(self.side)).name)
            if port.id in saved.get("usable", ()):
                _renew(cloud, port, here)


class ActivateTargetBindings(_ActivateBindings):
    """Send the ports' traffic to the target."""

    name = "activate-target-bindings"
    side = "target"


class ActivateSourceBindings(_ActivateBindings):
    """Send the ports' traffic back to the source."""

    name = "activate-source-bindings"
    side = "source"


class _DeleteBindings(Step):
    """Delete one side's inactive bindings."""

    side: ClassVar[Side]
    reversible = False

    def describe(self) -> str:
        return f"delete the bindings at {host_of(self.move, self.side).name}"

    def inspect(self, cloud: Cloud) -> Finding:
        host = host_of(self.move, self.side).name
        left = [port for port in self.move.ports if _binding(cloud, port.id, host) is not None]
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        for port in self.move.ports:
            cloud.network.unbind(port.id, host_of(self.move, self.side).name)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        raise AssertionError("never undone")


class DeleteSourceBindings(_DeleteBindings):
    """The ports will not come back to the source."""

    name = "delete-source-bindings"
    side = "source"


class DeleteTargetBindings(_DeleteBindings):
    """The ports have gone home from the target."""

    name = "delete-target-bindings"
    side = "target"


def _binding(cloud: Cloud, port: str, host: str) -> Binding | None:
    return next((b for b in cloud.network.bindings(port) if b.host == host), None)


def _is_active(cloud: Cloud, port: str, host: str) -> bool:
    found = _binding(cloud, port, host)
    return found is not None and found.active and found.vif_type not in UNUSABLE


def _activate(cloud: Cloud, port: str, host: str) -> None:
    if _is_active(cloud, port, host) or _binding(cloud, port, host) is None:
        return  # done, or the port is gone or was never bound there: nothing to send
    cloud.network.activate(port, host)
    if not _is_active(cloud, port, host):
        # A binding that was active before comes back `unbound` (Neutron 21).
        cloud.network.rebind(port, host)
    if not _is_active(cloud, port, host):
        raise StepFailed(
            f"Port {port} is not bound at {host}.",
            "Neutron activated the binding but shows it as unbound.",
            f"Look at the port's bindings and the layer-2 agent of {host}.",
        )


def _bind(cloud: Cloud, port: Port, host: str) -> Binding:
    profile = {k: v for k, v in port.profile.items() if k in PROFILE_KEYS_KEPT}
    return cloud.network.bind(port.id, host, port.vnic_type, profile)


def _renew(cloud: Cloud, port: Port, host: str) -> None:
    """Make an inactive binding anew that Neutron left `unbound` when it stopped being active.

    One that is not there was deleted by an earlier try of ours.
    """
    bindings = {binding.host: binding for binding in cloud.network.bindings(port.id)}
    found = bindings.get(host)
    if not bindings or (found and (found.active or found.vif_type not in UNUSABLE)):
        return  # the port is gone, or all is well
    cloud.network.unbind(port.id, host)
    _bind(cloud, port, host)
