"""nova's API, for what nova does better itself: a resize within a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellmove.errors import Refused, StepFailed
from cellmove.services.service import Answer, Service

MICROVERSION = "2.56"
"""Since Queens: a cold migration may name its host."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A server as nova's API shows it to an administrator."""

    status: str
    """`ACTIVE`, `RESIZE`, `VERIFY_RESIZE`..."""
    task_state: str
    """Empty: nova does nothing with it."""
    host: str
    fault: str
    """Its newest; empty without one."""


class Nova:
    """nova's API over HTTP; the service must be pinned to `MICROVERSION`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def resize(self, server: str, flavor: str) -> None:
        """Begin a resize to the flavor of this id; where to, nova's scheduler decides.

        nova has marked the server by when this returns: api/openstack/compute/servers.py:_resize.

        Raises:
            Refused: nova does not do it; nothing was begun.
            Unknown: no answer came.
        """
        self._act(server, {"resize": {"flavorRef": flavor}})

    def migrate(self, server: str, host: str) -> None:
        """Begin a cold migration to this host: api/openstack/compute/migrate_server.py.

        Raises:
            Refused: nova does not do it; nothing was begun.
            Unknown: no answer came.
        """
        self._act(server, {"migrate": {"host": host}})

    def show(self, server: str) -> Shown:
        """The server now.

        Raises:
            StepFailed: nova does not show it.
        """
        answer = self._service.get(f"/servers/{server}")
        if not answer.ok:
            raise StepFailed(
                f"nova does not show server {server}.",
                f"It answered {answer.message}.",
                "See `openstack server show`.",
            )
        return _shown(answer)

    def _act(self, server: str, body: Mapping[str, Any]) -> None:
        answer = self._service.send("POST", f"/servers/{server}/action", body)
        if not answer.ok:
            raise Refused(
                f"nova does not {next(iter(body))} the server.",
                f"It answered {answer.message}.",
                "Nothing was begun.",
            )


def _shown(answer: Answer) -> Shown:
    found = answer.body["server"]
    fault = found.get("fault") or {}
    return Shown(
        status=str(found["status"]),
        task_state=str(found.get("OS-EXT-STS:task_state") or ""),
        host=str(found.get("OS-EXT-SRV-ATTR:host") or ""),
        fault=str(fault.get("message") or ""),
    )
