"""`.. exit-codes::`: the codes as cellmove's own help has them."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from cellmove.cli.commands import EXIT_CODES
from cellmove.errors import Exit

_CODE = re.compile(r"(?:^| {2,})(?P<code>\d) {2,}(?P<text>\S.*?)(?= {2,}|$)", re.MULTILINE)


def codes() -> dict[int, str]:
    """Each code and what it says of the cloud.

    Raises:
        ValueError: the help does not have exactly the codes that there are.
    """
    found = {int(each["code"]): each["text"] for each in _CODE.finditer(EXIT_CODES)}
    if set(found) != {int(each) for each in Exit}:
        raise ValueError(f"the help has the exit codes {sorted(found)}")
    return dict(sorted(found.items()))


class ExitCodes(SphinxDirective):
    """A list of them."""

    def run(self) -> list[nodes.Node]:
        made = nodes.definition_list()
        for code, text in codes().items():
            meaning = nodes.definition("", nodes.paragraph("", f"{text}."))
            term = nodes.term("", "", nodes.literal("", str(code)))
            made += nodes.definition_list_item("", term, meaning)
        return [made]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("exit-codes", ExitCodes)
    return {"version": "1", "parallel_read_safe": True}
