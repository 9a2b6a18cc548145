"""Every command: its arguments and its help. Nothing heavy is imported before one runs."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from cellmove.cli.audit import audit
from cellmove.cli.drain import drain
from cellmove.cli.options import Group, Options, bwlimit, compress
from cellmove.errors import CellmoveError, Exit, Usage

EXIT_CODES = """\b
Exit codes say what state the cloud is in:
  0  done                          4  failed, and something remains
  1  refused, nothing touched      5  stopped on request; resume goes on
  2  wrong usage                   6  some servers of several failed
  3  failed, wholly taken back     7  check, compare or audit found something"""

pass_options = click.make_pass_decorator(Options, ensure=True)


@click.group(
    cls=Group,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=False,
)
@click.version_option(package_name="cellmove", message="%(prog)s %(version)s")
def cellmove() -> None:
    """Move OpenStack servers from one Nova cell to another.

    \b
    A first move:
      cellmove check
      cellmove resize web-1 --to-cell cell2 --dry-run
      cellmove resize web-1 --to-cell cell2
      cellmove confirm web-1            (or: cellmove revert web-1)

    SERVER is a UUID, or a name that only one server bears; `-` reads them from standard
    input. What was begun is in the journal: a move that failed or was stopped goes on with `resume`
    or is taken back with `undo`.
    """  # noqa: D301 - click wants a real backspace


def _dry_run(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "Show the plan and what each step sees now; change nothing."
    return click.option("--dry-run", is_flag=True, help=text)(command)


_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_servers = click.argument("servers", metavar="SERVER...", nargs=-1, required=True)


@cellmove.command()
@click.argument("servers", metavar="[SERVER...]", nargs=-1)
@click.option("--flavor", metavar="FLAVOR", help="New flavor, by name or id; else it stays.")
@click.option("--to-host", metavar="HOST", help="Target hypervisor; else the best ones.")
@click.option("--to-cell", metavar="CELL", help="Target cell, by name or UUID; else any.")
@click.option("--cold", is_flag=True, help="Copy no disk while the guest runs.")
@click.option("--flatten", is_flag=True, help="Send what the disks lie on with them, as one file.")
@bwlimit
@compress
@click.option(
    "--on-failure",
    type=click.Choice(["undo", "stop"]),
    default="undo",
    show_default=True,
    help="Take a failed move back, or leave it to be resumed.",
)
@click.option(
    "--same-cell",
    type=click.Choice(["refuse", "nova"]),
    default="refuse",
    show_default=True,
    help="When the best host is in the server's own cell: refuse, or ask nova to do it and wait.",
)
@click.option("--explain", is_flag=True, help="Show every host, and why it is chosen or not.")
@_dry_run
@click.option("--out", metavar="FILE", help="With --dry-run: write the plan to this new file.")
@click.option("--plan", "planned", metavar="FILE", help="Do exactly this plan, or refuse.")
@click.option(
    "-y",
    "--yes",
    is_flag=True,
    expose_value=False,
    help="Taken as by every verb; resize never asks, for it can be taken back.",
)
@pass_options
def resize(options: Options, /, *, servers: tuple[str, ...], **asked: Any) -> Exit:
    """Move each SERVER into another cell, up to VERIFY_RESIZE.

    The disks of a running guest are copied while it runs. Then it is shut down, what it wrote last
    is copied, and it is started in the other cell. Its disks in the old one stay until `confirm`.
    With `-` for SERVER they are read from standard input, one a line.

    A plan that --out has written is refused once the cloud is no longer as it was.

    \b
    Examples:
      cellmove resize web-1 --to-host cmp2a --dry-run
      cellmove resize web-1 --flavor m1.large
      cellmove resize web-1 --to-cell cell2 --dry-run --explain --out web-1.json
      cellmove resize --plan web-1.json
    """  # noqa: D301 - click wants a real backspace
    wished = ("flavor", "to_host", "to_cell", "cold", "flatten")
    wish = {name: asked.pop(name) for name in wished}
    if asked["planned"] is None and not servers:
        raise click.UsageError("Missing argument 'SERVER...': name one, or a plan with --plan.")
    if asked["planned"] is not None and (any(wish.values()) or asked["out"]):
        raise click.UsageError("--plan goes without --flavor, --to-*, --cold, --flatten and --out.")
    if asked["out"] is not None and not asked["dry_run"]:
        raise click.UsageError("--out wants --dry-run.")
    options.sign_in_early(servers, wish["to_host"])
    from cellmove.cli import planning, work

    return work.resize(options, servers, wish=planning.Wish(**wish), **asked)


@cellmove.command()
@_servers
@_dry_run
@_yes
@pass_options
def confirm(options: Options, /, *, servers: tuple[str, ...], dry_run: bool, yes: bool) -> Exit:
    """Keep each SERVER where it is; delete it in the old cell.

    Deletes the old disks and records: there is no way back. On a terminal it asks first; without
    a terminal it wants --yes (a script must not hang, nor delete by accident).
    """
    options.sign_in_early(servers)
    from cellmove.cli import work

    return work.end(options, "confirm", servers, dry_run=dry_run, yes=yes)


@cellmove.command()
@_servers
@_dry_run
@_yes
@pass_options
def revert(options: Options, /, *, servers: tuple[str, ...], dry_run: bool, yes: bool) -> Exit:
    """Bring each SERVER back to its old cell, flavor and disk.

    Throws away what it wrote to its disk since the resize. On a terminal it asks first; without
    a terminal it wants --yes (a script must not hang, nor delete by accident).
    """
    options.sign_in_early(servers)
    from cellmove.cli import work

    return work.end(options, "revert", servers, dry_run=dry_run, yes=yes)


cellmove.add_command(drain)


@cellmove.command("list")
@click.option("--cell", metavar="CELL", help="Only of this cell, by name or UUID.")
@click.option("--host", metavar="HOST", help="Only of this hypervisor.")
@click.option("--project", metavar="PROJECT", help="Only of this project, by name or id.")
@pass_options
def servers(options: Options, /, **only: str | None) -> Exit:
    """List the servers of all cells, each once, as nova does.

    Newest first. A server that is resized into another cell is listed where it is now; the hidden
    copy is not listed. Left out are servers in no cell: being built, or never placed (cell0).
    """
    options.sign_in_early()
    from cellmove.cli import work

    return work.servers(options, **only)


@cellmove.command()
@click.argument("server")
@pass_options
def compare(options: Options, /, *, server: str) -> Exit:
    """Show what the two copies of SERVER say differently.

    Between a resize and its end both cells have its records. What each cell has for itself by
    design is not shown. Ends with 7 when there is a difference.
    """
    options.sign_in_early()
    from cellmove.cli import work

    return work.compare(options, server)


@cellmove.command()
@click.argument("move", required=False)
@bwlimit
@compress
@pass_options
def resume(options: Options, /, *, move: str | None) -> Exit:
    """Go on with a move that failed or was stopped.

    MOVE is a number of `cellmove moves`, or an id; without it, the only one that is open.
    """
    from cellmove.cli import work

    return work.resume(options, move)


@cellmove.command()
@click.argument("move")
@pass_options
def undo(options: Options, /, *, move: str) -> Exit:
    """Take back a move that failed or was stopped.

    Stops at the first thing that resists, and says what remains. A finished resize is not undone
    but reverted.
    """
    from cellmove.cli import work

    return work.undo(options, move)


@cellmove.command()
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N.")
@pass_options
def moves(options: Options, /, *, last: int | None) -> Exit:
    """List the moves in the journal, newest last."""
    from cellmove.cli import work

    return work.moves(options, last=last)


@cellmove.command()
@click.argument("move")
@pass_options
def show(options: Options, /, *, move: str) -> Exit:
    """Show a move step by step, and what to type next."""
    from cellmove.cli import work

    return work.show(options, move)


@cellmove.command()
@click.option("--server", metavar="SERVER", help="Only what is against a move of this server.")
@click.option("--flavor", metavar="FLAVOR", help="With --server: to this flavor.")
@click.option("--to-host", metavar="HOST", help="With --server: to this hypervisor.")
@click.option("--to-cell", metavar="CELL", help="With --server: to this cell.")
@pass_options
def check(options: Options, /, *, server: str | None, **wish: str | None) -> Exit:
    """See whether this machine can do its work, or whether a server can be moved.

    Looks at configuration, journal, databases and grants, services, bastion and every hypervisor;
    with --server at that server and all that a resize would need, and lists every reason against
    it at once. Changes nothing. Ends with 7 when something failed.
    """
    from cellmove.cli import work

    if server is not None:
        return work.check_server(options, server, **wish)
    if any(wish.values()):
        raise click.UsageError("--flavor, --to-host and --to-cell want --server.")
    return work.check(options)


cellmove.add_command(audit)


@cellmove.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_options
def completion(options: Options, /, *, shell: str) -> Exit:
    """Print the completion script of SHELL.

    \b
    bash: eval "$(cellmove completion bash)"
    zsh:  eval "$(cellmove completion zsh)"
    fish: cellmove completion fish | source
    """  # noqa: D301 - click wants a real backspace
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # click.Choice above
    script = found(cellmove, {}, "cellmove", "_CELLMOVE_COMPLETE").source()
    if options.as_json:
        from cellmove.report.base import emit
        from cellmove.report.scripts import Completion

        emit(Completion(shell, script), as_json=True)
    else:
        click.echo(script)
    return Exit.DONE


def main() -> NoReturn:
    """Entry point: run what was typed, and end with the code that says how the cloud stands."""
    ends_with: list[int] = []
    atexit.register(_end, ends_with)  # the first to be registered is the last to be called
    ends_with.append(run(sys.argv[1:]))
    sys.exit(ends_with[0])


def _end(ends_with: Sequence[int]) -> None:
    """End here and now: Python would take a thousand modules apart first, and all they hold.

    That is 30 ms, and 0.3 s more to look for garbage. Not when something cannot be written: of
    that Python complains itself.
    """
    with suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if ends_with:
            os._exit(ends_with[0])


def run(argv: Sequence[str]) -> int:
    """Run one command; errors are printed here and nowhere else."""
    options = Options()
    try:
        _require_text(argv)
        code = cellmove.main(list(argv), prog_name="cellmove", standalone_mode=False, obj=options)
        return int(code or 0)
    except click.UsageError as error:
        options.as_json |= "--json" in argv
        return _failed(options, _usage(error), error)
    except (KeyboardInterrupt, click.Abort) as error:
        stopped = CellmoveError("Stopped, as asked.", "Nothing was touched.")
        return _failed(options, stopped, error)
    except CellmoveError as error:
        return _failed(options, error, error)
    except Exception as error:
        return _failed(options, _defect(error), error)


def _require_text(argv: Sequence[str]) -> None:
    """Bytes that are no UTF-8 come as half characters, which nobody could print or look for.

    Raises:
        click.UsageError: there are some.
    """
    for word in argv:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise click.UsageError(f"Argument {word!a} is no UTF-8.")


def _failed(options: Options, said: CellmoveError, cause: BaseException) -> int:
    from cellmove.report.base import console, emit
    from cellmove.report.failures import Failure

    if options.debug:
        import traceback

        traceback.print_exception(cause)
    failure = Failure(said)
    if options.as_json:
        emit(failure, as_json=True)
    else:
        failure.print(console(sys.stderr))
    return int(said.exit_code)


def _usage(error: click.UsageError) -> Usage:
    command = error.ctx.command_path if error.ctx else "cellmove"
    return Usage(error.format_message(), do=f"See `{command} --help`.")


def _defect(error: Exception) -> CellmoveError:
    """What nobody foresaw; never from inside a move: there the conductor says how it stands."""
    return CellmoveError(
        "cellmove has a defect, or met something it does not know.",
        f"{type(error).__name__}: {error}",
        "Nothing was touched; --debug shows where it happened.",
    )
