"""What tests of hypervisors share: a move as far as these are concerned, and looks at guests."""

from __future__ import annotations

from cellmove.cloud import Hypervisor
from cellmove.model import Cell, Flavor, Host, Move, Port, Transfer

SOURCE, TARGET = "cmp1a", "cmp2a"


def move_between(
    server: str, port: Port, flavor: Flavor, source: str = SOURCE, target: str = TARGET
) -> Move:
    """A move of which hypervisors see all: server, port, flavor and the two of them."""
    one, other = (Host(name, name, 0, "", "", "nova", Cell(0, "", "")) for name in (source, target))
    return Move(
        id="",
        request_id="",
        server=server,
        name="",
        project_id="",
        user_id="",
        actor_user_id="",
        actor_project_id="",
        conductor="",
        kind="resize",
        source=one,
        target=other,
        migration="",
        old_flavor=flavor,
        new_flavor=flavor,
        vm_state="stopped",
        power_state=4,
        ports=(port,),
        disks=(),
        source_domain="",
        domain_template="",
        started_at="",
    )


def nobody(_transfer: Transfer) -> None:
    """Somebody who does not watch."""


def guest_state(host: Hypervisor, server: str) -> str:
    """`running`, `paused`, `off`, or `unknown` to the host."""
    domain = host.domain(server)
    return domain.state if domain else "unknown"
