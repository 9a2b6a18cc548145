"""Pages read as files, too: `x.rst` leads to a page; `x*` in a toctree may be nobody yet."""

from __future__ import annotations

import posixpath
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_PERHAPS = re.compile(r"^ +([a-z]+)\*\n", re.MULTILINE)
_PAGE = re.compile(r"(?P<page>[A-Za-z0-9_./-]+)\.rst")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.connect("source-read", _without_the_unwritten)
    app.connect("doctree-read", _lead_to_pages)
    return {"version": "1", "parallel_read_safe": True}


def _without_the_unwritten(app: Sphinx, _name: str, source: list[str]) -> None:
    """Sphinx 9 warns of a pattern that fits no page, and cannot be told not to."""
    known = app.env.found_docs

    def kept(line: re.Match[str]) -> str:
        return line[0] if any(page.startswith(line[1]) for page in known) else ""

    source[0] = _PERHAPS.sub(kept, source[0])


def _lead_to_pages(app: Sphinx, tree: nodes.document) -> None:
    """A page that is not there is a warning, as with any other link."""
    here = posixpath.dirname(app.env.current_document.docname)
    for link in list(tree.findall(nodes.reference)):
        found = _PAGE.fullmatch(link.get("refuri", ""))
        if not found:
            continue
        target = posixpath.normpath(posixpath.join("/", here, found["page"]))
        doc = addnodes.pending_xref(
            "",
            nodes.inline("", link.astext()),
            refdomain="std",
            reftype="doc",
            reftarget=target,
            refdoc=app.env.current_document.docname,
            refexplicit=True,
            refwarn=True,
        )
        link.replace_self(doc)
