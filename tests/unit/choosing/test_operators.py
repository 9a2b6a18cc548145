"""The operators of extra specs mean what nova means by them."""

from __future__ import annotations

import pytest

from cellmove.choosing.operators import match


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("ssd", "ssd"),
        ("8", "= 4"),
        ("4", "== 4.0"),
        ("5", "!= 4"),
        ("4", ">= 4"),
        ("3", "<= 4"),
        ("a", "s== a"),
        ("a", "s!= b"),
        ("a", "s< b"),
        ("b", "s<= b"),
        ("c", "s> b"),
        ("b", "s>= b"),
        ("avx2 sse", "<in> sse"),
        ("avx2 sse", "<all-in> sse avx2"),
        ("b", "<or> a <or> b"),
        ("", ""),
    ],
)
def test_it_matches(value: str, wanted: str) -> None:
    assert match(value, wanted)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("ssd", "hdd"),
        ("3", "= 4"),
        ("many", "= 4"),
        ("4", "="),
        ("4", "!= 4"),
        ("a", "s!= a"),
        ("a", "s=="),
        ("avx2", "<in> sse"),
        ("avx2", "<all-in> sse avx2"),
        ("avx2", "<all-in>"),
        ("c", "<or> a <or> b"),
        ("a", ""),
    ],
)
def test_it_does_not_match(value: str, wanted: str) -> None:
    assert not match(value, wanted)
