"""The options that every command takes, before its name or after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cellmove.cli.rate import rate

if TYPE_CHECKING:
    from cellmove.cli.early import SigningIn


@dataclass(slots=True)
class Options:
    """How a command was called."""

    config: str | None = None
    journal: str | None = None
    as_json: bool = False
    debug: bool = False
    quiet: bool = False
    bwlimit: int = 0
    """Bytes a second of each copy of a disk, at most; 0: as fast as it can."""
    compress: bool = False
    """Whether copies are packed where that makes them smaller."""
    signing_in: SigningIn | None = None
    """A sign-in that is under way already."""

    def sign_in_early(self, servers: Sequence[str] = (), host: str | None = None) -> None:
        """Begin to sign in, before all that the command needs is imported.

        And to open the way to the first of these servers, and to the host that it shall come to.
        """
        from cellmove.cli import early

        self.signing_in = early.begin(self.config)
        if self.signing_in and servers and servers[0] != "-":
            self.signing_in.foresee(servers[0], host)


def shared(*, shown: bool) -> list[click.Option]:
    """Fresh ones for one command; a group shows them in its help, a command only --json."""

    def option(names: Sequence[str], *, hidden: bool = not shown, **settings: Any) -> click.Option:
        return click.Option(names, callback=_keep, expose_value=False, hidden=hidden, **settings)

    return [
        option(
            ["--config"],
            metavar="FILE",
            help="Configuration; else $CELLMOVE_CONFIG, ~/.config/cellmove/cellmove.toml, "
            "/etc/cellmove/cellmove.toml.",
        ),
        option(
            ["--journal"],
            metavar="FILE|URL",
            help="Where moves are written down; else as configured, else "
            "~/.local/state/cellmove/journal.db.",
        ),
        option(
            ["--json", "as_json"],
            is_flag=True,
            hidden=False,
            help="Answer with one JSON document.",
        ),
        option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        option(["-q", "--quiet"], is_flag=True, help="Show no progress."),
    ]


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    """Once said, it holds: the same option of the group does not undo that of the command."""
    if value and option.name:
        setattr(context.find_object(Options) or context.ensure_object(Options), option.name, value)


bwlimit = click.option(
    "--bwlimit",
    metavar="RATE",
    type=rate,
    callback=_keep,
    expose_value=False,
    help="Copy disks no faster than this, e.g. 30M (bytes a second).",
)


compress = click.option(
    "--compress",
    is_flag=True,
    callback=_keep,
    expose_value=False,
    help="Pack what is copied where that makes it smaller: for slow links.",
)


class Command(click.Command):
    """A command that takes the shared options."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += shared(shown=False)


class Group(click.Group):
    """The group of all commands; lists them in the order in which they are declared."""

    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params = [*shared(shown=True), *self.params]

    def list_commands(self, context: click.Context) -> list[str]:
        """Not by name: in the order of an operator's day."""
        return list(self.commands)
