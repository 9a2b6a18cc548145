"""What each command does: parse, take in, plan, conduct, report."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from cellmove import check as checks
from cellmove.cli.asked import servers_of
from cellmove.cli.desk import Desk
from cellmove.cli.doing import Doing, conduct
from cellmove.cli.options import Options
from cellmove.cli.planning import Wish, explaining, from_file, look, only_of
from cellmove.cli.samecell import REFUSE, by_nova, within_cell
from cellmove.errors import Exit, Refused, Usage
from cellmove.intake import copies, intake_confirm, intake_resize, intake_revert, planfile
from cellmove.intake.listing import listing
from cellmove.intake.resize import MOST_HOSTS
from cellmove.journal import Entry, State, Verb
from cellmove.model import Move
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.report.checks import Checked, CheckedServer
from cellmove.report.downtime import downtime_seconds
from cellmove.report.history import Moves, Shown
from cellmove.report.moves import next_commands
from cellmove.report.outcomes import Outcome, Outcomes, TakenBack
from cellmove.report.servers import Comparison, Servers


def resize(
    options: Options,
    asked: Sequence[str],
    *,
    wish: Wish,
    on_failure: str,
    dry_run: bool,
    explain: bool,
    out: str | None,
    planned: str | None,
    same_cell: str,
) -> Exit:
    """Move servers to VERIFY_RESIZE in another cell."""
    desk = Desk(options)
    take_back = on_failure == "undo"
    if planned is not None:
        frozen = planfile.read(Path(planned))
        servers, take_in, hosts = only_of(frozen, asked), from_file(desk, frozen), 1
    else:
        servers, take_in = servers_of(asked), wish.taker(desk)
        hosts = MOST_HOSTS if take_back and not wish.to_host else 1
    if len(servers) != 1 and (out or same_cell != REFUSE):
        option = "--out" if out else "--same-cell"
        raise Usage(f"{option} takes one server.", f"{len(servers)} were named.", "Name one.")
    if out:
        planfile.vacant(Path(out))
    intake = explaining(take_in, explain=explain)
    try:
        if dry_run:
            place = Path(out) if out else None
            return look(desk, take_in, servers, wish=wish, explain=explain, out=place)
        doing = Doing(desk, "resize", intake, take_back=take_back, hosts=hosts)
        return doing.carry_out(servers)
    except Refused as error:
        found = within_cell(error)
        if same_cell == REFUSE or found is None:
            raise
        return by_nova(desk, servers[0], wish, found, dry_run=dry_run)


def end(options: Options, verb: Verb, servers: Sequence[str], *, dry_run: bool, yes: bool) -> Exit:
    """Confirm or revert servers."""
    asks = not (dry_run or yes)
    if asks and not sys.stdin.isatty():
        raise Usage(
            f"`cellmove {verb}` asks before it deletes anything.",
            "There is no terminal to ask on.",
            "Add --yes if you are sure.",
        )
    desk = Desk(options)
    take_in = intake_confirm if verb == "confirm" else intake_revert

    def intake(opened: OpenCloud, asked: str, _without: Collection[str]) -> Move:
        return take_in(opened.cloud, asked, actor=desk.actor(opened), request_id=opened.request_id)

    return Doing(desk, verb, intake, asks=asks, dry_run=dry_run).carry_out(servers_of(servers))


def resume(options: Options, key: str | None) -> Exit:
    """Go on with a move: forward, or back when its undo was begun."""
    desk = Desk(options)
    entry = desk.journal.entry(key) if key else _only_open(desk)
    if not entry.is_open:
        raise Refused(
            f"Move {entry.number} cannot be resumed.",
            f"It is {entry.state.value}.",
            "`cellmove moves` lists those that are open.",
        )
    if entry.state is State.UNDOING:
        return _undo(desk, entry)
    outcome = Outcome(entry.verb, entry.move.server, entry.move, entry.number)
    with desk.cloud(entry.move.request_id) as opened, desk.interrupts() as interrupts:
        conduct(desk, opened, entry, interrupts, take_back=False)
    down = downtime_seconds(desk.journal.entry(entry.move.id))
    return desk.answer(Outcomes("resume", [replace(outcome, downtime_seconds=down)]))


def undo(options: Options, key: str) -> Exit:
    """Take a move back."""
    desk = Desk(options)
    entry = desk.journal.entry(key)
    if not entry.is_open:
        back = [each for each in next_commands(entry, _later(desk, entry)) if " revert " in each]
        raise Refused(
            f"Move {entry.number} cannot be undone.",
            f"It is {entry.state.value}.",
            f"To bring the server back, run `{back[0]}`." if back else "There is nothing to do.",
        )
    return _undo(desk, entry)


def moves(options: Options, *, last: int | None) -> Exit:
    """List the journal."""
    desk = Desk(options)
    return desk.answer(Moves(desk.journal.entries(brief=True, last=last), desk.journal.where))


def show(options: Options, key: str) -> Exit:
    """One move of the journal."""
    desk = Desk(options)
    entry = desk.journal.entry(key)
    names = [step.name for step in plan(entry.verb, entry.move)]
    foreign = [event.step for event in entry.events if event.step]
    return desk.answer(Shown(entry, list(dict.fromkeys(names + foreign)), _later(desk, entry)))


def servers(options: Options, *, cell: str | None, host: str | None, project: str | None) -> Exit:
    """List the servers of all cells."""
    desk = Desk(options)
    with desk.cloud() as opened:
        project_id = None if project is None else opened.project_id(project)
        found = listing(opened.cloud, cell=cell, host=host, project_id=project_id)
    return desk.answer(Servers(found))


def compare(options: Options, server: str) -> Exit:
    """What differs between a server's two copies."""
    desk = Desk(options)
    with desk.cloud() as opened:
        report = Comparison(copies.compare(opened.cloud, server))
    return desk.answer(report, report.exit_code)


def check(options: Options) -> Exit:
    """Whether this machine can do its work."""
    desk = Desk(options)
    findings = checks.run(lambda: desk.config, lambda: desk.journal, desk.remark)
    report = Checked(findings)
    return desk.answer(report, report.exit_code)


def check_server(options: Options, server: str, **wish: str | None) -> Exit:
    """Every reason for which a server could not be moved."""
    desk = Desk(options)
    with desk.cloud() as opened:

        def intake(asked: str) -> Move:
            desk.refuse_if_under_way(asked, dry_run=True)
            actor, request_id = desk.actor(opened), opened.request_id
            return intake_resize(
                opened.cloud,
                asked,
                flavor=wish["flavor"],
                to_host=wish["to_host"],
                to_cell=wish["to_cell"],
                actor=actor,
                request_id=request_id,
            )

        report = CheckedServer(checks.look(opened.cloud, server, intake))
    return desk.answer(report, report.exit_code)


def _undo(desk: Desk, entry: Entry) -> Exit:
    steps = plan(entry.verb, entry.move)
    with (
        desk.cloud(entry.move.request_id) as opened,
        desk.interrupts() as interrupts,
        desk.conductor(opened.cloud, entry, interrupts) as conductor,
    ):
        interrupts.hold()
        conductor.undo(desk.journal.entry(entry.move.id), steps)
    return desk.answer(TakenBack(desk.journal.entry(entry.move.id)))


def _later(desk: Desk, entry: Entry) -> list[Entry]:
    """The moves of the same server after this one."""
    return [e for e in desk.journal.entries(server=entry.move.server) if e.number > entry.number]


def _only_open(desk: Desk) -> Entry:
    found = desk.journal.entries(only_open=True, brief=True)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Refused("No move is open: there is nothing to resume.", do="See `cellmove moves`.")
    listed = ", ".join(f"{e.number} ({e.verb} {e.move.name})" for e in found)
    raise Refused("Several moves are open.", f"{listed}.", "Name one: `cellmove resume MOVE`.")
