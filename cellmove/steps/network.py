"""Neutron: where the server's ports are bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from cellmove.errors import StepFailed
from cellmove.services.neutron import by_hand
from cellmove.steps.base import Finding, Saved, Side, Status, Step, host_of, other

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.model import Binding, Port

UNUSABLE = ("unbound", "binding_failed")
"""`vif_type` of a binding that no layer-2 agent can wire."""

PROFILE_KEYS_KEPT = ("trusted", "tag")
"""What the user put into a binding profile; the rest belongs to the host it was bound on."""

PROVIDERS = "allocation"
"""Key of a binding profile: which provider in Placement serves which group of the port's request
(Neutron's extension `port-resource-request-groups`)."""


def profile_there(
    profile: Mapping[str, object], chosen: Mapping[str, str] | None = None
) -> dict[str, object]:
    """A binding's profile for another host: what the user set, and the providers chosen there."""
    kept = {key: value for key, value in profile.items() if key in PROFILE_KEYS_KEPT}
    return kept | ({PROVIDERS: dict(chosen)} if chosen else {})


def why_not_plugged(found: Port | Binding) -> str:
    """Why a port bound like this is not one that we can plug; empty when it is."""
    if found.vif_type != "ovs":
        return f"vif_type {found.vif_type}"
    return "vif_type ovs with hybrid plug" if found.details.get("ovs_hybrid_plug") else ""


class BindPorts(Step):
    """Bind each port at the target too, inactive: what cannot be bound is found before the stop.

    An inactive binding that is there already was left by an earlier failure, for the server stands
    at the source and nothing else moves it. One like ours is taken as it is and outlives an undo;
    another is replaced by ours, and an undo makes it again.
    """

    name = "bind-ports"

    def describe(self) -> str:
        count = len(self.move.ports)
        return f"bind {count} port{'s'[: count != 1]} at {self.move.target.name}, inactive"

    def inspect(self, cloud: Cloud) -> Finding:
        found = {port.id: self._there(cloud, port) for port in self.move.ports}
        good = [port.id for port in self.move.ports if self._is_good(port, found[port.id])]
        if len(good) == len(self.move.ports):
            return Finding(Status.DONE)
        left = [_kept(port, b) for port, b in found.items() if b and port not in good]
        return Finding(Status.TODO, saved={"bound": good, "left": left})

    def execute(self, cloud: Cloud) -> None:
        target = self.move.target.name
        for port in self.move.ports:
            wanted = _profile(self, port, target)
            made = cloud.network.bind(port.id, target, port.vnic_type, wanted)
            if not self._is_good(port, made):  # what was there already
                cloud.network.unbind(port.id, target)
                made = cloud.network.bind(port.id, target, port.vnic_type, wanted)
            if made.vif_type in UNUSABLE:
                raise StepFailed(
                    f"Port {port.id} cannot be bound at {target}.",
                    f"Neutron gives its binding the vif_type {made.vif_type}.",
                    "Is the layer-2 agent of that host alive, and does it serve the network?",
                )
            if why := why_not_plugged(made):
                raise StepFailed(
                    f"Port {port.id} cannot be plugged at {target}.",
                    f"Neutron gives its binding {why}.",
                    "Choose a host of the same kind of network, with --to-host.",
                )

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        target = self.move.target.name
        left = {each["port"]: each for each in map(json.loads, saved.get("left", ()))}
        for port in reversed(self.move.ports):
            if port.id in saved.get("bound", ()):
                continue
            before, found = left.get(port.id), self._there(cloud, port)
            if found is not None and before is not None and _kept(port.id, found) == _text(before):
                continue
            if found is not None:
                _require_active(cloud, port.id, self.move.source.name)
                cloud.network.unbind(port.id, target)
            if before is not None and cloud.network.bindings(port.id):
                cloud.network.bind(port.id, target, before["vnic_type"], before["profile"])

    def _there(self, cloud: Cloud, port: Port) -> Binding | None:
        return _binding(cloud, port.id, self.move.target.name)

    def _is_good(self, port: Port, found: Binding | None) -> bool:
        """Whether it is as we make them; the active one is never replaced."""
        if found is None or found.active:
            return found is not None
        wanted = (port.vnic_type, _profile(self, port, self.move.target.name))
        return not why_not_plugged(found) and (found.vnic_type, dict(found.profile)) == wanted


class _ActivateBindings(Step):
    """Make one side's bindings the active ones."""

    side: ClassVar[Side]

    def describe(self) -> str:
        count = len(self.move.ports)
        host = host_of(self.move, self.side).name
        return f"activate the binding{'s'[: count != 1]} at {host}"

    def inspect(self, cloud: Cloud) -> Finding:
        host = host_of(self.move, self.side).name
        found = {port.id: cloud.network.bindings(port.id) for port in self.move.ports}
        if all(_settled(bindings, host) for bindings in found.values()):
            return Finding(Status.DONE)
        usable = [
            port
            for port, bindings in found.items()
            if any(b.host == host and b.vif_type not in UNUSABLE for b in bindings)
        ]
        return Finding(Status.TODO, saved={"usable": usable})

    def execute(self, cloud: Cloud) -> None:
        for port in self.move.ports:
            _activate(cloud, port.id, host_of(self.move, self.side).name)

    def undo(self, cloud: Cloud, saved: Saved) -> None:
        here = host_of(self.move, self.side).name
        for port in self.move.ports:
            _activate(cloud, port.id, host_of(self.move, other(self.side)).name)
            if port.id in saved.get("usable", ()):
                _renew(cloud, port, here, _profile(self, port, here))


class ActivateTargetBindings(_ActivateBindings):
    """Send the ports' traffic to the target."""

    name = "activate-target-bindings"
    side = "target"


class ActivateSourceBindings(_ActivateBindings):
    """Send the ports' traffic back to the source."""

    name = "activate-source-bindings"
    side = "source"


class _DeleteBindings(Step):
    """Delete one side's inactive bindings, once the other side's are seen to be active.

    Neutron does not activate the one that is left: the port would be without any.
    """

    side: ClassVar[Side]
    reversible = False

    def describe(self) -> str:
        return f"delete the bindings at {host_of(self.move, self.side).name}"

    def inspect(self, cloud: Cloud) -> Finding:
        host = host_of(self.move, self.side).name
        left = [port for port in self.move.ports if _binding(cloud, port.id, host) is not None]
        return Finding(Status.TODO if left else Status.DONE)

    def execute(self, cloud: Cloud) -> None:
        host = host_of(self.move, self.side).name
        for port in self.move.ports:
            if _binding(cloud, port.id, host) is not None:
                _require_active(cloud, port.id, host_of(self.move, other(self.side)).name)
                cloud.network.unbind(port.id, host)

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


def _settled(bindings: tuple[Binding, ...], host: str) -> bool:
    """Whether the port is bound there and works; one that was deleted meanwhile needs nothing."""
    return not bindings or any(
        b.host == host and b.active and b.vif_type not in UNUSABLE for b in bindings
    )


def _require_active(cloud: Cloud, port: str, host: str) -> None:
    bindings = cloud.network.bindings(port)
    if not _settled(bindings, host):
        seen = ", ".join(f"{b.host}: {b.vif_type}{', active' * b.active}" for b in bindings)
        raise StepFailed(
            f"A binding of port {port} is not deleted: it would be left without any.",
            f"It should be active at {host}; its bindings are {seen}.",
            f"Activate it: `{by_hand('PUT', port, host, activate=True)}`.",
        )


def _activate(cloud: Cloud, port: str, host: str) -> None:
    bindings = cloud.network.bindings(port)
    if _settled(bindings, host) or all(b.host != host for b in bindings):
        return  # done, or the port is gone or was never bound there: nothing to send
    cloud.network.activate(port, host)
    if _settled(cloud.network.bindings(port), host):
        return
    # A binding that was active before comes back `unbound` (Neutron 21).
    cloud.network.rebind(port, host)
    if not _settled(cloud.network.bindings(port), host):
        raise StepFailed(
            f"Port {port} is not bound at {host}.",
            "Neutron activated the binding but shows it as unbound.",
            f"Look at the port's bindings and the layer-2 agent of {host}.",
        )


def _profile(step: Step, port: Port, host: str) -> dict[str, object]:
    """What the port's binding at this host says or shall say; see `Move.profiles`."""
    if port.host == host:
        return dict(port.profile)
    return dict(step.move.profiles.get(port.id, profile_there(port.profile)))


def _renew(cloud: Cloud, port: Port, host: str, profile: Mapping[str, object]) -> None:
    """Make an inactive binding anew that Neutron left `unbound` when it stopped being active.

    One that is not there was deleted by an earlier try of ours.
    """
    bindings = {binding.host: binding for binding in cloud.network.bindings(port.id)}
    found = bindings.get(host)
    if not bindings or (found and (found.active or found.vif_type not in UNUSABLE)):
        return  # the port is gone, or all is well
    cloud.network.unbind(port.id, host)
    cloud.network.bind(port.id, host, port.vnic_type, profile)


def _kept(port: str, found: Binding) -> str:
    return _text({"port": port, "vnic_type": found.vnic_type, "profile": dict(found.profile)})


def _text(kept: Mapping[str, object]) -> str:
    return json.dumps(kept, sort_keys=True)
