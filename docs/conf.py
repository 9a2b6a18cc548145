"""How the documentation is built: `make docs`, `make man`."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import manual

project = "cellmove"
author = "the cellmove authors"
copyright = author  # noqa: A001 - Sphinx's name for it
version = release = installed("cellmove")

extensions = [
    *("sphinx_click", "click_text", "config_keys", "exit_codes", "refusals", "rst_links"),
    "scores",
]
exclude_patterns = ["_ext"]
root_doc = "index"
nitpicky = True
smartquotes = False  # Commands are to be copied.

html_theme = "alabaster"
html_theme_options = {
    "description": "Moves OpenStack servers from one Nova cell to another",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "body_max_width": "860px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_copy_source = False
html_show_sourcelink = False

man_pages = manual.pages()
man_show_urls = False
