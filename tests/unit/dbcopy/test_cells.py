"""Cells are found in the API database, and their URLs are never shown."""

from __future__ import annotations

import traceback

import pytest
import sqlalchemy as sa

from cellmove import errors
from cellmove.dbcopy.cells import Credentials, MappedCell, mapped_cells, open_cells
from cellmove.dbcopy.database import Database
from cellmove.model import Cell
from tests.fakes.databases import CELL1, CELL2
from tests.unit.dbcopy.conftest import SERVER, Databases

API = "mysql+pymysql://nova:p%40ss@db.example:3307/nova_api?charset=utf8"


def url_of(database: Database) -> sa.URL:
    return database._engine.url


def opened(url: str, credentials: Credentials = "own") -> sa.URL:
    mapped = MappedCell(CELL1, False, url)
    return url_of(open_cells([mapped], API, credentials=credentials)[CELL1.uuid])


def test_all_cells_are_read_and_cell0_and_disabled_ones_are_marked(
    databases: Databases,
) -> None:
    with databases.api.write() as rows:
        rows.change("cell_mappings", {"disabled": True}, id=CELL2.id)
    with databases.api.read() as rows:
        cells = mapped_cells(rows)
    assert [cell.cell.name for cell in cells] == ["cell0", "cell1", "cell2"]
    assert [cell.is_cell0 for cell in cells] == [True, False, False]
    assert [cell.disabled for cell in cells] == [False, False, True]


def test_every_cell_but_cell0_is_opened(databases: Databases) -> None:
    with databases.api.read() as rows:
        cells = open_cells(mapped_cells(rows), url_of(databases.api), credentials="same")
    assert set(cells) == {CELL1.uuid, CELL2.uuid}
    with cells[CELL1.uuid].read() as rows:
        assert rows.count("instances", uuid=SERVER) == 1


def test_a_template_is_filled_in_from_the_api_databases_url() -> None:
    url = opened("{scheme}://{username}:{password}@{hostname}:{port}/nova_cell1?{query}")
    assert (url.host, url.port, url.database) == ("db.example", 3307, "nova_cell1")
    assert (url.username, url.password) == ("nova", "p@ss")


def test_a_url_that_is_no_template_is_taken_as_it_is() -> None:
    url = opened("mysql+pymysql://other:a%7Bb@cell.example/nova_cell1")
    assert (url.host, url.username, url.password) == ("cell.example", "other", "a{b")
    unknown = opened("mysql+pymysql://other:{strange}@cell.example/nova_cell1")
    assert unknown.password == "{strange}"


def test_same_credentials_replace_the_cells_own() -> None:
    url = opened("mysql+pymysql://other:x@cell.example/nova_cell1", "same")
    assert (url.host, url.username, url.password) == ("cell.example", "nova", "p@ss")


@pytest.mark.parametrize("url", ["s3cret", "", "oracle://u:s3cret@h/x"])
def test_a_cells_url_is_never_shown(url: str) -> None:
    with pytest.raises(errors.Refused, match="The URL of cell cell1") as caught:
        opened(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in repr(MappedCell(Cell(1, "u", "n"), False, "mysql://u:s3cret@h/x"))
