"""`.. score:: VERB`: a verb drawn step by step, from the very tuple that the conductor runs.

Which system a step touches is read from its class; a unit test runs every score over the fake
cloud and compares that with what changed. Phases are the comments in `plan.py`, checkpoints those
of the table that `tests/unit/test_scores.py` holds every score to.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from cellmove import plan
from cellmove.steps.base import SourceCellStep, Step, TargetCellStep

CHECKPOINTS = Path(__file__).parents[2] / "tests" / "unit" / "test_scores.py"

LANES = {
    "source host": "source<tspan x='{x}' dy='13'>host</tspan>",
    "source cell": "source<tspan x='{x}' dy='13'>cell</tspan>",
    "Placement": "Placement",
    "Neutron": "Neutron",
    "Cinder": "Cinder",
    "API database": "API<tspan x='{x}' dy='13'>database</tspan>",
    "target cell": "target<tspan x='{x}' dy='13'>cell</tspan>",
    "target host": "target<tspan x='{x}' dy='13'>host</tspan>",
}
"""What a step can touch, from left to right, and the head of its column."""

_SERVICES = {
    "allocations": "Placement",
    "api": "API database",
    "attachments": "Cinder",
    "network": "Neutron",
}
_CELLS = {"carry", "mappings", "source_cell", "target_cell", "confirm", "revert", "switch"}
_HOSTS = {"bases", "connections", "disks", "firmware", "guests", "wiring"}
"""Of these modules every step touches a cell or host: that of its side."""
_TAKEN_FROM_SOURCE = {"bring-bases", "precopy-disks", "copy-disks", "copy-firmware"}
"""They read on the source what they write on the target."""
_SIDES = {
    **dict.fromkeys(_TAKEN_FROM_SOURCE, "target"),
    "forget-writes": "source",
    "copy-records": "target",
    "compare-records": "target",
    "carry-volumes-home": "source",
}
"""Of steps whose name or class does not tell."""

_NAMES_PX, _LANE_PX, _ROW_PX, _HEAD_PX = 230, 78, 21, 44


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a drawing: a step, or what stands over the steps that follow."""

    step: type[Step] | None
    text: str
    kind: str
    """`step`, `phase` or `checkpoint`."""


def system(step: type[Step]) -> str:
    """What this step touches: one of `LANES`.

    Raises:
        ExtensionError: its class does not tell; say it here.
    """
    module = step.__module__.rpartition(".")[2]
    if module in _SERVICES:
        return _SERVICES[module]
    side = getattr(step, "side", None) or _SIDES.get(step.name) or _named(step.name)
    if issubclass(step, SourceCellStep):
        return "source cell"
    if issubclass(step, TargetCellStep):
        return "target cell"
    if side and module in _CELLS:
        return f"{side} cell"
    if side and module in _HOSTS:
        return f"{side} host"
    raise ExtensionError(f"docs/_ext/scores.py does not know what {step.name} touches")


def _named(name: str) -> str | None:
    return next((side for side in ("source", "target") if side in name.split("-")), None)


def steps(verb: str) -> tuple[type[Step], ...]:
    """The steps of a score; of `undo`, those of a resize, newest first."""
    if verb == "undo":
        return tuple(reversed(steps("resize")))
    return next(score for name, score in plan.SCORES.items() if name == verb)


def lines(verb: str) -> list[Line]:
    """The whole drawing, from above."""
    phases = {} if verb == "undo" else _phases(verb)
    checkpoints = {} if verb == "undo" else _checkpoints(verb)
    made: list[Line] = []
    for step in steps(verb):
        if text := phases.get(step.__name__):
            made.append(Line(None, text, "phase"))
        if text := checkpoints.get(step.name):
            made.append(Line(None, text, "checkpoint"))
        made.append(Line(step, ("undo " if verb == "undo" else "") + step.name, "step"))
    return made


def _phases(verb: str) -> dict[str, str]:
    """Class of a step -> the comment over it in `plan.py`."""
    source = inspect.getsource(plan)
    body = source.partition(f"\n{verb.upper()}: ")[2].partition("\n)\n")[0]
    found = re.findall(r"^    # (.+)\n    \w+\.(\w+),$", body, re.MULTILINE)
    return {step: text.rstrip(".") for text, step in found}


def _checkpoints(verb: str) -> dict[str, str]:
    """Name of a step -> the checkpoint that begins with it."""
    return dict(_marked(_tables().get(verb, "")))


def _tables() -> dict[str, str]:
    for each in ast.parse(CHECKPOINTS.read_text()).body:
        if isinstance(each, ast.AnnAssign) and ast.unparse(each.target) == "CHECKPOINTS":
            assert each.value is not None
            found: dict[str, str] = ast.literal_eval(each.value)
            return found
    raise ExtensionError(f"{CHECKPOINTS} has no CHECKPOINTS")


def _marked(text: str) -> Iterator[tuple[str, str]]:
    checkpoint = ""
    for line in text.splitlines():
        if line.startswith("# CP"):
            checkpoint = line.removeprefix("# CP").strip()
        elif checkpoint and "|" in line:
            yield line.partition("|")[0].strip(), f"checkpoint {checkpoint}"
            checkpoint = ""


def drawing(verb: str) -> str:
    """The sequence diagram, as SVG that needs nothing else."""
    drawn = lines(verb)
    height = _HEAD_PX + _ROW_PX * len(drawn) + 12
    width = _NAMES_PX + _LANE_PX * len(LANES)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="score" role="img" width="100%"'
            f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
            f"<title>{escape(verb)}, step by step</title>"
        )
    ]
    for name, head in LANES.items():
        x = _lane(name)
        parts.append(
            f'<text x="{x}" y="13" text-anchor="middle" font-weight="bold">'
            f"{head.format(x=x)}</text>"
            f'<line x1="{x}" y1="34" x2="{x}" y2="{height}" stroke="#bbb"/>'
        )
    for number, line in enumerate(drawn):
        parts.append(_row(line, _HEAD_PX + _ROW_PX * number, width))
    return "\n".join([*parts, "</svg>"])


def _lane(name: str) -> int:
    return _NAMES_PX + _LANE_PX * list(LANES).index(name) + _LANE_PX // 2


def _row(line: Line, top: int, width: int) -> str:
    base = top + 14
    if line.step is None:
        fill = "#dde7f0" if line.kind == "phase" else "#f3f3f3"
        weight = ' font-weight="bold"' if line.kind == "phase" else ' font-style="italic"'
        return (
            f'<rect x="0" y="{top}" width="{width}" height="{_ROW_PX - 3}" fill="{fill}"/>'
            f'<text x="6" y="{base - 1}"{weight}>{escape(line.text)}</text>'
        )
    colour = "#24557f" if line.step.reversible else "#a52a2a"
    x, middle = _lane(system(line.step)), top + 10
    start = _lane("source host") if line.step.name in _TAKEN_FROM_SOURCE else _NAMES_PX - 22
    return (
        f"<g><title>{escape(summary(line.step))}</title>"
        f'<text x="6" y="{base}" font-family="monospace" fill="{colour}">{escape(line.text)}</text>'
        f'<line x1="{start}" y1="{middle}" x2="{x - 6}" y2="{middle}" stroke="{colour}"/>'
        f'<path d="M{x - 8} {middle - 4} L{x} {middle} L{x - 8} {middle + 4} Z" fill="{colour}"/>'
        f'<circle cx="{start}" cy="{middle}" r="2.5" fill="{colour}"/></g>'
    )


def summary(step: type[Step]) -> str:
    """What the step says of itself, in one line."""
    return (inspect.getdoc(step) or "").partition("\n")[0]


class Score(SphinxDirective):
    """The drawing of a verb; with `:table:` also each step in words, as man pages can show it."""

    required_arguments = 1
    option_spec = {"table": directives.flag}  # noqa: RUF012 - docutils declares it so

    def run(self) -> list[nodes.Node]:
        verb = self.arguments[0]
        self.env.note_dependency(str(Path(inspect.getfile(plan))))
        self.env.note_dependency(str(CHECKPOINTS))
        drawn: list[nodes.Node] = [nodes.raw("", drawing(verb), format="html")]
        if "table" in self.options:
            drawn += self.parse_text_to_nodes(_table(verb))
        return drawn


def _table(verb: str) -> str:
    rows = [
        f"   * - {number}\n     - ``{step.name}``\n     - {system(step)}\n     - {summary(step)}"
        for number, step in enumerate(steps(verb), 1)
    ]
    heads = (
        ".. list-table::\n   :header-rows: 1\n   :widths: 5 27 15 53\n\n"
        "   * - #\n     - Step\n     - Touches\n     - What it does\n"
    )
    return heads + "\n".join(rows)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("score", Score)
    return {"version": "1", "parallel_read_safe": True}
