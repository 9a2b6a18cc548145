"""Planning resizes: what was wished, looked at without a touch, put aside as a file, taken up."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cellmove.cli.desk import Desk
from cellmove.errors import CellmoveError, Exit, Refused, Usage
from cellmove.intake import intake_resize
from cellmove.intake.estimate import estimate
from cellmove.intake.explained import Explained
from cellmove.intake.planfile import Frozen, freeze, thaw, write
from cellmove.journal import Entry, State
from cellmove.model import Move
from cellmove.opening import OpenCloud
from cellmove.plan import plan
from cellmove.report.base import console
from cellmove.report.explain import print_explained
from cellmove.report.outcomes import Outcome
from cellmove.report.plans import Plan, Plans

LEARNED_FROM = 100
"""How many of the journal's moves are read to foresee how long the next one takes."""

TakeIn = Callable[[OpenCloud, str, Collection[str], Explained | None], Move]
"""Takes a server in; hosts of these names are not to be chosen."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a resize is to be."""

    flavor: str | None
    to_host: str | None
    to_cell: str | None
    cold: bool
    flatten: bool = False

    def taker(self, desk: Desk) -> TakeIn:
        """Takes servers in with this wish."""

        def take_in(
            opened: OpenCloud, asked: str, without: Collection[str], explained: Explained | None
        ) -> Move:
            return intake_resize(
                opened.cloud,
                asked,
                flavor=self.flavor,
                to_host=self.to_host,
                to_cell=self.to_cell,
                actor=desk.actor(opened),
                request_id=opened.request_id,
                cold=self.cold,
                flatten=self.flatten,
                without=without,
                explained=explained,
                remark=desk.remark,
            )

        return take_in


def from_file(desk: Desk, frozen: Frozen) -> TakeIn:
    """Takes the server of a plan in, exactly as planned.

    Raises (when it is called):
        Drifted: the cloud is no longer as it was when it was planned.
        Refused: the plan was carried out already.
    """
    planned = frozen.move

    def take_in(
        opened: OpenCloud, _: str, __: Collection[str], explained: Explained | None
    ) -> Move:
        used = [each for each in history(desk, planned.server) if each.move.id == planned.id]
        if used and used[0].state is not State.TAKEN_BACK:
            raise Refused(
                f"This plan of {planned.name} was carried out already.",
                f"It is move {used[0].number}, which is {used[0].state.value}.",
                "Make a new one with --dry-run --out.",
            )

        def again(_frozen: Frozen) -> Move:
            host = planned.target
            how = {"cold": frozen.cold, "flatten": frozen.flatten}
            wish = Wish(frozen.flavor, host.name, host.cell.uuid, **how)
            return wish.taker(desk)(opened, planned.server, (), explained)

        move = thaw(opened.cloud, frozen, again, touched_by_us=bool(used))
        # What was taken back keeps its place in the journal: the next try is another move.
        if used:
            return replace(move, id=str(uuid.uuid4()), migration=str(uuid.uuid4()))
        return move

    return take_in


def only_of(frozen: Frozen, asked: Sequence[str]) -> list[str]:
    """The server of the plan, which is the one that was asked for, if any was.

    Raises:
        Usage: another one was.
    """
    move = frozen.move
    if any(each not in (move.server, move.name) for each in asked):
        raise Usage(
            "The plan is of another server.",
            f"It is of {move.name} ({move.server}).",
            "Leave SERVER away: the plan names it.",
        )
    return [move.server]


def look(
    desk: Desk,
    take_in: TakeIn,
    servers: Sequence[str],
    *,
    wish: Wish | None = None,
    explain: bool = False,
    out: Path | None = None,
) -> Exit:
    """Answer what a resize would do, and put it aside as a file if one is named."""
    with desk.cloud() as opened:
        choices = [Explained() for _ in servers]
        taken = [
            _taken_in(desk, opened, take_in, server, choice if explain else None)
            for server, choice in zip(servers, choices, strict=True)
        ]
        told = [each for each in choices if each.told]
        if len(taken) == 1 and taken[0].error and not told:
            raise taken[0].error
        before = history(desk, last=LEARNED_FROM)
        plans = [
            Plan(
                each.move,
                [(step, step.inspect(opened.cloud)) for step in plan("resize", each.move)],
                estimate(each.move, before, desk.bwlimit),
            )
            for each in taken
            if each.move
        ]
        if out is not None and plans and wish is not None:
            made = plans[0].move
            how = {"cold": wish.cold, "flatten": wish.flatten}
            write(freeze(opened.cloud, made, asked=wish.flavor, **how), out)
    refused = [each for each in taken if each.error]
    report = Plans("resize", plans, refused, told, str(out) if out and plans else "")
    return desk.answer(report, report.exit_code)


def explaining(
    take_in: TakeIn, *, explain: bool
) -> Callable[[OpenCloud, str, Collection[str]], Move]:
    """The same for who goes on to do it: how a host was chosen is told on standard error first."""

    def first_told(opened: OpenCloud, asked: str, without: Collection[str]) -> Move:
        explained = Explained() if explain and not without else None
        try:
            return take_in(opened, asked, without, explained)
        finally:
            if explained is not None:
                print_explained(console(sys.stderr), [explained])

    return first_told


def history(desk: Desk, server: str | None = None, last: int | None = None) -> list[Entry]:
    """The journal's moves (of one server, or the last so many), oldest first.

    No journal is made only to look into it.
    """
    place = str(desk.journal_place)
    if "://" not in place and not Path(place).exists():
        return []
    return desk.journal.entries(server=server, last=last)


def _taken_in(
    desk: Desk, opened: OpenCloud, take_in: TakeIn, asked: str, explained: Explained | None
) -> Outcome:
    try:
        desk.refuse_if_under_way(asked, dry_run=True)
        return Outcome("resize", asked, take_in(opened, asked, (), explained))
    except CellmoveError as error:
        return Outcome("resize", asked, error=error)
