"""All servers that a cell shows, in one statement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from cellmove.dbcopy.database import Row, Rows

FLAVOR_NAME = '$.cur."nova_object.data".name'
"""Where `instance_extra.flavor` has the name: the row's flavor may be long gone from the API."""


def shown_servers(
    rows: Rows, *, host: str | None = None, project_id: str | None = None
) -> Iterator[Row]:
    """Servers that nova's API lists of this cell, newest first, then by falling uuid.

    Neither hidden nor deleted ones; NULL is not hidden. Each has `uuid`, `created_at`,
    `display_name`, `project_id`, `host`, `vm_state`, `task_state` and `flavor`, its name.
    nova 26: db/main/api.py:instance_get_all_by_filters_sort.
    """

    def query(instances: sa.Table, extra: sa.Table) -> sa.Select[Any]:
        of, flavor = instances.c, extra.c.flavor
        name = sa.case((sa.func.json_valid(flavor) == 1, sa.func.json_extract(flavor, FLAVOR_NAME)))
        with_extra = sa.and_(extra.c.instance_uuid == of.uuid, extra.c.deleted == 0)
        found = (
            sa.select(
                *(of.uuid, of.created_at, of.display_name, of.project_id, of.host),
                *(of.vm_state, of.task_state, name.label("flavor")),
            )
            .select_from(instances.outerjoin(extra, with_extra))
            .where(of.deleted == 0, sa.or_(of.hidden.is_(None), of.hidden == 0))
            .where(sa.or_(of.vm_state.is_(None), of.vm_state != "soft-delete"))
            .order_by(of.created_at.desc(), of.uuid.desc())
        )
        if host is not None:
            found = found.where(of.host == host)
        if project_id is not None:
            found = found.where(of.project_id == project_id)
        return found

    for row in rows.stream(("instances", "instance_extra"), query):
        yield row | {"flavor": _text(row["flavor"])}


def _text(name: Any) -> str:
    """MariaDB and MySQL answer as JSON, SQLite as text."""
    text = "" if name is None else str(name)
    return str(json.loads(text)) if text[:1] == text[-1:] == '"' and len(text) > 1 else text
