"""The last act on a hidden copy: delete it where it is proved to own nothing."""

from __future__ import annotations

from cellmove.dbcopy.copy import delete_records
from cellmove.dbcopy.database import Database
from cellmove.errors import StepFailed
from cellmove.model import Cell


def delete_hidden(api: Database, cell_database: Database, cell: Cell, server: str) -> None:
    """Delete a server's records in a cell that does not own it; twice is once.

    Raises:
        StepFailed: they are not hidden, or the instance mapping points at this cell.
    """
    with api.read() as rows:
        mapping = rows.one("instance_mappings", instance_uuid=server)
    with cell_database.write() as rows:
        row = rows.one("instances", uuid=server)
        if row is None:
            return
        if mapping is None or mapping["cell_id"] == cell.id or not row["hidden"]:
            raise StepFailed(
                f"The records in {cell.name} are not deleted.",
                "They are not hidden, or the instance mapping points at them.",
                f"Compare both cells' rows of {server}.",
            )
        delete_records(rows, server)
