"""`cellmove audit`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cellmove.cli.options import Command, Options
from cellmove.errors import Exit, Usage

if TYPE_CHECKING:
    from cellmove.audit import Finding
    from cellmove.cli.desk import Desk
    from cellmove.journal import Entry


@click.command(cls=Command)
@click.option("--server", metavar="SERVER", help="Only this one, by name or UUID, be it gone.")
@click.option("--cell", metavar="CELL", help="Only of this cell, by name or UUID.")
@click.option("--mend", is_flag=True, help="Mend what can be mended without any harm.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.make_pass_decorator(Options, ensure=True)
def audit(
    options: Options, /, *, server: str | None, cell: str | None, mend: bool, yes: bool
) -> Exit:
    """Find what is lost, double or left over in the whole cloud.

    Compares the databases of all cells, Placement, Neutron, Cinder and every hypervisor, looks
    twice, and prints each finding with its evidence and the commands that mend it. A server that
    something works on is listed as under way. Changes nothing without --mend, which deletes no
    data: inactive bindings, reservations, checkpoints, allocations of what is gone. Ends with 7
    when something is found.
    """
    from cellmove.audit.whole import run, scope
    from cellmove.cli import desk as desks
    from cellmove.report.audits import Audited

    if mend and not yes and not sys.stdin.isatty():
        raise Usage(
            "`cellmove audit --mend` asks before it changes anything.",
            "There is no terminal to ask on.",
            "Add --yes if you are sure.",
        )
    desk = desks.Desk(options)
    with desk.cloud() as opened:
        wanted = scope(
            opened.cloud,
            partial(_moves, desk),
            server=server,
            cell=cell,
            instances_path=desk.config.nova.instances_path,
            say=desk.remark,
        )
        report = Audited(run(wanted, mend=mend, ask=None if yes else _sure))
    return desk.answer(report, report.exit_code)


def _moves(desk: Desk) -> list[Entry]:
    """All moves of the journal; none is made only to look into it."""
    place = str(desk.journal_place)
    return desk.journal.entries() if "://" in place or Path(place).exists() else []


def _sure(safe: Sequence[Finding]) -> bool:
    for each in safe:
        click.echo(f"{each.code}: {each.seen}", err=True)
    return click.confirm(f"Mend {len(safe)} finding(s)?", err=True)
