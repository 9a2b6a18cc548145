"""How a server's host was chosen: every host with its weights, or with what it was dropped for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cellmove.choosing import Dropped, Ranking, Weighed
from cellmove.cloud import Cloud
from cellmove.errors import Refused, StepFailed
from cellmove.intake.found import Placed
from cellmove.model import Flavor, Host

MOST_ASKED = 20
"""Of how many hosts without room Placement is asked what is short there: one by one."""

Reasons: TypeAlias = "tuple[Refused, ...]"


@dataclass(slots=True)
class Explained:
    """A choice, told while it is made: intake fills it in."""

    server: str = ""
    name: str = ""
    source: Host | None = None
    flavor: str = ""
    """The one that room is looked for."""
    fit: Sequence[Weighed] = ()
    """Best first."""
    dropped: Sequence[Dropped] = ()
    looked_at: dict[str, Reasons] = field(default_factory=dict)
    """Host -> what was found against it by looking at the host itself, best first."""

    @property
    def told(self) -> bool:
        """Whether it came to a choice at all."""
        return self.source is not None

    @property
    def chosen(self) -> str | None:
        """The host that nothing speaks against."""
        return next((host for host, reasons in self.looked_at.items() if not reasons), None)

    def judged(
        self, cloud: Cloud, here: Placed, new: Flavor, needs: Mapping[str, int], ranking: Ranking
    ) -> None:
        """Every host was filtered and weighed; what is short on a host is asked for here."""
        self.server = here.row["uuid"]
        self.name = here.row["display_name"] or self.server
        self.source, self.flavor = here.host, new.name
        self.fit = ranking.fit
        full = [each.host for each in ranking.dropped if each.filter == "room"][:MOST_ASKED]
        short = {host.name: _short(cloud, host, needs) for host in full}
        self.dropped = [
            Dropped(each.host, each.filter, short.get(each.host.name) or each.why)
            for each in ranking.dropped
        ]

    def tried(self, target: Host, reasons: Sequence[Refused]) -> None:
        """A host was looked at closely."""
        self.looked_at[target.name] = tuple(reasons)


def _short(cloud: Cloud, host: Host, needs: Mapping[str, int]) -> str:
    """What is not enough there, and how much there is; empty: it is a trait, or a guarantee."""
    try:
        free = cloud.placement.free(host.provider)
    except StepFailed:
        return "Placement does not know it"
    return ", ".join(
        f"{name}: {amount} needed, {free.get(name, 0)} free"
        for name, amount in needs.items()
        if free.get(name, 0) < amount
    )
