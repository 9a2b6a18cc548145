"""nova's databases: do they answer, what release are they, may we do what a move does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from cellmove.check.findings import Finding, fail, guarded, ok, warn
from cellmove.check.grants import EVERY_TABLE, missing
from cellmove.dbcopy.database import Database
from cellmove.dbcopy.tables import unknown_tables

COMPUTE_VERSION = 47
"""Since Ussuri nova-compute confirms and reverts a resize across cells."""
GRANTS_ADVICE = "Run playbooks/databases.yml, or give the account these grants."


def database(database: Database, needs: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    """One database: connection, then grants (which need one)."""
    yield from guarded(database.name, partial(_answers, database))
    yield from guarded(f"{database.name}: grants", partial(_grants, database, needs))


def same_release(versions: Mapping[str, str]) -> Iterator[Finding]:
    """All cells must have the same schema: what a column of one holds must fit the other.

    `versions`: cell's name -> version of its schema.
    """
    if len(set(versions.values())) > 1:
        seen = ", ".join(f"{name}: {version}" for name, version in versions.items())
        do = "Columns that only one cell has are looked at before each move; upgrade nova in both."
        yield warn("cells: release", seen, do)


def computes(cell: str, versions: Mapping[str, int | None]) -> Iterator[Finding]:
    """nova-compute must be able to finish what a user asks nova to finish.

    `versions`: host -> version of its service.
    """
    old = [host for host, version in versions.items() if (version or 0) < COMPUTE_VERSION]
    if old:
        seen = f"Of a service version below {COMPUTE_VERSION}: {', '.join(old)}."
        do = "Upgrade them to Ussuri or later: servers are not moved to or from them."
        yield fail(f"{cell}: nova-compute", seen, do)


def census(cell: Database) -> Iterator[Finding]:
    """A table that knows servers and that cellmove does not know could lose data."""
    if unknown := unknown_tables(cell):
        seen = f"Tables that cellmove does not know: {', '.join(unknown)}."
        yield warn(f"{cell.name}: tables", seen, "A server with rows in them is refused.")


def _answers(database: Database) -> Iterator[Finding]:
    version = database.version()
    if version:
        yield ok(database.name, f"schema {version}")
    else:
        do = "Check the database's name in the URL."
        yield fail(database.name, "It holds no schema of nova.", do)


def _grants(database: Database, needs: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    what = f"{database.name}: grants"
    with database.read() as rows:
        there = {table: wanted for table, wanted in needs.items() if rows.columns(table)}
        # A table that may not even be seen is as good as absent; those every release has count.
        there |= {table: needs[table] for table in _ALWAYS if table in needs}
    schema, lines = database.grants()
    lacking = missing(lines, schema, there)
    if not lacking:
        yield ok(what, f"all that a move needs on {len(there.keys() - {EVERY_TABLE})} tables")
        return
    seen = "; ".join(f"{table}: no {', '.join(p)}" for table, p in sorted(lacking.items()))
    if any(" ON " not in line for line in lines):
        yield warn(what, f"Not seen (a role may give it): {seen}.", GRANTS_ADVICE)
    else:
        yield fail(what, f"{seen}.", GRANTS_ADVICE)


_ALWAYS = (EVERY_TABLE, "instances", "instance_mappings", "cell_mappings", "migrations")
