"""`cellmove drain`: its arguments, and what they come to."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from cellmove.cli.options import Command, Options, bwlimit, compress
from cellmove.errors import Exit, Usage

if TYPE_CHECKING:
    from cellmove.draining.run import Drain
    from cellmove.draining.scope import Found, Scope
    from cellmove.draining.wishes import Terms, Wishes
    from cellmove.draining.work import Work
    from cellmove.interrupts import Interrupts
    from cellmove.model import Transfer
    from cellmove.opening import OpenCloud
    from cellmove.report.live import Guarded

SHARES_FLOOR_BYTES = 64 << 10
"""No share of --bwlimit is less: a slower copy would be taken for one that hangs."""


def _terms(command: Callable[..., Any]) -> Callable[..., Any]:
    """--project and its like, each with its opposite."""
    for term, metavar, what in (
        ("name", "GLOB", "whose name is like this, e.g. 'web-*'"),
        ("tag", "TAG", "with this tag"),
        ("flavor", "FLAVOR", "of this flavor"),
        ("project", "PROJECT", "of this project, by name or id"),
    ):
        for prefix, lead in (("exclude-", "None"), ("", "Only those")):
            command = click.option(
                f"--{prefix}{term}", metavar=metavar, multiple=True, help=f"{lead} {what}."
            )(command)
    return command


@click.command("drain", cls=Command)
@click.option("--cell", metavar="CELL", help="Empty this cell, by name or UUID.")
@click.option("--host", metavar="HOST", help="Empty this hypervisor.")
@click.option("--to-cell", metavar="CELL", help="Into this cell; else into the only other one.")
@click.option(
    "--order",
    type=click.Choice(["smallest", "largest", "oldest", "name"]),
    default="smallest",
    show_default=True,
    help="Who goes first.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Moves at a time of this process.",
)
@click.option(
    "--total", type=click.IntRange(1), help="Moves at a time of all that share this drain."
)
@click.option(
    "--per-host",
    type=click.IntRange(1),
    help="Moves at a time from or to one hypervisor, of all that share this drain.",
)
@click.option(
    "--max-failures",
    metavar="N|P%",
    default="5",
    show_default=True,
    help="Begin nothing more once more than so many have failed.",
)
@click.option(
    "--confirm-after",
    metavar="TIME|never",
    default="never",
    show_default=True,
    help="Confirm each server so long after its arrival, e.g. 30m; deletes its old disks.",
)
@click.option("--window", metavar="WHEN", help="Begin moves only then: 'Sat 02:00-04:00'.")
@_terms
@click.option("--cordon", is_flag=True, help="Disable the nova-compute services concerned first.")
@click.option("--cold", is_flag=True, help="Copy no disk while the guest runs.")
@click.option("--flatten", is_flag=True, help="Send what the disks lie on with them, as one file.")
@bwlimit
@compress
@click.option("--dry-run", is_flag=True, help="Show who would go where, or why not; move none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.make_pass_decorator(Options, ensure=True)
def drain(options: Options, /, *, dry_run: bool, yes: bool, cordon: bool, **wished: Any) -> Exit:
    """Move all servers out of a cell or off a hypervisor, several at a time.

    Run it again to go on: what has left is done, what is half-way goes on, what is new goes too.
    A server that cannot be moved keeps no other back; why is told at the end. One that fails
    unfelt is tried on up to two more hosts.

    Several processes share one drain when they share the journal (--journal with a URL).

    \b
    Examples:
      cellmove drain --host cmp1a --dry-run
      cellmove drain --cell cell1 --parallel 4 --per-host 2 --window 'Sat 02:00-04:00'
      cellmove drain --cell cell1 --confirm-after 30m --cordon --yes
    """  # noqa: D301 - click wants a real backspace
    if (wished["cell"] is None) == (wished["host"] is None):
        raise click.UsageError("Give either --cell or --host.")
    options.sign_in_early()
    return _Draining(options, wished).run(dry_run=dry_run, yes=yes, cordons=cordon)


class _Draining:
    """One command's; what it needs is imported when it runs."""

    def __init__(self, options: Options, wished: dict[str, Any]) -> None:
        from cellmove.cli.desk import Desk
        from cellmove.draining import wishes
        from cellmove.draining.window import Window

        self._options = options
        self._wished = wished
        self._desk = Desk(options)
        self._max_failures = wishes.Limit.parse(wished["max_failures"])
        self._confirm_after = wishes.seconds(wished["confirm_after"])
        self._window = Window.parse(wished["window"]) if wished["window"] else None

    def run(self, *, dry_run: bool, yes: bool, cordons: bool) -> Exit:
        """Look, show or ask, then do it."""
        from cellmove.draining.scope import scope_of

        with self._desk.cloud() as opened:
            wishes = self._wishes(opened)
            scope = scope_of(opened.cloud, wishes)
            found = self._look(opened, scope, wishes)
        if dry_run:
            return self._show(scope, wishes, found)
        self._ask(scope, found, yes=yes)
        return self._drain(scope, wishes, found, cordons=cordons)

    def _wishes(self, opened: OpenCloud) -> Wishes:
        from cellmove.draining.wishes import Wishes

        wished = self._wished
        return Wishes(
            cell=wished["cell"],
            host=wished["host"],
            to_cell=wished["to_cell"],
            order=wished["order"],
            only=self._terms(opened, ""),
            but=self._terms(opened, "exclude_"),
            parallel=wished["parallel"],
            total=wished["total"],
            per_host=wished["per_host"],
            max_failures=self._max_failures,
            confirm_after_seconds=self._confirm_after,
            window=self._window,
            cold=wished["cold"],
            flatten=wished["flatten"],
        )

    def _terms(self, opened: OpenCloud, prefix: str) -> Terms:
        from cellmove.draining.wishes import Terms

        given = {each: self._wished[f"{prefix}{each}"] for each in ("flavor", "tag", "name")}
        projects = tuple(map(opened.project_id, self._wished[f"{prefix}project"]))
        return Terms(projects, given["flavor"], given["tag"], given["name"])

    def _look(self, opened: OpenCloud, scope: Scope, wishes: Wishes) -> Found:
        from cellmove.draining.scope import look

        return look(opened.cloud, scope, wishes, self._desk.journal.entries(brief=True))

    def _ask(self, scope: Scope, found: Found, *, yes: bool) -> None:
        if yes or not (found.wanted or self._confirm_after is not None):
            return
        if not sys.stdin.isatty():
            raise Usage(
                "`cellmove drain` asks before it moves anything.",
                "There is no terminal to ask on.",
                "Add --yes if you are sure.",
            )
        stays = " Each is confirmed there; its old disks are deleted."
        click.echo(
            f"{len(found.wanted)} servers leave {scope.title} for {scope.to_cell.name}; each is "
            f"shut down for a moment.{stays if self._confirm_after is not None else ''}",
            err=True,
        )
        click.confirm("Go on?", abort=True, err=True)

    def _show(self, scope: Scope, wishes: Wishes, found: Found) -> Exit:
        from cellmove.draining.run import looked
        from cellmove.report.base import console
        from cellmove.report.drains import Foreseen
        from cellmove.report.live import shown

        with self._desk.interrupts() as interrupts:
            display = shown(console(sys.stderr), 0, as_json=False, quiet=True)
            work = self._work(scope, wishes, 0, interrupts, display)
            report = Foreseen(scope, found, looked(work, found))
        return self._desk.answer(report, report.exit_code)

    def _drain(self, scope: Scope, wishes: Wishes, found: Found, *, cordons: bool) -> Exit:
        from cellmove.draining.run import Drain
        from cellmove.interrupts import Interrupts
        from cellmove.report.base import console
        from cellmove.report.drains import Drained, emit_line
        from cellmove.report.live import shown

        number = self._desk.journal.open_drain(scope.key)
        cordoned = self._cordon(scope, number) if cordons else []
        options = self._options
        servers = len(found.wanted) + len(found.begun)
        display = shown(console(sys.stderr), servers, as_json=options.as_json, quiet=options.quiet)
        try:
            with Interrupts(display.say) as interrupts:
                work = self._work(scope, wishes, number, interrupts, display)
                drain = Drain(work, found)
                outcomes = drain.run()
        finally:
            display.end()
        given_up = self._closed(drain, number)
        with self._desk.cloud() as opened:
            found = self._look(opened, scope, wishes)
        drained = Drained(scope, number, outcomes, found, drain.stopped, given_up, cordoned)
        if options.as_json:
            emit_line(drained)
            return drained.exit_code
        return self._desk.answer(drained, drained.exit_code)

    def _closed(self, drain: Drain, number: int) -> str:
        """End the drain for all, unless somebody goes on; why it ended before its time."""
        if drain.broken:
            return f"The journal does not answer: {drain.broken}"
        if not drain.stopped:
            self._desk.journal.close_drain(number)
        return "More servers failed than --max-failures bears." if drain.given_up else ""

    def _work(
        self,
        scope: Scope,
        wishes: Wishes,
        number: int,
        interrupts: Interrupts,
        display: Guarded,
    ) -> Work:
        from cellmove.draining.tools import Holds, Tools
        from cellmove.draining.work import Work

        share = self._options.bwlimit // wishes.parallel
        limit = max(share, SHARES_FLOOR_BYTES) if self._options.bwlimit else 0

        def opens(
            request_id: str, progress: Callable[[Transfer], None]
        ) -> AbstractContextManager[OpenCloud]:
            return self._desk.cloud(request_id, progress=progress, bwlimit=limit)

        tools = Tools(self._desk.journal, opens, self._desk.actor, self._desk.notices, display.tell)
        return Work(tools, scope, wishes, number, Holds(interrupts))

    def _cordon(self, scope: Scope, number: int) -> list[str]:
        from cellmove.draining import cordon
        from cellmove.opening import signed_in

        session = signed_in(self._desk.config, f"req-{uuid.uuid4()}")
        compute = session.service("compute", cordon.MICROVERSION)
        return cordon.cordon(compute, scope.hosts, number)
