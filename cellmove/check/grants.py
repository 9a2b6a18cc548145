"""What a database account may do: `SHOW GRANTS` of MariaDB and MySQL, read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cellmove.dbcopy.tables import CENSUS, Fate

_NAME: Final = r"\*|`(?:[^`]|``)+`"
_GRANT: Final = re.compile(
    rf"GRANT (?P<privileges>.+?) ON (?:TABLE )?(?P<schema>{_NAME})\.(?P<table>{_NAME}) TO "
)
_COLUMNS: Final = re.compile(r"[A-Z ]+\([^)]*\)")
"""A privilege on some columns only: not enough for any table."""

EVERY_TABLE: Final = "*"
"""Only a grant on the whole schema gives it."""

API_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "cell_mappings": frozenset({"SELECT"}),
    "host_mappings": frozenset({"SELECT"}),
    "flavors": frozenset({"SELECT"}),
    "instance_mappings": frozenset({"SELECT", "UPDATE"}),
    "request_specs": frozenset({"SELECT", "UPDATE"}),
}
"""Table of the API database -> privileges; only `instance_mappings.cell_id` and the spec change."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges on the tables of a schema; a name may be a pattern."""

    privileges: frozenset[str]
    schema: str
    table: str

    def gives(self, privilege: str, schema: str, table: str) -> bool:
        """Whether it covers this."""
        covered = bool({privilege, "ALL PRIVILEGES", "ALL"} & self.privileges)
        here = self.schema == "*" or _like(self.schema, schema)
        return covered and here and self.table in ("*", table)


def parsed(lines: Iterable[str]) -> Iterator[Grant]:
    """The grants in what `SHOW GRANTS` printed; a role is none."""
    for line in lines:
        if found := _GRANT.match(line):
            whole = _COLUMNS.sub("", found["privileges"]).split(",")
            privileges = frozenset(each.strip() for each in whole)
            yield Grant(privileges, _unquoted(found["schema"]), _unquoted(found["table"]))


def cell_needs() -> dict[str, frozenset[str]]:
    """Table of a cell -> privileges, as the census has it.

    All are to be read, those of releases to come too: a table that is not seen cannot be refused.
    """
    needs = {EVERY_TABLE: frozenset({"SELECT"})}
    for table in CENSUS:
        if table.fate is Fate.COPY:
            needs[table.name] = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
        elif table.fate is Fate.DROP:
            needs[table.name] = frozenset({"SELECT", "DELETE"})
    return needs


def missing(
    lines: Iterable[str], schema: str, needs: Mapping[str, frozenset[str]]
) -> dict[str, list[str]]:
    """Table -> privileges that no grant gives."""
    grants = list(parsed(lines))
    lacking = {
        table: sorted(p for p in wanted if not any(g.gives(p, schema, table) for g in grants))
        for table, wanted in needs.items()
    }
    return {table: privileges for table, privileges in lacking.items() if privileges}


def _unquoted(name: str) -> str:
    return name if name == "*" else name[1:-1].replace("``", "`")


def _like(pattern: str, name: str) -> bool:
    """A schema in a grant is a pattern of LIKE: `%`, `_`, and a backslash before either."""
    parts = re.findall(r"\\.|.", pattern)
    wild = {"%": ".*", "_": "."}
    regex = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(regex, name) is not None
