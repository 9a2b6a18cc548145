"""What counts as a difference between two copies, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cellmove.dbcopy.compare import MISSING, Difference, differences
from cellmove.dbcopy.copy import Records, read_records
from cellmove.dbcopy.tables import COPIED
from tests.unit.dbcopy.conftest import SERVER, Databases


@pytest.fixture
def records(databases: Databases) -> Records:
    with databases.source.read() as rows:
        return read_records(rows, SERVER)


def changed(records: Records, table: str, **values: Any) -> Records:
    """With these values in the first row of a table; None of a name drops the column."""
    first, *rest = records.tables[table]
    return replace(records, tables={**records.tables, table: (first | values, *rest)})


def without(records: Records, table: str, *columns: str) -> Records:
    rows = tuple(
        {name: value for name, value in row.items() if name not in columns}
        for row in records.tables[table]
    )
    return replace(records, tables={**records.tables, table: rows})


@pytest.mark.parametrize("table", [table.name for table in COPIED])
def test_a_row_that_one_copy_lacks_is_a_difference(records: Records, table: str) -> None:
    less = replace(records, tables={**records.tables, table: records.tables[table][1:]})
    found = differences(records, less)
    assert (table, MISSING) in [(each.table, each.there) for each in found]
    assert (table, MISSING) in [(each.table, each.here) for each in differences(less, records)]


@pytest.mark.parametrize(
    ("here", "there"), [("web", "Web"), ("web", "web "), ("", None), ("0", None), ("a\u0308", "ä")]
)
@pytest.mark.parametrize("fresh", [True, False])
def test_values_are_compared_letter_by_letter(
    records: Records, here: Any, there: Any, fresh: bool
) -> None:
    found = differences(
        changed(records, "instances", hostname=here),
        changed(records, "instances", hostname=there),
        fresh=fresh,
    )
    assert found == [Difference("instances", SERVER, "hostname", str(here), str(there))]


@pytest.mark.parametrize(("held", "differs"), [("x", True), (1, True), (None, False), (0, False)])
def test_a_column_of_one_release_differs_when_it_holds_something(
    records: Records, held: Any, differs: bool
) -> None:
    newer = changed(records, "instances", of_the_future=held)
    assert bool(differences(newer, records)) is differs
    assert bool(differences(records, newer)) is differs


def test_a_fresh_copy_has_the_same_text_and_a_moving_one_the_same_json(records: Records) -> None:
    (extra,) = records.tables["instance_extra"]
    spaced = changed(records, "instance_extra", keypairs=extra["keypairs"].replace(":", " :"))
    assert differences(records, spaced) == []
    (found,) = differences(records, spaced, fresh=True)
    assert found.column == "keypairs"


def test_when_a_row_was_last_written_is_no_difference_in_a_move(records: Records) -> None:
    older = without(records, "instance_metadata", "updated_at")
    assert differences(records, changed(older, "instance_metadata", updated_at="later")) == []
    assert differences(records, changed(older, "instance_metadata", created_at="later")) != []


def test_a_long_value_is_cut_where_it_is_shown(records: Records) -> None:
    longer = changed(records, "instances", user_data="x" * 1_000_000)
    (found,) = differences(records, longer)
    assert len(found.there) < 300
