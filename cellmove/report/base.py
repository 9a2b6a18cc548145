"""How answers are printed: standard output, a console, tables, units."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, Final, Protocol, TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

VERSION: Final = 1
"""Of the JSON documents: within a version keys are added, never renamed or removed."""
PIPE_COLUMNS: Final = 160
"""How wide a line may be when no terminal says so."""

Document = dict[str, Any]


class Report(Protocol):
    """An answer in both forms."""

    def document(self) -> Document:
        """The answer as JSON has it, without `version`."""
        ...

    def print(self, console: Console) -> None:
        """The answer for people."""
        ...


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise it: by default rich ends the process, be it in the middle of a step."""
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Whatever a name, a row or a host's answer holds: none of it moves the cursor."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = segment.text.split("\n")
                yield segment._replace(text="\n".join(one_line(line) for line in lines))


def one_line(text: str) -> str:
    """What is somebody else's, a name, on one line and without any of what terminals obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def console(file: TextIO) -> Console:
    """A console that takes text as it is; colours as NO_COLOR and the terminal want them."""
    return _Console(
        file=file,
        width=None if file.isatty() else PIPE_COLUMNS,
        highlight=False,
        emoji=False,
        markup=False,
    )


def emit(report: Report, *, as_json: bool) -> None:
    """Print the answer: nothing else of a command goes to standard output."""
    try:
        if as_json:
            sys.stdout.write(as_text(report))
        else:
            report.print(console(sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        # The exit code still says how the cloud stands, be it that a move was made.
        if not isinstance(error, BrokenPipeError):  # there, nobody wants to read more
            errors = console(sys.stderr)
            errors.print(f"Error: Standard output cannot be written: {error}. The answer is:")
            report.print(errors)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_text(report: Report) -> str:
    """The JSON document."""
    return json.dumps({"version": VERSION} | report.document(), indent=2) + "\n"


def table(*columns: str) -> Table:
    """A table that folds long values instead of cutting them: an id is never shortened."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column,
            overflow="fold",
            justify="right" if column == "#" else "left",
            no_wrap=column == "server",
        )
    return made


def facts() -> Table:
    """Names on the left, values on the right."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    return made


def size(size_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
