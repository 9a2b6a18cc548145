"""What the databases say of each server: shown once, mapped there, hidden only beside a resize."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from cellmove.audit.facts import Facts, Server
from cellmove.audit.findings import Finding, Severity, Where
from cellmove.dbcopy.leftovers import Copy, Migration

API = "nova_api"
"""What the API database is called in a command to paste."""


def check(facts: Facts) -> Iterator[Finding]:
    """Everything that rows alone tell."""
    for server in facts.servers.values():
        if server.id in facts.outside and not server.copies:
            continue
        yield from _shown(facts, server)
        yield from _hidden(facts, server)
        yield from _deleted(server)
        yield from _resize(facts, server)
        yield from _flavor(facts, server)


def _shown(facts: Facts, server: Server) -> Iterator[Finding]:
    """One visible row, where the mapping points."""
    visible = server.visible
    if len(visible) > 1:
        seen = f"Rows in {_cells(visible)} are shown; it is mapped to {_mapped(facts, server)}."
        seen += " nova counts it twice against the quota."
        wrong = [each for each in visible if each.cell.id != server.mapped_to]
        do = tuple(_hide(each, hidden=1) for each in wrong) if len(wrong) < len(visible) else ()
        yield Finding("shown-twice", Severity.DOUBLE, Where(server.id, server.name), seen, do)
    if not server.copies:
        if server.is_mapped and not server.deleted:
            seen = f"It is mapped to {_mapped(facts, server)}, and no cell has a row of it."
            delete = f"DELETE FROM instance_mappings WHERE instance_uuid = '{server.id}'"
            yield Finding(
                "row-missing",
                Severity.LOST,
                Where(server.id, server.name),
                seen,
                (_sql(API, delete),),
            )
    elif not server.is_mapped:
        cell = server.copies[0].cell
        seen = f"{_cells(server.copies)} has its row, and no instance mapping points there."
        do = (f"nova-manage cell_v2 map_instances --cell_uuid {cell.uuid} --reset",)
        yield Finding("unmapped", Severity.LOST, Where(server.id, server.name, cell.name), seen, do)
    elif not any(each.cell.id == server.mapped_to for each in visible):
        yield _astray(facts, server)


def _astray(facts: Facts, server: Server) -> Finding:
    mapped = next((each for each in server.copies if each.cell.id == server.mapped_to), None)
    seen = f"It is mapped to {_mapped(facts, server)}"
    if server.here is not None:
        seen += f", where {'it is hidden' if mapped else 'it has no row'};"
        seen += f" {server.here.cell.name} shows it on {server.here.host or 'no host'}."
        point = f"UPDATE instance_mappings SET cell_id = {server.here.cell.id}"
        do = (_sql(API, f"{point} WHERE instance_uuid = '{server.id}'"),)
        return Finding(
            "mapped-elsewhere",
            Severity.LOST,
            Where(server.id, server.name, server.here.cell.name),
            seen,
            do,
        )
    if mapped is not None:
        seen += ", where its row is hidden; no cell shows it."
        do = (_hide(mapped, hidden=0),)
        return Finding(
            "shown-nowhere",
            Severity.LOST,
            Where(server.id, server.name, mapped.cell.name),
            seen,
            do,
        )
    seen += f", which has no row of it; {_cells(server.copies)} has."
    return Finding("mapped-elsewhere", Severity.LOST, Where(server.id, server.name), seen, ())


def _hidden(facts: Facts, server: Server) -> Iterator[Finding]:
    """A hidden copy needs a resize across cells that goes on or waits for its end."""
    here = server.here
    if here is None:
        return
    # The other cell's half of a migration outlives a confirm or revert that has failed.
    failed = next(each.failed for each in facts.cells if each.cell == here.cell)
    if any(each.cross_cell and each.uuid not in failed for each in server.migrations):
        return
    for copy in server.copies:
        if not copy.hidden or copy.cell.id == server.mapped_to:
            continue
        seen = (
            f"{copy.cell.name} has a hidden copy ({copy.host or 'no host'}, {copy.vm_state},"
            f" {copy.task_state or 'no task_state'}), and no resize across cells is in flight;"
            f" {here.cell.name} shows the server on {here.host or 'no host'} ({here.vm_state})."
        )
        # Until a resize is confirmed, this is how the old copy waits: so a confirm has failed.
        waits = copy.task_state == "resize_migrated"
        do = tuple(_finish(here, server.id) if waits else _drop(copy))
        yield Finding(
            "hidden-copy",
            Severity.LEFT_OVER,
            Where(server.id, server.name, copy.cell.name, copy.host),
            seen,
            do,
        )


def _finish(here: Copy, server: str) -> Iterator[str]:
    """Make the state again that a failed confirm began from, so that it can be confirmed."""
    migration = (
        "UPDATE migrations SET status = 'finished' WHERE deleted = 0 AND cross_cell_move = 1"
        f" AND instance_uuid = '{server}' AND status = 'error' ORDER BY id DESC LIMIT 1"
    )
    row = (
        "UPDATE instances SET vm_state = 'resized', task_state = NULL"
        f" WHERE deleted = 0 AND uuid = '{server}'"
    )
    yield _sql(here.cell.name, migration)
    yield _sql(here.cell.name, row)
    yield f"cellmove confirm {server}"


def _drop(copy: Copy) -> Iterator[str]:
    """Delete a copy as nova deletes a server's row: it is archived like one."""
    yield f"cellmove compare {copy.server}"
    yield _sql(
        copy.cell.name,
        "UPDATE instances SET deleted = id, deleted_at = UTC_TIMESTAMP()"
        f" WHERE uuid = '{copy.server}' AND deleted = 0 AND hidden = 1",
    )
    yield "nova-manage db archive_deleted_rows --all-cells"


def _deleted(server: Server) -> Iterator[Finding]:
    """A soft-deleted row beside a living one is in the way of the next move to that cell."""
    for cell in server.deleted if server.copies else ():
        seen = f"{cell.name} has a soft-deleted row of it; it lives in {_cells(server.copies)}."
        do = ("nova-manage db archive_deleted_rows --all-cells",)
        where = Where(server.id, server.name, cell.name)
        yield Finding("deleted-copy", Severity.ODD, where, seen, do)


def _resize(facts: Facts, server: Server) -> Iterator[Finding]:
    """Notes of a resize belong to one that is in flight."""
    for records in facts.cells:
        own = [each for each in server.copies if each.cell == records.cell]
        if not own:
            continue
        mine = [each for each in server.migrations if each.cell == records.cell]
        yield from _context(server, own[0], mine, records.contexts.get(server.id))
        if server.id in records.noted and not server.migrations:
            seen = f"{own[0].cell.name} notes a state to go back to, and no resize is in flight."
            delete = (
                "UPDATE instance_system_metadata SET deleted = id, deleted_at = UTC_TIMESTAMP()"
                f" WHERE instance_uuid = '{server.id}' AND `key` = 'old_vm_state' AND deleted = 0"
            )
            yield _odd("resize-note", own[0], seen, _sql(own[0].cell.name, delete))


def _context(
    server: Server, copy: Copy, mine: list[Migration], named: int | None
) -> Iterator[Finding]:
    if named is None or named in {each.id for each in mine}:
        return
    cell = copy.cell.name
    if mine:
        seen = f"Its migration context in {cell} names migration {named}, which is not in flight"
        seen += f" there; {', '.join(str(each.id) for each in mine)} is."
        seen += " nova-compute would set that one to error."
        yield Finding(
            "wrong-migration-context", Severity.LOST, Where(server.id, server.name, cell), seen, ()
        )
        return
    if server.migrations:
        return  # The other cell's half says more.
    seen = f"Its migration context in {cell} names migration {named}, and no resize is in flight."
    clear = (
        "UPDATE instance_extra SET migration_context = NULL"
        f" WHERE instance_uuid = '{server.id}' AND deleted = 0"
    )
    yield _odd("migration-context", copy, seen, _sql(cell, clear))


def _flavor(facts: Facts, server: Server) -> Iterator[Finding]:
    """The next time that nova schedules the server, it asks for what the request spec says."""
    here = server.here
    if here is None or server.migrations:
        return
    wanted = facts.spec_flavors.get(server.id, "")
    records = next(each for each in facts.cells if each.cell == here.cell)
    has = records.flavors.get(server.id, "")
    if wanted and has and wanted != has:
        seen = f"Its flavor is {has}; its request spec says {wanted}."
        yield _odd("spec-flavor", here, seen, f"openstack server show {server.id}")


def _odd(code: str, copy: Copy, seen: str, do: str) -> Finding:
    return Finding(code, Severity.ODD, Where(copy.server, copy.name, copy.cell.name), seen, (do,))


def _cells(copies: tuple[Copy, ...]) -> str:
    return " and ".join(each.cell.name or each.cell.uuid for each in copies)


def _mapped(facts: Facts, server: Server) -> str:
    if not server.is_mapped:
        return "no cell"
    names = (c.cell.name or c.cell.uuid for c in facts.cells if c.cell.id == server.mapped_to)
    return next(names, "cell0, or no cell")


def _hide(copy: Copy, *, hidden: int) -> str:
    where = f"WHERE uuid = '{copy.server}' AND deleted = 0"
    return _sql(copy.cell.name, f"UPDATE instances SET hidden = {hidden} {where}")


def _sql(database: str, statement: str) -> str:
    """A command for the database of a cell, by the cell's name."""
    return f"mysql {shlex.quote(database)} -e {shlex.quote(statement)}"
