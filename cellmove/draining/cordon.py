"""Keeping new servers off the hypervisors that are emptied: nova's own switch of their services."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from cellmove.errors import StepFailed
from cellmove.services.session import Service

REASON: Final = "cellmove drain"
"""How the reason begins, by which a later run knows what an earlier one has disabled."""
MICROVERSION: Final = "2.53"
"""Since Pike: services are changed by their id (nova 26: api/openstack/compute/services.py)."""


def cordon(compute: Service, hosts: Collection[str], drain: int) -> list[str]:
    """Disable the nova-compute of each of these hosts; returns those that a drain has disabled.

    One that somebody else has disabled keeps their reason.

    Raises:
        StepFailed: nova does not do it.
    """
    services = _services(compute)
    ours = []
    for host in hosts:
        found = services.get(host)
        if found is None:
            continue
        if found["status"] == "disabled":
            ours += [host] if (found.get("disabled_reason") or "").startswith(REASON) else []
            continue
        answer = compute.send(
            "PUT",
            f"/os-services/{found['id']}",
            {"status": "disabled", "disabled_reason": f"{REASON} {drain}"},
        )
        if not answer.ok:
            raise StepFailed(
                f"The nova-compute of {host} could not be disabled.",
                f"nova answered {answer.message}.",
                f"Run `openstack compute service set --disable {host} nova-compute`.",
            )
        ours.append(host)
    return ours


def _services(compute: Service) -> dict[str, dict[str, Any]]:
    answer = compute.get("/os-services", binary="nova-compute")
    if not answer.ok:
        raise StepFailed(
            "nova does not list its services.",
            f"It answered {answer.message}.",
            "Leave --cordon away, and disable them yourself.",
        )
    return {each["host"]: each for each in answer.body["services"]}
