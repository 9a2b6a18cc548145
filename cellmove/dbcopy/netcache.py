"""The network info cache: nova's copy of what Neutron says, rebuilt after a binding has moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cellmove.dbcopy import objects
from cellmove.dbcopy.database import Rows, now
from cellmove.model import Port


@dataclass(frozen=True, slots=True)
class NetworkCached:
    """The server's info cache shows its ports as they are bound.

    nova-compute rewrites this row whenever Neutron tells of a change, so only the binding is
    compared, and the way back overwrites whatever is there.
    """

    server: str
    ports: Sequence[Port]

    @property
    def key(self) -> str:
        return "network-info"

    def holds(self, rows: Rows) -> bool:
        bound = {port.id: port.vif_type for port in self.ports}
        return bound == {vif["id"]: vif["type"] for vif in json.loads(self._text(rows))}

    def remember(self, rows: Rows) -> Sequence[str]:
        return [self._text(rows)]

    def apply(self, rows: Rows) -> None:
        self._write(rows, objects.network_info(self._text(rows), self.ports))

    def restore(self, rows: Rows, kept: Sequence[str]) -> None:
        if kept and self._text(rows) != kept[0]:
            self._write(rows, kept[0])

    def _text(self, rows: Rows) -> str:
        row = rows.one("instance_info_caches", instance_uuid=self.server, deleted=0)
        return "[]" if row is None else str(row["network_info"] or "[]")

    def _write(self, rows: Rows, text: str) -> None:
        values = {"network_info": text, "updated_at": now()}
        rows.change("instance_info_caches", values, instance_uuid=self.server, deleted=0)
