"""Who lives on a cell's hypervisors, and who waits there to be confirmed: what a drain begins with.

Four statements a cell, however many servers it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from cellmove.dbcopy.database import Row, Rows
from cellmove.dbcopy.servers import shown_servers

GONE = ("post-migrating", "finished")
"""What the migration of a server that has left may say here."""


def residents(rows: Rows, *, host: str | None = None) -> list[Row]:
    """Servers that the cell shows and that are on a hypervisor, newest first.

    Each has what `shown_servers` gives, and `tags`, and `local_gb`: its disks on the hypervisor
    as its flavor has them; a root disk that is a volume does not count.
    """
    found = [row for row in shown_servers(rows, host=host) if row["host"]]
    tags: dict[str, list[str]] = defaultdict(list)
    for row in rows.stream(("tags", "instances"), _of_host(_tags, host)):
        tags[row["resource_id"]].append(row["tag"])
    sizes = {
        row["uuid"]: (row["root_gb"] if row["local"] else 0) + (row["ephemeral_gb"] or 0)
        for row in rows.stream(("instances", "block_device_mapping"), _of_host(_sizes, host))
    }
    return [
        row | {"tags": tuple(tags[row["uuid"]]), "local_gb": sizes.get(row["uuid"], 0)}
        for row in found
    ]


def leavers(rows: Rows, *, host: str | None = None) -> list[Row]:
    """Servers that were resized out of this cell and wait to be confirmed or reverted.

    Their hidden rows are what is left of them here, with a migration that stays `post-migrating`
    while it is `finished` in the other cell (nova 26: conductor/tasks/cross_cell_migrate.py).
    """

    def query(instances: sa.Table, migrations: sa.Table) -> sa.Select[Any]:
        of, by = instances.c, migrations.c
        found = (
            sa.select(of.uuid, of.display_name, of.host)
            .join(migrations, by.instance_uuid == of.uuid)
            .where(of.deleted == 0, of.hidden == 1, by.deleted == 0)
            .where(by.status.in_(GONE), by.cross_cell_move == 1, by.source_compute == of.host)
            .order_by(of.uuid)
        )
        return found if host is None else found.where(of.host == host)

    return list(rows.stream(("instances", "migrations"), query))


def _of_host(
    query: Callable[..., sa.Select[Any]], host: str | None
) -> Callable[..., sa.Select[Any]]:
    return lambda first, second: query(first, second, host)


def _tags(tags: sa.Table, instances: sa.Table, host: str | None) -> sa.Select[Any]:
    found = (
        sa.select(tags.c.resource_id, tags.c.tag)
        .join(instances, instances.c.uuid == tags.c.resource_id)
        .where(instances.c.deleted == 0)
        .order_by(tags.c.resource_id, tags.c.tag)
    )
    return found if host is None else found.where(instances.c.host == host)


def _sizes(instances: sa.Table, mappings: sa.Table, host: str | None) -> sa.Select[Any]:
    of, by = instances.c, mappings.c
    root = sa.and_(
        by.instance_uuid == of.uuid,
        by.deleted == 0,
        by.boot_index == 0,
        by.destination_type == "volume",
    )
    found = (
        sa.select(of.uuid, of.root_gb, of.ephemeral_gb, by.id.is_(None).label("local"))
        .select_from(instances.outerjoin(mappings, root))
        .where(of.deleted == 0)
    )
    return found if host is None else found.where(of.host == host)
