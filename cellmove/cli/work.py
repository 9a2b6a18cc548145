"""What each command does: parse, take in, plan, conduct, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import click

from cellmove import check as checks
from cellmove.cli.desk import Desk
from cellmove.cli.options import Options
from cellmove.errors import CellmoveError, Exit, Refused, Stopped, Usage
from cellmove.intake import intake_confirm, intake_resize, intake_revert
from cellmove.interrupts import Interrupts
from cellmove.journal import Entry, State, Verb
from cellmove.model import Move
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.report.checks import Checked
from cellmove.report.history import Moves, Shown
from cellmove.report.moves import next_commands, place
from cellmove.report.outcomes import Outcome, Outcomes, TakenBack
from cellmove.report.plans import Plan, Plans

Intake = Callable[[OpenCloud, str], Move]


def resize(
    options: Options,
    server: str,
    *,
    flavor: str | None,
    to_host: str | None,
    to_cell: str | None,
    on_failure: str,
    dry_run: bool,
) -> Exit:
    """Move a server to VERIFY_RESIZE in another cell."""
    desk = Desk(options)

    def intake(opened: OpenCloud, asked: str) -> Move:
        return intake_resize(
            opened.cloud,
            asked,
            flavor=flavor,
            to_host=to_host,
            to_cell=to_cell,
            actor=desk.actor(opened),
            request_id=opened.request_id,
        )

    take_back = on_failure == "undo"
    return _carry_out(desk, "resize", [server], intake, take_back=take_back, dry_run=dry_run)


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

    def intake(opened: OpenCloud, asked: str) -> Move:
        return take_in(opened.cloud, asked, actor=desk.actor(opened), request_id=opened.request_id)

    return _carry_out(desk, verb, servers, intake, asks=asks, dry_run=dry_run)


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
        _conduct(desk, opened, entry, interrupts, take_back=False)
    return desk.answer(Outcomes("resume", [outcome]))


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


def moves(options: Options) -> Exit:
    """List the journal."""
    desk = Desk(options)
    return desk.answer(Moves(desk.journal.entries(), desk.journal.where))


def show(options: Options, key: str) -> Exit:
    """One move of the journal."""
    desk = Desk(options)
    entry = desk.journal.entry(key)
    names = [step.name for step in plan(entry.verb, entry.move)]
    foreign = [event.step for event in entry.events if event.step]
    return desk.answer(Shown(entry, list(dict.fromkeys(names + foreign)), _later(desk, entry)))


def check(options: Options) -> Exit:
    """Whether this machine can do its work."""
    desk = Desk(options)
    findings = checks.run(lambda: desk.config, lambda: desk.journal, desk.remark)
    report = Checked(findings)
    return desk.answer(report, report.exit_code)


def _carry_out(
    desk: Desk,
    verb: Verb,
    servers: Sequence[str],
    intake: Intake,
    *,
    take_back: bool = True,
    asks: bool = False,
    dry_run: bool,
) -> Exit:
    """Take all servers in, then show or do; one server's refusal does not keep the others back."""
    with desk.cloud() as opened:
        taken = [_taken_in(desk, verb, opened, s, intake, dry_run=dry_run) for s in servers]
        if len(taken) == 1 and taken[0].error:
            raise taken[0].error
        if dry_run:
            report = _looked(opened, verb, taken)
            return desk.answer(report, report.exit_code)
        if asks:
            _ask(verb, taken)
        outcomes = _each(desk, opened, taken, take_back=take_back)
    if len(outcomes) == 1 and outcomes[0].error:
        raise outcomes[0].error
    result = Outcomes(verb, outcomes)
    return desk.answer(result, result.exit_code)


def _taken_in(
    desk: Desk, verb: Verb, opened: OpenCloud, asked: str, intake: Intake, *, dry_run: bool
) -> Outcome:
    try:
        desk.refuse_if_under_way(asked, dry_run=dry_run)
        return Outcome(verb, asked, intake(opened, asked))
    except CellmoveError as error:
        return Outcome(verb, asked, error=error)


def _looked(opened: OpenCloud, verb: Verb, taken: Sequence[Outcome]) -> Plans:
    plans = [
        Plan(each.move, [(s, s.inspect(opened.cloud)) for s in plan(verb, each.move)])
        for each in taken
        if each.move
    ]
    return Plans(verb, plans, [each for each in taken if each.error])


def _ask(verb: Verb, taken: Sequence[Outcome]) -> None:
    """On the terminal, naming what will be gone."""
    going = [each.move for each in taken if each.move]
    if not going:
        return
    for move in going:
        if verb == "confirm":
            text = f"deletes its old disks and records on {place(move.source)}"
        else:
            text = f"throws away what it wrote on {place(move.target)} since the resize"
        click.echo(f"{verb} {move.name} ({move.server}): {text}.", err=True)
    click.confirm("There is no way back. Go on?", abort=True, err=True)


def _each(
    desk: Desk, opened: OpenCloud, taken: Sequence[Outcome], *, take_back: bool
) -> list[Outcome]:
    """One after the other; what stops one by request stops the rest."""
    outcomes: list[Outcome] = []
    seen: set[str] = set()
    stopped: Stopped | None = None
    with desk.interrupts() as interrupts:
        for each in taken:
            if each.move is None or stopped:
                outcomes.append(replace(each, error=each.error or _not_begun(stopped)))
                continue
            if each.move.server in seen:
                continue
            seen.add(each.move.server)
            outcome = _one(desk, opened, interrupts, each, each.move, take_back=take_back)
            outcomes.append(outcome)
            if isinstance(outcome.error, Stopped):
                stopped = outcome.error
    return outcomes


def _one(
    desk: Desk,
    opened: OpenCloud,
    interrupts: Interrupts,
    taken: Outcome,
    move: Move,
    *,
    take_back: bool,
) -> Outcome:
    number: int | None = None
    try:
        number = desk.journal.open_move(taken.verb, move)
        entry = desk.journal.entry(str(number))
        _conduct(desk, opened, entry, interrupts, take_back=take_back)
    except CellmoveError as error:
        return replace(taken, number=number, error=error)
    return replace(taken, number=number)


def _not_begun(stopped: Stopped | None) -> Stopped:
    return Stopped("Not begun.", stopped.what if stopped else "", "Run the command again for it.")


def _conduct(
    desk: Desk, opened: OpenCloud, entry: Entry, interrupts: Interrupts, *, take_back: bool
) -> None:
    steps = plan(entry.verb, entry.move)
    with desk.conductor(opened.cloud, entry, interrupts) as conductor:
        conductor.conduct(entry.number, steps, take_back=take_back)


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
    found = [entry for entry in desk.journal.entries() if entry.is_open]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Refused("No move is open: there is nothing to resume.", do="See `cellmove moves`.")
    listed = ", ".join(f"{e.number} ({e.verb} {e.move.name})" for e in found)
    raise Refused("Several moves are open.", f"{listed}.", "Name one: `cellmove resume MOVE`.")
