"""What Neutron and Placement have of one server, in the same words as its records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cellmove.services.placement import MICROVERSION
from cellmove.services.session import Session
from tests.lab.oracle.plain import Plain, Words, leaves

OF_THE_MOMENT = {"created_at", "updated_at", "revision_number"}


class Services:
    """The services that know a server besides nova."""

    def __init__(self, session: Session) -> None:
        self._network = session.service("network")
        self._placement = session.service("placement", MICROVERSION)

    def plain(self, server: str, words: Words) -> Plain:
        """Ports and bindings, and who holds what of which host."""
        found: Plain = {}
        for path, value in (*self._ports(server), *self._held(words)):
            found.update(leaves(path, value, words))
        return found

    def _ports(self, server: str) -> Iterator[tuple[str, Any]]:
        for port in self._network.get("/ports", device_id=server).body["ports"]:
            yield "neutron port", {k: v for k, v in port.items() if k not in OF_THE_MOMENT}
            for each in self._network.get(f"/ports/{port['id']}/bindings").body["bindings"]:
                yield f"neutron binding [{each['host']}]", each

    def _held(self, words: Words) -> Iterator[tuple[str, Any]]:
        providers = self._placement.get("/resource_providers").body["resource_providers"]
        names = {each["uuid"]: each["name"] for each in providers}
        for consumer, word in list(words.known.items()):
            if word == "server" or word.startswith("migration "):
                held = self._placement.get(f"/allocations/{consumer}").body
                owner = {key: held.get(key) for key in ("project_id", "user_id")}
                if held["allocations"]:
                    yield f"placement consumer [{word}]", owner
                for provider, part in held["allocations"].items():
                    yield f"placement allocation [{word}] {names[provider]}", part["resources"]
