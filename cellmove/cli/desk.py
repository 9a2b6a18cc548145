"""What the commands work with: configuration, journal, cloud, and somebody to tell."""

from __future__ import annotations

import logging
import os
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from cellmove.cli.options import Options
from cellmove.cloud import Cloud
from cellmove.conductor import Conductor
from cellmove.config import Config, load, require_database
from cellmove.errors import Exit, Refused, Stopped, Usage
from cellmove.intake import Actor
from cellmove.intake.quota import Quota
from cellmove.interrupts import Interrupts
from cellmove.journal import Entry, Journal, Mark, default_path
from cellmove.kept import has_password
from cellmove.model import Transfer
from cellmove.notices import Notices, Sender, open_sender
from cellmove.opening import OpenCloud, open_cloud
from cellmove.plan import plan
from cellmove.progress import Guarded, display
from cellmove.report.base import Report, console, emit
from cellmove.steps.base import Step


class Desk:
    """One command's."""

    def __init__(self, options: Options) -> None:
        """Nothing is read yet."""
        self._options = options
        _hush(debug=options.debug)

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises:
            Refused: it cannot be used.
        """
        return load(self._options.config, os.environ)

    @cached_property
    def display(self) -> Guarded:
        """Where progress and messages go."""
        return display(console(sys.stderr), quiet=self._options.quiet)

    @cached_property
    def journal(self) -> Journal:
        """The journal; made when there is none.

        Raises:
            Usage: --journal bears a password.
            Unreachable: it cannot be opened.
        """
        if has_password(self._options.journal or ""):
            raise Usage(
                "The URL of --journal bears a password.",
                "All users of this machine can read it (`ps`).",
                "Leave it out, and name `password_file` in [journal] of the configuration.",
            )
        settings = self.config.journal
        return Journal(
            self.journal_place, password=settings.password, lease_seconds=settings.lease_seconds
        )

    @property
    def journal_place(self) -> Path | str:
        """Where the journal is or will be."""
        return self._options.journal or self.config.journal.url or default_path(os.environ)

    @property
    def bwlimit(self) -> int:
        """Bytes a second of each copy of a disk, at most; 0: as fast as it can."""
        return self._options.bwlimit

    def refuse_if_under_way(self, asked: str, *, dry_run: bool) -> None:
        """Say which command goes on, rather than that the server is locked (by us).

        A dry run does not make a journal only to look into it.

        Raises:
            Refused: an earlier move of this server is open.
        """
        place = str(self.journal_place)
        if dry_run and "://" not in place and not Path(place).exists():
            return
        for entry in self.journal.entries(only_open=True, brief=True):
            if asked in (entry.move.server, entry.move.name):
                raise self.journal.refusal(entry)

    @contextmanager
    def cloud(
        self,
        request_id: str | None = None,
        *,
        progress: Callable[[Transfer], None] | None = None,
        bwlimit: int | None = None,
    ) -> Iterator[OpenCloud]:
        """The cloud; every service's log will bear the request id, a new one if none is given.

        `progress` is told of copies, else the display is; `bwlimit` instead of the command's.
        """
        require_database(self.config, os.environ)
        early = None if request_id else self._options.signing_in
        request_id = request_id or (early.request_id if early else f"req-{uuid.uuid4()}")
        with open_cloud(
            self.config,
            request_id=request_id,
            progress=progress or self.display.transfer,
            bwlimit=self._options.bwlimit if bwlimit is None else bwlimit,
            compress=self._options.compress,
            signing_in=early.session if early else None,
            ground=early.ground if early else None,
        ) as opened:
            yield opened

    def actor(self, opened: OpenCloud) -> Actor:
        """Who we are in the records."""
        nova, who = self.config.nova, opened.who
        return Actor(
            who.user_id,
            who.project_id,
            domain_template=nova.instance_name_template,
            policy=opened.policy,
            quota=Quota(nova.quota_usage, nova.quota_cores, nova.quota_ram_mb),
            multipliers=self.config.scheduler,
            cross_az_attach=nova.cross_az_attach,
        )

    @contextmanager
    def conductor(self, cloud: Cloud, entry: Entry, interrupts: Interrupts) -> Iterator[Conductor]:
        """A conductor that holds the move's lease and shows how far it is.

        Raises:
            Refused: another process works on the move.
        """
        turn = threading.Lock()

        def watch(step: Step, mark: Mark) -> None:
            with turn:
                if mark in (Mark.FAILED, Mark.UNDOING):
                    interrupts.hold()
                self.display.step(step, mark)
                for tell in notices:
                    tell(step, mark)

        with (
            self.journal.lease(entry.move.id) as lease,
            self.notices(cloud, entry) as notices,
        ):

            def should_stop() -> bool:
                return interrupts.should_stop() or lease.lost

            title = f"Move {entry.number}: {entry.verb} {entry.move.name}"
            self.display.begin(title, plan(entry.verb, entry.move))
            interrupts.release()
            try:
                yield Conductor(self.journal, cloud, watch, should_stop, abreast=True)
            except KeyboardInterrupt:
                raise Stopped(
                    "Stopped, as asked.",
                    "The journal covers what was begun.",
                    f"See `cellmove show {entry.number}`.",
                ) from None
            finally:
                self.display.end()

    @contextmanager
    def notices(self, cloud: Cloud, entry: Entry) -> Iterator[list[Notices]]:
        """Who tells the cloud's listeners of the steps; nobody unless that is configured.

        What keeps them from telling is said, and keeps nobody from moving.
        """
        sender: Sender | None = None
        try:
            settings = self.config.notifications
            if url := settings.url():
                sender = open_sender(url, settings.settings_file, self.remark)
        except Refused as error:
            self.remark(str(error))
        if sender is None:
            yield []
            return
        try:
            yield [Notices(cloud, entry.verb, entry.move, sender)]
        finally:
            sender.close()

    def remark(self, text: str) -> None:
        """Say what is worth knowing while one waits, unless nobody wants to."""
        if not self._options.quiet:
            self.display.say(text)

    def interrupts(self) -> Interrupts:
        """Signals that ask instead of killing."""
        return Interrupts(self.display.say)

    def answer(self, report: Report, code: Exit = Exit.DONE) -> Exit:
        """Print the command's answer."""
        emit(report, as_json=self._options.as_json)
        return code


def _hush(*, debug: bool) -> None:
    """What libraries log and warn of is not for an operator: they even log tracebacks."""
    if debug:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
