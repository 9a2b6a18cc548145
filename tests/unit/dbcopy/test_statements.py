"""Statements as MariaDB and MySQL get them; that they do what they say is shown in the lab."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from cellmove.dbcopy import statements
from cellmove.dbcopy.statements import IdsOf

TAGS = sa.Table("tags", sa.MetaData(), sa.Column("tag", sa.String()))


@pytest.mark.parametrize(
    ("where", "text", "values"),
    [
        ({}, "", []),
        ({"a": 1}, " WHERE `a` = %s", [1]),
        ({"a": None, "b": 2}, " WHERE `a` IS NULL AND `b` = %s", [2]),
        ({"a": [1, 2]}, " WHERE (`a` IN (%s,%s))", [1, 2]),
        ({"a": (0, None)}, " WHERE (`a` IS NULL OR `a` IN (%s))", [0]),
        ({"a": []}, " WHERE (FALSE)", []),
        (
            {"a": IdsOf("p", {"b": 1, "deleted": 0})},
            " WHERE `a` IN (SELECT `id` FROM `p` WHERE `b` = %s AND `deleted` = %s)",
            [1, 0],
        ),
    ],
)
def test_a_condition_has_a_place_for_each_value(
    where: dict[str, Any], text: str, values: list[Any]
) -> None:
    expected = f"SELECT `x`,`y` FROM `t`{text} ORDER BY `x`"
    assert statements.select("t", ["x", "y"], where, ["x"]) == (expected, values)


def test_a_name_cannot_end_its_quotes_nor_be_a_place() -> None:
    text, _ = statements.select("t`; DROP", ["100%s"], {}, [])
    assert text == "SELECT `100%%s` FROM `t``; DROP`"


class Asked:
    """Stands for a connection: it keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def exec_driver_sql(self, text: str, values: tuple[Any, ...]) -> None:
        assert text.startswith("INSERT INTO `tags` (`tag`) VALUES (%s)")
        assert text.count("%s") == len(values)
        self.sent.append(values)


def sent(texts: list[str], packet_bytes: int) -> list[tuple[Any, ...]]:
    asked: Any = Asked()
    rows = [{"tag": text} for text in texts]
    none = statements.insert(asked, TAGS, ["tag"], rows, packet_bytes=packet_bytes, ids=False)
    assert none == []
    parts: list[tuple[Any, ...]] = asked.sent
    assert [value for part in parts for value in part] == texts
    return parts


def test_rows_that_fit_into_a_packet_are_one_statement() -> None:
    assert len(sent(["x"] * 1000, 2**20)) == 1


@pytest.mark.parametrize("letter", ["x", "'", "\N{EURO SIGN}", "\N{PILE OF POO}"])
def test_no_statement_is_longer_than_a_packet(letter: str) -> None:
    parts = sent([letter * 100] * 300, 16 * 1024)
    assert 2 < len(parts) < 60
    longest = max(
        sum(len(each.encode().replace(b"'", b"\\'")) + 5 for each in part) for part in parts
    )
    assert longest < 12 * 1024


def test_a_row_longer_than_a_packet_is_still_sent_alone() -> None:
    assert [len(part) for part in sent(["x", "y" * 9000, "z"], 4096)] == [1, 1, 1]


def test_no_statement_is_longer_than_four_mebibytes_whatever_the_server_takes() -> None:
    assert len(sent(["x" * 2**20] * 6, 2**30)) > 2
