"""The HTTP neighbours: do they know us, and do they offer what a move needs."""

from __future__ import annotations

from collections.abc import Iterator

from cellmove.check.findings import Finding, fail, ok, warn
from cellmove.config import NotificationsConfig
from cellmove.errors import CellmoveError
from cellmove.intake.refusals import EXTENSION
from cellmove.notices.sender import Bus
from cellmove.policy import CROSS_CELL, Policy
from cellmove.services.cinder import MICROVERSION as ATTACHMENTS
from cellmove.services.cinder import Cinder
from cellmove.services.neutron import Neutron
from cellmove.services.placement import MICROVERSION
from cellmove.services.service import Service
from cellmove.services.session import Identity


def identity(who: Identity) -> Iterator[Finding]:
    """Signed in, as somebody who may."""
    seen = f"user {who.user_id}, project {who.project_id}, roles {', '.join(sorted(who.roles))}"
    if "admin" in who.roles:
        yield ok("Keystone", seen)
    else:
        do = "Sign in as an administrator, unless your policies allow these roles."
        yield warn("Keystone", f"{seen}; admin is not among them", do)


def network(service: Service) -> Iterator[Finding]:
    """A port must be able to have a second, inactive binding."""
    if Neutron(service).has_extension(EXTENSION):
        yield ok("Neutron", f"extension {EXTENSION}")
    else:
        do = "Enable it: the ML2 plugin has it since Rocky."
        yield fail("Neutron", f"There is no extension {EXTENSION}.", do)


def placement(service: Service) -> Iterator[Finding]:
    """Consumers must bear generations; `service` is not pinned to a microversion."""
    answer = service.get("/")
    versions = [str(each.get("max_version", "")) for each in answer.body.get("versions", ())]
    newest = versions[0] if versions else ""
    if _numbers(newest) >= _numbers(MICROVERSION):
        yield ok("Placement", f"up to microversion {newest}")
    else:
        seen = f"It offers {newest or 'no microversion'}; {MICROVERSION} is needed."
        yield fail("Placement", seen, "Upgrade Placement to Rocky or later.")


def volumes(service: Service) -> Iterator[Finding]:
    """Cinder must know attachments; a cloud without it has no servers with volumes."""
    do = "Servers with volumes are refused until that is mended; others do not need it."
    try:
        known = Cinder(service).has_attachments()
    except CellmoveError as error:
        yield warn("Cinder", f"{error.what} {error.seen}".strip(), do)
        return
    if known:
        yield ok("Cinder", f"attachments of microversion {ATTACHMENTS}")
    else:
        yield warn("Cinder", f"It does not offer microversion {ATTACHMENTS}.", do)


def permission(who: Identity, policy: Policy) -> Iterator[Finding]:
    """Whether the policy lets us move servers, here those of our own project."""
    refused = list(policy.refusals(CROSS_CELL, who.project_id, who.user_id))
    yield from (warn("policy", each.seen, each.do) for each in refused)
    if not refused:
        yield ok("policy", f"{CROSS_CELL} allows us to")


def bus(notifications: NotificationsConfig) -> Iterator[Finding]:
    """Whether notifications can be sent, when there is somebody to send them to."""
    if url := notifications.url():
        Bus(url, notifications.settings_file)
        yield ok("notifications", "oslo.messaging takes the URL; the bus is not asked")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(p.isdecimal() for p in parts) else ()
