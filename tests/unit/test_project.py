"""What the project says of itself is so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_make_help_lists_every_target_a_developer_types() -> None:
    listed = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    ).stdout
    names = set(re.findall(r"^ +([a-z-]+) ", listed, re.MULTILINE))
    text = "".join(path.read_text() for path in (ROOT / "Makefile", ROOT / "lab.mk"))
    phony = {
        name for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for name in line.split()
    }
    assert names == phony


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.rst").read_text()
    for path in sorted(folder.glob("[0-9]*.rst")):
        title = path.read_text().splitlines()[0].partition(". ")[2]
        assert f"- `{path.name[:4]} <{path.name}>`_ {title}\n" in index


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda path: path.stem)
def test_every_benchmark_says_on_its_first_line_what_it_measures(path: Path) -> None:
    first, *rest = path.read_text().splitlines()
    assert re.fullmatch(r'"""[A-Z].*\."?"?"?', first)
    assert any('"--json"' in line for line in rest)


def test_the_readme_shows_every_command_but_completion() -> None:
    from cellmove.cli.commands import cellmove

    text = (ROOT / "README.rst").read_text()
    missing = {name for name in cellmove.commands if name not in text}
    assert missing == {"completion"}
