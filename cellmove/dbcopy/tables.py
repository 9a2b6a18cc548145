"""The census: every table of a cell that knows a server, what becomes of its rows, and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cellmove.dbcopy.database import Database


class Fate(enum.Enum):
    """What a move does with a table's rows of the server."""

    COPY = "copy"
    """Written into the target cell; deleted with the server in the cell it leaves."""
    DROP = "drop"
    """Not written into the target cell; deleted with the server in the cell it leaves."""
    STAY = "stay"
    """Neither copied nor deleted."""
    REFUSE = "refuse"
    """A server with such rows is not moved."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table that knows a server."""

    name: str
    fate: Fate
    why: str
    key: str = "instance_uuid"
    """The column that holds the server's uuid; of events, the id of one of its actions."""


ACTIONS = "instance_actions"
EVENTS = "instance_actions_events"

CENSUS = (
    Table("instances", Fate.COPY, "the server itself; all else refers to it", "uuid"),
    Table(
        "instance_extra",
        Fate.COPY,
        "flavors, key pairs, topology: nova copies it partly",
    ),
    Table(
        "instance_info_caches",
        Fate.COPY,
        "nova reads ports from it before it asks Neutron",
    ),
    Table("instance_metadata", Fate.COPY, "the owner's metadata"),
    Table(
        "instance_system_metadata",
        Fate.COPY,
        "the image's properties, which rebuild the guest",
    ),
    Table(
        "block_device_mapping",
        Fate.COPY,
        "disks and volumes; the uuid is the same in both",
    ),
    Table(
        "virtual_interfaces",
        Fate.COPY,
        "tags of interfaces; the address keeps its port id",
    ),
    Table("tags", Fate.COPY, "the owner's tags", "resource_id"),
    Table("instance_faults", Fate.COPY, "shown for a server in error; nova forgets it"),
    Table(
        "instance_id_mappings",
        Fate.COPY,
        "the EC2 id, which cloud-init may know it by",
        "uuid",
    ),
    Table("migrations", Fate.COPY, "its history and the move in progress"),
    Table(ACTIONS, Fate.COPY, "what its owner did with it"),
    Table(
        EVENTS,
        Fate.COPY,
        "the actions' parts; they hang on the action's id",
        "action_id",
    ),
    Table("console_auth_tokens", Fate.DROP, "good for one cell's proxy and for minutes"),
    Table(
        "security_group_instance_association",
        Fate.DROP,
        "nova-network's; Neutron has its own",
    ),
    Table("volume_usage_cache", Fate.STAY, "accounting of what was used in this cell"),
    Table("share_mapping", Fate.REFUSE, "nova resizes no server with a share attached"),
    Table(
        "pci_devices",
        Fate.REFUSE,
        "a device of this host, which its nova-compute hands out",
    ),
    Table(
        "fixed_ips",
        Fate.REFUSE,
        "nova-network's, unused since Ussuri; would bar the deletion",
    ),
    Table(
        "consoles",
        Fate.REFUSE,
        "XenAPI's, unused since Victoria; would bar the deletion",
    ),
)
"""In the order of insertion: a table comes after those that it refers to."""

COPIED = tuple(table for table in CENSUS if table.fate is Fate.COPY)

DELETION_ORDER = (
    "security_group_instance_association",
    "instance_info_caches",
    "instance_metadata",
    "instance_faults",
    "instance_extra",
    "instance_system_metadata",
    "block_device_mapping",
    "migrations",
    "virtual_interfaces",
    "instance_id_mappings",
    "tags",
    "console_auth_tokens",
    EVENTS,
    ACTIONS,
    "instances",
)
"""nova 26: db/main/api.py:instance_destroy(hard_delete=True)."""

BY_NAME = {table.name: table for table in CENSUS}


def unknown_tables(database: Database) -> dict[str, tuple[str, str]]:
    """Tables that may know a server and that the census does not list.

    Table -> its column, and the column of `instances` whose value it holds: those with a foreign
    key to `instances`, or with a column `instance_uuid`.
    """
    with database.read() as rows:
        found = dict.fromkeys(rows.tables_with("instance_uuid"), ("instance_uuid", "uuid"))
        found |= rows.tables_referring_to("instances")
    return {name: columns for name, columns in sorted(found.items()) if name not in BY_NAME}
