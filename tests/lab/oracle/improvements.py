"""Where cellmove's records differ from nova's: all of it, on purpose, each with its reason.

docs/improvements.rst tells it to people. A difference that is not here fails the test of the
oracle, and so does one that is here and no longer seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.lab.oracle.plain import Plain

Differences = Mapping[str, tuple[Any, Any]]
"""What -> nova's and cellmove's value; `ABSENT` where there is none."""

ABSENT = "(absent)"
COPIED = (
    "5 copied",
    "6 claimed",
    "7 stopping",
    "8 stopped",
    "10 arriving",
    "11 arrived",
    "12 VERIFY_RESIZE",
    "13c confirming",
    "14c source gone",
    "15c confirmed",
    "13r reverting",
    "14r home",
)
"""Where the target cell has the server's records."""
STABLE = ("12 VERIFY_RESIZE", "15c confirmed", "16r reverted")
"""Where the move rests."""
IN_FLUX = re.compile(r" instance_actions(_events)? | updated_at$| network_info\b")
"""What nova writes a moment before or after a state, so it is compared where the move rests."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """One kind of difference."""

    what: str
    """Matches the whole of a difference's name."""
    at: Sequence[str]
    """The checkpoints where it must be seen, and the only ones where it may."""
    why: str
    nova: Any = ...
    """Its value, where it is always the same."""
    cellmove: Any = ...
    only: str = ""
    """Matches the legs that have it; all do when empty."""
    lasts: bool = False
    """It may be seen at other checkpoints too: it is still there when the next move begins."""

    def covers(self, name: str, values: tuple[Any, Any]) -> bool:
        return bool(re.fullmatch(self.what, name)) and all(
            wanted is ... or wanted == value
            for wanted, value in zip((self.nova, self.cellmove), values, strict=True)
        )


IMPROVEMENTS = (
    Improvement(
        r"target (instance_extra|instance_id_mappings|instance_info_caches|instance_metadata"
        r"|instance_system_metadata) .* created_at",
        COPIED,
        "A copied record keeps the time it was made: lists are sorted by it.",
        "during the move",
        "before the move",
    ),
    Improvement(
        r"target instance_id_mappings \[\] id",
        COPIED,
        "The EC2 id is the guest's instance-id in EC2 metadata: with another one, cloud-init takes "
        "the next boot for the first.",
        "another",
        "kept",
    ),
    Improvement(
        r"target virtual_interfaces \[port\] address",
        COPIED,
        "The address is unique in a cell only with the port's id: a bare MAC address may be taken.",
        "<mac>",
        "<mac>/<port>",
    ),
    Improvement(
        r"target instance_extra \[\] (keypairs|pci_requests|vcpu_model).*",
        ("5 copied", "6 claimed", "7 stopping", "8 stopped", "10 arriving"),
        "All of instance_extra is copied, not only what some request happened to have loaded.",
    ),
    Improvement(
        r"target instances \[\] image_ref",
        ("10 arriving",),
        "There is no temporary image, so the server never seems to be made from one.",
    ),
    Improvement(
        r"target instance_actions_events \[(migrate|resize) \d: (cold_migrate"
        r"|conductor_migrate_server)\] (finish_time|updated_at)",
        ("12 VERIFY_RESIZE", "15c confirmed"),
        "The conductor's events end in the target cell too; nova's stay open there for ever.",
        None,
        "during the move",
    ),
    Improvement(
        r"target instance_actions_events \[(migrate|resize) \d: (cold_migrate"
        r"|conductor_migrate_server)\] result",
        ("12 VERIFY_RESIZE", "15c confirmed"),
        "As above.",
        None,
        "Success",
    ),
    Improvement(
        r"target instance_actions_events \[(migrate|resize) \d: "
        r"compute_prep_snapshot_based_resize_at_source\] \w+",
        ("15c confirmed",),
        "What the source cell alone has seen of the history is kept when its records are deleted.",
        ABSENT,
        lasts=True,
    ),
    Improvement(
        r"(source|target) instance_actions_events \[(migrate|resize) \d: "
        r"compute_prep_snapshot_based_resize_at_dest\] \w+",
        ("16r reverted",),
        "As above, of the target cell.",
        ABSENT,
        lasts=True,
    ),
    Improvement(
        r"api request_specs \[\] updated_at",
        ("12 VERIFY_RESIZE", "16r reverted"),
        "A request spec that stays the same is not written again.",
        "during the move",
        None,
        only="migration",
    ),
    Improvement(
        r"api request_specs \[\] spec\.requested_(destination|resources)",
        ("13r reverting", "14r home", "16r reverted"),
        "Empty fields that no reader loads stay; nova drops them when it reverts a resize.",
        ABSENT,
        only="resize",
        lasts=True,
    ),
    Improvement(
        r".* \S+\.changes",
        ("12 VERIFY_RESIZE", "15c confirmed", "16r reverted"),
        "Which fields the last writer had touched: no reader asks, so they stay as they were.",
        lasts=True,
    ),
)


def differences(nova: Sequence[Plain], cellmove: Plain, checkpoint: str) -> Differences:
    """Between cellmove's records and that reading of nova's which is nearest to them."""

    def against(one: Plain) -> Differences:
        pairs = {
            name: (one.get(name, ABSENT), cellmove.get(name, ABSENT))
            for name in sorted(one.keys() | cellmove.keys())
            if checkpoint in STABLE or not IN_FLUX.search(name)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    return min(map(against, nova), key=len)


def undocumented(found: Differences, leg: str, checkpoint: str) -> list[str]:
    """Differences that the list does not have."""
    allowed = [each for each in _of(leg) if checkpoint in each.at or each.lasts]
    return [
        f"{name}: nova {nova!r}, cellmove {ours!r}"
        for name, (nova, ours) in found.items()
        if not any(each.covers(name, (nova, ours)) for each in allowed)
    ]


def unseen(found: Differences, leg: str, checkpoint: str) -> list[str]:
    """Entries of the list that nothing bears out here."""
    return [
        each.what
        for each in _of(leg)
        if checkpoint in each.at
        and not any(each.covers(name, values) for name, values in found.items())
    ]


def _of(leg: str) -> list[Improvement]:
    return [each for each in IMPROVEMENTS if re.search(each.only, leg)]
