"""The cells as the API database names them, and the way to each one's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import sqlalchemy as sa

from cellmove.dbcopy.connection import refused_url
from cellmove.dbcopy.database import Database, Rows
from cellmove.model import Cell

CELL0 = "00000000-0000-0000-0000-000000000000"
"""Where nova keeps servers that were never scheduled: no host, so nothing can move."""

Credentials = Literal["own", "same"]
"""Log into a cell as its mapping says, or with the account of the API database."""


@dataclass(frozen=True, slots=True)
class MappedCell:
    """One row of `cell_mappings`."""

    cell: Cell
    disabled: bool
    """nova schedules nothing into it; servers may be moved out of it."""
    url: str = field(repr=False)
    """Holds a password: it is never shown."""

    @property
    def is_cell0(self) -> bool:
        return self.cell.uuid == CELL0

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"cell {self.cell.name or self.cell.uuid}"


def mapped_cells(rows: Rows) -> list[MappedCell]:
    """All cells of the API database, in the order of their ids; cell0 and disabled ones too."""
    return [
        MappedCell(
            cell=Cell(row["id"], row["uuid"], row["name"] or ""),
            disabled=bool(row["disabled"]),
            url=row["database_connection"] or "",
        )
        for row in rows.all("cell_mappings")
    ]


def open_cells(
    cells: Sequence[MappedCell],
    api_url: sa.URL | str,
    *,
    credentials: Credentials = "own",
) -> dict[str, Database]:
    """Cell uuid -> its database, without cell0. Nothing is connected yet.

    Raises:
        Refused: a cell's URL cannot be used.
    """
    api = sa.make_url(api_url)
    return {
        mapped.cell.uuid: Database(_url(mapped, api, credentials), name=mapped.title)
        for mapped in cells
        if not mapped.is_cell0
    }


def _url(mapped: MappedCell, api: sa.URL, credentials: Credentials) -> sa.URL:
    try:
        url = sa.make_url(_expanded(mapped.url, api))
    except sa.exc.ArgumentError:
        raise refused_url(mapped.title) from None
    if credentials == "same" and url.get_backend_name() != "sqlite":
        return url.set(username=api.username, password=api.password)
    return url


def _expanded(template: str, api: sa.URL) -> str:
    """Fill in the parts of the API database's URL.

    nova does so from its own `[database]connection`, and takes a URL that is no template as it
    is. nova 26: objects/cell_mapping.py:CellMapping._format_url.
    """
    parts = urlsplit(api.render_as_string(hide_password=False))
    known: dict[str, Any] = {
        "scheme": parts.scheme,
        "username": parts.username or "",
        "password": parts.password or "",
        "hostname": parts.hostname or "",
        "port": parts.port or 3306,
        "path": parts.path.lstrip("/"),
        "query": parts.query,
        "fragment": parts.fragment,
    }
    try:
        return template.format(**known)
    except (AttributeError, IndexError, KeyError, ValueError):
        return template
