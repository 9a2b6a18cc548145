"""What is documented and granted is what the census says."""

from __future__ import annotations

import re
from pathlib import Path

from cellmove.check.grants import API_NEEDS, cell_needs
from cellmove.dbcopy.tables import CENSUS, Fate

ROOT = Path(__file__).parents[3]
WORDS = {
    Fate.COPY: "copied",
    Fate.DROP: "dropped",
    Fate.STAY: "stays",
    Fate.REFUSE: "refused",
}


def test_the_fate_of_every_table_is_documented_with_its_reason() -> None:
    text = (ROOT / "docs" / "databases.rst").read_text()
    listed = re.findall(r"   \* - ``(\w+)``\n     - (\w+)\n     - (.+)\n", text)
    assert listed == [(each.name, WORDS[each.fate], each.why) for each in CENSUS]


def test_the_playbook_grants_what_is_needed_and_no_more() -> None:
    text = (ROOT / "playbooks" / "databases.yml").read_text()
    api = re.search(r"^      api:\n        UPDATE: \[(.*)\]$", text, re.MULTILINE)
    assert api
    changed = {table for table, needs in API_NEEDS.items() if "UPDATE" in needs}
    assert set(api[1].split(", ")) == changed
    written = re.findall(r"^          - (\w+)$", text, re.MULTILINE)
    dropped = re.search(r"DELETE: .* \+ \[(.*)\]", text)
    assert dropped
    needs = cell_needs()
    assert set(written) == {table for table, rights in needs.items() if "INSERT" in rights}
    assert set(re.findall(r"\w+", dropped[1])) == {
        table for table, rights in needs.items() if rights == {"SELECT", "DELETE"}
    }
