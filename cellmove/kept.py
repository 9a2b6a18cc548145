"""Secrets that the configuration only names: kept in a file, or printed by a command."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cellmove.errors import Refused

COMMAND_TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Where:
    """What a secret is called, for the words of a refusal."""

    name: str
    """At the beginning of a sentence: `The database's password`."""
    key: str
    """What its keys begin with: `password` of `password_file` and `password_command`."""
    section: str

    def told(self, way: str) -> str:
        """The key that names the `file` or the `command`."""
        return f"`{self.key}_{way}` in [{self.section}]"


def kept(where: Where, file: str, command: Sequence[str]) -> str | None:
    """The first line of the file, or else of what the command prints; None when neither is named.

    Raises:
        Refused: the file is not there or open to everybody, the command fails, or the line is
            empty. Neither the secret nor the command's arguments are in the words.
    """
    if file:
        return _read(Path(file), where)
    return _asked(command, where) if command else None


def has_password(url: str) -> bool:
    """Whether a URL bears one, for all to read who read the URL."""
    try:
        return "://" in url and urllib.parse.urlsplit(url).password is not None
    except ValueError:  # no URL: it may still hold one
        return "@" in url


def others_may_read(path: Path) -> bool:
    """Whether those may read a file who are neither its owner nor in its group."""
    return bool(path.stat().st_mode & stat.S_IROTH)


def _read(path: Path, where: Where) -> str:
    what = f"{where.name} cannot be read."
    try:
        if others_may_read(path):
            seen = f"Everybody may read {path}, so it is no secret."
            raise Refused(what, seen, f"Run `chmod o= {shlex.quote(str(path))}`.")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text"
        do = f"Mend {where.told('file')}, or the file."
        raise Refused(what, f"{path}: {said}.", do) from None
    return _first_line(text, what, str(path))


def _asked(argv: Sequence[str], where: Where) -> str:
    what = f"{where.name} cannot be had."
    program, *arguments = argv
    try:
        answer = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Refused(what, _why(program, error), f"Mend {where.told('command')}.") from None
    return _first_line(answer.stdout.decode(errors="replace"), what, program)


def _why(program: str, error: Exception) -> str:
    """Why a command failed, without its arguments: they may be secret."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"{program} ended with status {error.returncode}."
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{program} took longer than {COMMAND_TIMEOUT_SECONDS} s."
    return f"{program}: {os.strerror(error.errno or 0) if isinstance(error, OSError) else error}."


def _first_line(text: str, what: str, where: str) -> str:
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise Refused(what, f"{where} gives an empty first line.", "Put the password there.")
    return lines[0]
