"""Keystone: whose servers they are."""

from __future__ import annotations

from urllib.parse import quote

from cellmove.errors import Refused
from cellmove.services.service import Service


class Projects:
    """The projects of the cloud."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def id_of(self, project: str) -> str:
        """Id of the project of this id, or of this name if only one bears it.

        Raises:
            Refused: there is none or there are several, or we may not look.
            Unreachable: Keystone does not answer.
        """
        answer = self._service.get(f"/projects/{quote(project, safe='')}")
        if answer.ok:
            return str(answer.body["project"]["id"])
        named = self._service.get("/projects", name=project).body["projects"]
        if len(named) == 1:
            return str(named[0]["id"])
        ids = ", ".join(each["id"] for each in named)
        raise Refused(
            f"No single project is called {project!r}.",
            f"{len(named)} domains have one: {ids}." if named else "Keystone knows none.",
            "See `openstack project list`, and give its id.",
        )
