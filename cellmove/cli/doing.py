"""Verbs that change something: all servers taken in, then one after the other moved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import click

from cellmove.cli.desk import Desk
from cellmove.draining.tries import Tries
from cellmove.errors import CellmoveError, Exit, Stopped
from cellmove.interrupts import Interrupts
from cellmove.journal import Entry, Verb
from cellmove.model import Move
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.report.downtime import downtime_seconds
from cellmove.report.moves import place
from cellmove.report.outcomes import Outcome, Outcomes
from cellmove.report.plans import Plan, Plans

Intake = Callable[[OpenCloud, str, Collection[str]], Move]
"""Takes a server in; hosts of these names were tried and are not to be chosen again."""


@dataclass(frozen=True, slots=True)
class Doing:
    """One verb for some servers."""

    desk: Desk
    verb: Verb
    intake: Intake
    take_back: bool = True
    hosts: int = 1
    """How many hosts are tried for a server, at most."""
    asks: bool = False
    dry_run: bool = False

    def carry_out(self, servers: Sequence[str]) -> Exit:
        """Take all in, then show or do; one server's refusal does not keep the others back."""
        with self.desk.cloud() as opened:
            taken = [self._taken_in(opened, server) for server in servers]
            if len(taken) == 1 and taken[0].error:
                raise taken[0].error
            if self.dry_run:
                report = _looked(opened, self.verb, taken)
                return self.desk.answer(report, report.exit_code)
            if self.asks:
                _ask(self.verb, taken)
            outcomes = self._each(opened, taken)
        if len(outcomes) == 1 and outcomes[0].error:
            raise outcomes[0].error
        result = Outcomes(self.verb, outcomes)
        return self.desk.answer(result, result.exit_code)

    def _taken_in(self, opened: OpenCloud, asked: str) -> Outcome:
        try:
            self.desk.refuse_if_under_way(asked, dry_run=self.dry_run)
            return Outcome(self.verb, asked, self.intake(opened, asked, ()))
        except CellmoveError as error:
            return Outcome(self.verb, asked, error=error)

    def _each(self, opened: OpenCloud, taken: Sequence[Outcome]) -> list[Outcome]:
        """One after the other; what stops one by request stops the rest."""
        outcomes: list[Outcome] = []
        seen: set[str] = set()
        stopped: Stopped | None = None
        with self.desk.interrupts() as interrupts:
            for each in taken:
                if each.move is None or stopped:
                    outcomes.append(replace(each, error=each.error or _not_begun(stopped)))
                    continue
                if each.move.server in seen:
                    continue
                seen.add(each.move.server)
                outcome = self._tried(opened, interrupts, each)
                outcomes.append(outcome)
                if isinstance(outcome.error, Stopped):
                    stopped = outcome.error
        return outcomes

    def _tried(self, opened: OpenCloud, interrupts: Interrupts, taken: Outcome) -> Outcome:
        """On the best host, then on its alternates, as long as no user has felt anything."""
        assert taken.move is not None  # refused ones never come here
        tries = Tries(
            self.desk.journal,
            self.verb,
            conduct=partial(self._conduct, opened, interrupts),
            another=partial(self.intake, opened, taken.asked),
            most=self.hosts,
            remark=self.desk.remark,
        )
        done = tries.of(taken.move)
        outcome = replace(taken, move=done.move, number=done.number, error=done.error)
        if done.error:
            return outcome
        entry = self.desk.journal.entry(str(done.number))
        return replace(outcome, downtime_seconds=downtime_seconds(entry))

    def _conduct(self, opened: OpenCloud, interrupts: Interrupts, entry: Entry) -> None:
        conduct(self.desk, opened, entry, interrupts, take_back=self.take_back)


def conduct(
    desk: Desk, opened: OpenCloud, entry: Entry, interrupts: Interrupts, *, take_back: bool
) -> None:
    """Run a move of the journal from where it is."""
    steps = plan(entry.verb, entry.move)
    with desk.conductor(opened.cloud, entry, interrupts) as conductor:
        conductor.conduct(entry.number, steps, take_back=take_back)


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


def _not_begun(stopped: Stopped | None) -> Stopped:
    return Stopped("Not begun.", stopped.what if stopped else "", "Run the command again for it.")
