"""Notifications on the lab's RabbitMQ: what cellmove sends is what nova itself sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.kit.bus import Bus, Notice, forwarded, listening
from tests.lab.kit.nova import Nova
from tests.lab.kit.program import Cellmove

pytestmark = [pytest.mark.lab, pytest.mark.alone]

Told = tuple[object, ...]
ENDS = {
    "resize": "instance.resize_finish.end",
    "revert": "instance.resize_revert.end",
    "confirm": "instance.resize_confirm.end",
}


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    with listening() as heard:
        yield heard


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cellmove]:
    """cellmove with somebody to tell."""
    with forwarded("api") as url:
        monkeypatch.setenv("CELLMOVE_NOTIFICATIONS_TRANSPORT_URL", url)
        yield Cellmove(tmp_path)


def told(bus: Bus, server: str, verb: str, source: str, target: str) -> list[Told]:
    """What was newly said of a move, hosts by the part they play."""
    parts = {source: "source", target: "target"}
    heard = bus.wait(server, ENDS[verb])

    def alike(notice: Notice) -> Told:
        data = notice.payload
        sender, _, host = notice.publisher.partition(":")
        return (
            *(notice.event, sender, parts.get(host, "conductor"), notice.priority, notice.name),
            *(data["state"], data["task_state"], data["power_state"], parts[data["host"]]),
            *(data["flavor"]["nova_object.data"]["name"], data["ip_addresses"], sorted(data)),
        )

    return [alike(each) for each in heard]


def same(ours: list[Told], novas: list[Told]) -> None:
    """Equal, and if not, the first difference alone."""
    assert [each[:5] for each in ours] == [each[:5] for each in novas]
    for our, nova in zip(ours, novas, strict=True):
        assert our[5:10] == nova[5:10], our[0]
        assert our[10] == nova[10], our[0]
        assert our[11] == nova[11], our[0]


@pytest.fixture(scope="module")
def server(admin_nova: Nova, blank: str) -> Iterator[str]:
    """A stopped server on cmp1a, for one test after the other."""
    with admin_nova.lent("told", "cmp1a", more={"imageRef": blank}) as server:
        admin_nova.stop(server)
        yield server


def test_names_order_and_content_are_novas_own(
    admin_nova: Nova, server: str, telling: Cellmove, bus: Bus
) -> None:
    bus.forget(server)

    def by_nova(end: str, source: str, target: str) -> list[Told]:
        admin_nova.migrate(server, target)
        resized = told(bus, server, "resize", source, target)
        getattr(admin_nova, end)(server)
        return resized + told(bus, server, end, source, target)

    def by_cellmove(end: str, source: str, target: str) -> list[Told]:
        telling("resize", server, "--to-host", target)
        resized = told(bus, server, "resize", source, target)
        telling(end, server, "--yes")
        return resized + told(bus, server, end, source, target)

    same(by_cellmove("revert", "cmp1a", "cmp2a"), by_nova("revert", "cmp1a", "cmp2a"))
    same(by_cellmove("confirm", "cmp1a", "cmp2a"), by_nova("confirm", "cmp2a", "cmp1a"))


def test_a_dead_bus_fails_no_move(
    admin_nova: Nova, server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CELLMOVE_NOTIFICATIONS_TRANSPORT_URL", "rabbit://a:a-secret@127.0.0.1:9/")
    done = Cellmove(tmp_path)("resize", server, "--to-host", "cmp2a")
    assert admin_nova.status(server) == "VERIFY_RESIZE"
    assert done.stderr.count("A notification was not sent") == 1
    assert "a-secret" not in done.stderr + done.stdout
