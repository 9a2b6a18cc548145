"""What is known of a host that might take a server, and what the server wants of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cellmove.model import Cell, Flavor, Host


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A host aggregate that has the host."""

    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hypervisor as the databases know it."""

    host: Host
    unfit: str = ""
    """Why its nova-compute takes nothing now; empty when it does."""
    aggregates: tuple[Aggregate, ...] = ()
    supports: tuple[tuple[str, str, str], ...] = ()
    """Architecture, hypervisor and machine mode of each kind of guest it runs."""
    capabilities: Mapping[str, object] = field(default_factory=dict)
    """Columns and stats that a flavor's `capabilities:` ask for."""
    free_ram_mb: int = 0
    """May be negative."""
    free_vcpus: float = 0.0
    """Allocation ratio applied."""
    free_disk_mb: int = 0
    isolated: bool = False
    """Whether it is for isolated images only."""

    def metadata(self, key: str) -> Iterator[str]:
        """Every value that an aggregate of this host has for a key."""
        for aggregate in self.aggregates:
            if key in aggregate.metadata:
                yield aggregate.metadata[key]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a server wants of its next host."""

    flavor: Flavor
    source: Host
    project_id: str
    zone: str | None = None
    """The zone its owner asked for when it was made; None: any."""
    image: Mapping[str, str] = field(default_factory=dict)
    """The image's properties: `hw_architecture`, `img_hv_type`..."""
    isolated: bool = False
    """Whether its image is for isolated hosts only."""
    group_policy: str = ""
    group_limit: int = 1
    """How many members of an anti-affine group one host may have."""
    group_hosts: Mapping[str, int] = field(default_factory=dict)
    """Host -> how many other members of the server's group are on it, over all cells."""
    roomy: frozenset[str] = frozenset()
    """Providers that Placement has room on, with the traits that are asked for."""
    cells: tuple[Cell, ...] | None = None
    """The cells to look at; None: any, and the server's own is preferred."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """What each weigher counts, and what is isolated; nova 26: conf/scheduler.py.

    An aggregate's metadata of a multiplier's name overrides it for its hosts.
    """

    ram_weight_multiplier: float = 1.0
    cpu_weight_multiplier: float = 1.0
    disk_weight_multiplier: float = 1.0
    soft_affinity_weight_multiplier: float = 1.0
    soft_anti_affinity_weight_multiplier: float = 1.0
    cross_cell_move_weight_multiplier: float = 1_000_000.0
    """Positive: rather within the server's own cell; negative: rather out of it."""
    isolated_hosts: tuple[str, ...] = ()
    """Names; they take isolated images only."""
    isolated_images: tuple[str, ...] = ()
    """Ids; they run on isolated hosts only."""
