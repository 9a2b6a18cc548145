"""The manual pages: one of the program, one of each command, all from the command line itself.

`python docs/_ext/manual.py OUT` (`make man`) writes them; Sphinx reads `pages` for their names.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from cellmove.cli.commands import cellmove

DOCS = Path(__file__).parents[1]
SECTION = 1

FILES = """\
Files
-----

``~/.config/cellmove/cellmove.toml``, ``/etc/cellmove/cellmove.toml``
   The configuration: the first of them that is there.
``~/.local/state/cellmove/journal.db``
   The journal, unless the configuration names another one.
"""

Page = tuple[str, str, str, list[str], int]
"""As Sphinx has it: source, name, what it says in one line, authors, section."""


def pages() -> list[Page]:
    """What there is to be made."""
    whole = cellmove.get_short_help_str(limit=200).rstrip(".")
    each: list[Page] = [
        (_name(name), _name(name), _summary(name), [], SECTION) for name in cellmove.commands
    ]
    return [("cellmove", "cellmove", whole, [], SECTION), *each]


def sources() -> dict[str, str]:
    """Name of each page -> what Sphinx makes it from."""
    made = {_name(name): _command(name) for name in cellmove.commands}
    return {"cellmove": _program(), **made}


def write(out: Path) -> None:
    """Write all pages into this directory; a warning is an error."""
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory(prefix="cellmove-man-") as folder:
        for name, text in sources().items():
            (Path(folder) / f"{name}.rst").write_text(text)
        options = ["-q", "-n", "-W", "--keep-going", "-b", "man", "-c", str(DOCS)]
        settings = ["-D", "root_doc=cellmove", "-d", f"{folder}/.doctrees"]
        if status := build_main([*options, *settings, folder, str(out)]):
            raise SystemExit(status)
    for name in sources():
        page = out / f"{name}.{SECTION}"
        # sphinx-click has the command's name there; in manual pages all look for this one.
        head = f".SH {name.replace('-', ' ', 1).upper()}\n"
        page.write_text(page.read_text().replace(head, ".SH DESCRIPTION\n"))


def _name(command: str) -> str:
    return f"cellmove-{command}"


def _summary(command: str) -> str:
    return cellmove.commands[command].get_short_help_str(limit=200).rstrip(".")


def _program() -> str:
    others = ", ".join(f":manpage:`{_name(name)}(1)`" for name in cellmove.commands)
    return f"""\
{_title("cellmove")}
.. click:: cellmove.cli.commands:cellmove
   :prog: cellmove
   :nested: short

{FILES}
See also
--------

{others}
"""


def _command(name: str) -> str:
    declared = next(
        key for key, value in vars(_module()).items() if value is cellmove.commands[name]
    )
    return f"""\
:orphan:

{_title(_name(name))}
.. click:: cellmove.cli.commands:{declared}
   :prog: cellmove {name}
   :nested: none

``--config``, ``--journal``, ``--debug`` and ``--quiet`` are described in :manpage:`cellmove(1)`.

Exit status
-----------

.. exit-codes::

{FILES}
See also
--------

:manpage:`cellmove(1)`
"""


def _module() -> object:
    return sys.modules["cellmove.cli.commands"]


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
