"""`.. config-keys::`: every key of the configuration, read from where it is declared."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from cellmove.config import SECTIONS, variable


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    section: str
    name: str
    kind: str
    default: str
    text: str

    @property
    def variable(self) -> str:
        """What goes over the file."""
        return variable(self.section, self.name)


def keys() -> list[Key]:
    """All of them, in the order of the file."""
    return [
        Key(section, field.name, _kind(str(field.type)), _default(field), _texts(kind)[field.name])
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    ]


def _texts(kind: type) -> dict[str, str]:
    """Field -> the text beneath it in the class."""
    (declared,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declared, ast.ClassDef)
    texts: dict[str, str] = {}
    last = ""
    for each in declared.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            last = each.target.id
            texts[last] = ""
        elif last and isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
            texts[last] = inspect.cleandoc(str(each.value.value))
            last = ""
    return texts


def _kind(annotation: str) -> str:
    names = {
        "str": "text",
        "str | None": "text",
        "tuple[str, ...]": "list of texts",
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
    }
    if annotation.startswith("Literal["):
        return " or ".join(annotation[len("Literal[") : -1].split(", "))
    return names.get(annotation, annotation)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.name == "config" and field.default_factory is not dataclasses.MISSING:
        return "~/.ssh/config"  # as it is on this machine, the home directory would be ours
    value = (
        field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
    )
    if value is None or value in ("", ()):
        return ""
    return str(value)


class ConfigKeys(SphinxDirective):
    """A table of all keys, section by section."""

    def run(self) -> list[nodes.Node]:
        lines = [
            ".. list-table::",
            "   :header-rows: 1",
            "   :widths: 30 16 16 38",
            "",
            "   * - Key, and what goes over it",
            "     - Kind",
            "     - Default",
            "     - What it says",
        ]
        for key in keys():
            default = f"``{key.default}``" if key.default else "none"
            lines += [
                f"   * - ``[{key.section}]`` ``{key.name}`` ``{key.variable}``",
                f"     - {key.kind}",
                f"     - {default}",
                f"     - {' '.join(key.text.split())}",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("config-keys", ConfigKeys)
    return {"version": "1", "parallel_read_safe": True}
