"""The API database: which cell owns the server, and what its scheduler knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellmove.dbcopy import objects
from cellmove.dbcopy.edits import Change, Edit
from cellmove.steps.base import Ports, RowsStep

if TYPE_CHECKING:
    from cellmove.cloud import Cloud
    from cellmove.dbcopy.database import Database, Rows
    from cellmove.model import Cell, Flavor


class _Api(RowsStep):
    """A step that writes to the API database."""

    def database(self, cloud: Cloud) -> Database:
        return cloud.api

    def _pointed(self, old: Cell, new: Cell) -> Sequence[Edit]:
        server = {"instance_uuid": self.move.server}
        return [Change("instance_mappings", server, {"cell_id": new.id}, {"cell_id": old.id})]

    def _specified(self, rows: Rows, flavor: Flavor) -> Sequence[Edit]:
        server = {"instance_uuid": self.move.server}
        spec = rows.one("request_specs", **server)
        if spec is None:
            return []
        return [
            Change(
                "request_specs", server, {"spec": objects.spec_with_flavor(spec["spec"], flavor)}
            )
        ]


class PointMapping(_Api):
    """Point the server's instance mapping at the target cell: the one commit point."""

    name = "point-mapping"

    def describe(self) -> str:
        return f"point the instance mapping at {self.move.target.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return self._pointed(self.move.source.cell, self.move.target.cell)


class PointMappingHome(_Api):
    """Point the server's instance mapping back at the source cell."""

    name = "point-mapping-home"

    def describe(self) -> str:
        return f"point the instance mapping back at {self.move.source.cell.name}"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return self._pointed(self.move.target.cell, self.move.source.cell)


class UpdateRequestSpec(_Api):
    """Let later scheduling know the new flavor."""

    name = "update-request-spec"

    def describe(self) -> str:
        return f"put flavor {self.move.new_flavor.name} into the request spec"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return self._specified(rows, self.move.new_flavor)


class RestoreRequestSpec(_Api):
    """Let later scheduling know the old flavor again."""

    name = "restore-request-spec"

    def describe(self) -> str:
        return f"put flavor {self.move.old_flavor.name} back into the request spec"

    def edits(self, rows: Rows, ports: Ports) -> Sequence[Edit]:
        return self._specified(rows, self.move.old_flavor)
