"""Who leaves, in which order, and how many failures are borne."""

from __future__ import annotations

import pytest

from cellmove.draining.wishes import Limit, Order, Resident, Terms, Wishes, seconds
from cellmove.errors import Usage


def resident(name: str, local_gb: int, day: int, **more: object) -> Resident:
    given = {"project_id": "p1", "flavor": "c1", "tags": ()} | more
    return Resident(
        server=name,
        name=name,
        host="cmp1a",
        created_at=f"2026-11-{day:02}",
        local_gb=local_gb,
        **given,  # type: ignore[arg-type]
    )


WEB = resident("web-1", 20, 3, tags=("gold",))
DATA = resident("data", 5, 1, project_id="p2")
OLD = resident("old", 20, 2, flavor="c2")


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("smallest", ["data", "old", "web-1"]),
        ("largest", ["old", "web-1", "data"]),
        ("oldest", ["data", "old", "web-1"]),
        ("name", ["data", "old", "web-1"]),
    ],
)
def test_servers_leave_in_the_order_that_was_asked_for(order: Order, names: list[str]) -> None:
    assert [each.name for each in Wishes(order=order).ordered([WEB, OLD, DATA])] == names


@pytest.mark.parametrize(
    ("only", "but", "names"),
    [
        (Terms(projects=("p1",)), Terms(), ["old", "web-1"]),
        (Terms(flavors=("c1",), projects=("p1",)), Terms(), ["web-1"]),
        (Terms(tags=("gold", "silver")), Terms(), ["web-1"]),
        (Terms(names=("web-*", "d?ta")), Terms(), ["data", "web-1"]),
        (Terms(), Terms(names=("web-*",), projects=("p2",)), ["old"]),
        (Terms(projects=("p1",)), Terms(tags=("gold",)), ["old"]),
    ],
)
def test_terms_choose_servers(only: Terms, but: Terms, names: list[str]) -> None:
    wishes = Wishes(only=only, but=but, order="name")
    assert [each.name for each in wishes.ordered([WEB, OLD, DATA])] == names


@pytest.mark.parametrize(
    ("text", "servers", "borne"), [("0", 9, 0), ("3", 9, 3), ("10%", 100, 10), ("10%", 9, 0)]
)
def test_so_many_failures_are_borne_and_no_more(text: str, servers: int, borne: int) -> None:
    limit = Limit.parse(text)
    assert not limit.exceeded(borne, servers)
    assert limit.exceeded(borne + 1, servers)


@pytest.mark.parametrize("text", ["", "many", "-1", "120%", "1.5"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(Usage):
        Limit.parse(text)


def test_lengths_of_time_are_read() -> None:
    assert [seconds(each) for each in ("90s", "30m", "2h", "1d")] == [90, 1800, 7200, 86400]
    assert seconds("never") is None
    with pytest.raises(Usage):
        seconds("soon")
