"""`.. refusals:: MODULE...`: every error that these modules raise on purpose, read from the code.

A module stands for the modules within it that no other `refusals` names.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

import cellmove
from cellmove import errors

CODE = Path(cellmove.__file__).parent
PAGES = Path(__file__).parents[1]
KINDS = tuple(
    name
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, errors.CellmoveError)
)
_DIRECTIVE = re.compile(r"^\.\. refusals:: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class Raised:
    """One error, as the code has it; what only the moment knows is `…`."""

    module: str
    line: int
    kind: str
    what: str
    seen: str
    do: str


@functools.cache
def raised() -> tuple[Raised, ...]:
    """All of cellmove's, in the order of the code; those alike in a module once."""
    found: dict[tuple[str, str, str, str], Raised] = {}
    for path in sorted(CODE.rglob("*.py")):
        for each in _in(path):
            found.setdefault((each.module, each.what, each.seen, each.do), each)
    return tuple(sorted(found.values()))


def _in(path: Path) -> Iterator[Raised]:
    module = ".".join(("cellmove", *path.relative_to(CODE).with_suffix("").parts))
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and (kind := _kind(call.func)):
            what, seen, do = _sentences(call)
            if what.strip("… ."):  # else it only hands on what another one says
                yield Raised(module.removesuffix(".__init__"), call.lineno, kind, what, seen, do)


def _kind(function: ast.expr) -> str | None:
    name = function.attr if isinstance(function, ast.Attribute) else ""
    name = function.id if isinstance(function, ast.Name) else name
    return name if name in KINDS else None


def _sentences(call: ast.Call) -> tuple[str, str, str]:
    said = dict(zip(("what", "seen", "do"), (_text(each) for each in call.args), strict=False))
    said |= {each.arg: _text(each.value) for each in call.keywords if each.arg}
    return said.get("what", ""), said.get("seen", ""), said.get("do", "")


def _text(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    if isinstance(part, ast.JoinedStr):
        return "".join(_text(each) for each in part.values)
    if isinstance(part, ast.IfExp):
        return " / ".join(each for each in (_text(part.body), _text(part.orelse)) if each)
    if isinstance(part, ast.BinOp):
        return _text(part.left) + _text(part.right)
    return "…"


def families() -> tuple[str, ...]:
    """All modules that some page names."""
    named = (_DIRECTIVE.findall(path.read_text()) for path in sorted(PAGES.rglob("*.rst")))
    return tuple(name for lines in named for line in lines for name in line.split())


def family(module: str) -> str | None:
    """The nearest of `families` that this module is in; None: no page tells its errors."""
    fits = [name for name in families() if f"{module}.".startswith(f"{name}.")]
    return max(fits, key=len, default=None)


class Refusals(SphinxDirective):
    """A list of what, with what was seen and what to do."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        modules = self.arguments[0].split()
        made = nodes.definition_list(classes=["refusals"])
        for each in raised():
            if family(each.module) not in modules:
                continue
            meaning = nodes.definition()
            for lead, text in (("Seen", each.seen), ("Do", each.do)):
                if text:
                    paragraph = nodes.paragraph("", "", nodes.emphasis("", f"{lead}: "))
                    meaning += paragraph + _with_commands(text)
            if not meaning.children:
                meaning += nodes.paragraph("", "What was seen says it all.")
            term = nodes.term("", "", *_with_commands(each.what))
            made += nodes.definition_list_item("", term, meaning)
        return [made] if made.children else []


def _with_commands(text: str) -> list[nodes.Node]:
    """What stands in backquotes is to be typed."""
    return [
        nodes.literal("", part) if number % 2 else nodes.Text(part)
        for number, part in enumerate(text.split("`"))
        if part
    ]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("refusals", Refusals)
    return {"version": "1", "parallel_read_safe": True}
