"""Servers by the dozen, hosts explained, and what is left to nova."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cellmove.cli import samecell
from cellmove.errors import Refused
from cellmove.model import Allocations
from cellmove.opening import OpenCloud
from cellmove.services.nova import Nova, Shown
from cellmove.services.service import Answer
from tests.fakes.databases import CELL1, CELL2
from tests.fakes.world import SERVER
from tests.unit.conftest import Terminal

TO_CELL2 = ("--to-cell", "cell2")


@pytest.mark.parametrize("verb", ["resize", "confirm", "revert"])
def test_servers_are_read_from_standard_input(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    if verb != "resize":
        assert terminal.type("resize", "web-1", *TO_CELL2).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("# of today\n\n  web-1  \nweb-9\n"))
    more = TO_CELL2 if verb == "resize" else ("--yes",)
    ran = terminal.type(verb, "-", *more, "--json")
    assert ran.code == 6
    asked = {each["asked"]: each["exit_code"] for each in ran.json["results"]}
    assert asked == {"web-1": 0, "web-9": 1}


def test_an_empty_standard_input_is_wrong_usage(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("# none\n"))
    ran = terminal.type("resize", "-", *TO_CELL2)
    assert ran.code == 2
    assert "Standard input has none." in ran.err


def test_a_plan_and_a_delegation_take_one_server(terminal: Terminal) -> None:
    for more in (("--dry-run", "--out", "x.json"), ("--same-cell", "nova")):
        ran = terminal.type("resize", "web-1", "web-2", *TO_CELL2, *more)
        assert ran.code == 2
        assert "takes one server" in ran.err


def explained(terminal: Terminal, *more: str) -> dict[str, Any]:
    ran = terminal.type("resize", "web-1", "--dry-run", "--explain", "--json", *more)
    (choice,) = json.loads(ran.out)["explained"]
    return {each["host"]: each for each in choice["hosts"]}


def test_every_host_is_explained_with_its_weights_or_its_filter(terminal: Terminal) -> None:
    with terminal.world.cells[CELL2.uuid].write() as rows:
        rows.change("services", {"disabled": True}, host="cmp2b", binary="nova-compute")
    hosts = explained(terminal, *TO_CELL2)
    assert set(hosts) == {"cmp1a", "cmp1b", "cmp2a", "cmp2b"}
    assert hosts["cmp1a"]["filter"] == "elsewhere"
    assert (hosts["cmp1b"]["filter"], hosts["cmp1b"]["why"]) == ("cell", "it is in cell cell1")
    assert hosts["cmp2b"]["filter"] == "service"
    assert "is disabled" in hosts["cmp2b"]["why"]
    best = hosts["cmp2a"]
    assert (best["rank"], best["chosen"], best["filter"]) == (1, True, None)
    assert best["weight"] == pytest.approx(sum(best["weights"].values()))


def test_what_is_short_is_told_in_numbers(terminal: Terminal) -> None:
    (row,) = terminal.world.query(CELL2.uuid, "SELECT uuid FROM compute_nodes WHERE host = 'cmp2b'")
    held = {row["uuid"]: {"VCPU": 16}}
    terminal.world.placement.replace([Allocations("filler", held, None)])
    why = explained(terminal, *TO_CELL2)["cmp2b"]["why"]
    assert why == "VCPU: 1 needed, 0 free"


def test_what_a_host_itself_has_against_it_is_told(terminal: Terminal) -> None:
    terminal.world.hosts.reach("cmp2a").make_directory(SERVER)
    hosts = explained(terminal, *TO_CELL2)
    assert hosts["cmp2a"]["filter"] == "host"
    assert "A directory of this server is on cmp2a already." in hosts["cmp2a"]["why"]
    assert hosts["cmp2b"]["chosen"]


def test_a_disabled_cell_is_told_of(terminal: Terminal) -> None:
    with terminal.world.api.write() as rows:
        rows.change("cell_mappings", {"disabled": True}, uuid=CELL2.uuid)
    hosts = explained(terminal)
    assert hosts["cmp2a"]["why"] == "cell cell2 is disabled"
    assert hosts["cmp1b"]["rank"] == 1


def test_a_refused_server_is_explained_all_the_same(terminal: Terminal) -> None:
    ran = terminal.type("resize", "web-1", "--dry-run", "--explain")
    assert ran.code == 1
    assert "cross-cell 1000000.00" in ran.out
    assert "in its own cell cell1" in ran.out


def test_who_goes_on_is_told_on_standard_error_first(terminal: Terminal) -> None:
    ran = terminal.type("resize", "web-1", *TO_CELL2, "--explain", "--json")
    assert ran.code == 0
    assert "Hosts for web-1" in ran.err
    assert ran.json["results"][0]["exit_code"] == 0


@dataclass
class NovaService:
    """nova's API: answers to GET one after the other, and what was asked of it."""

    shown: list[dict[str, Any]]
    status: int = 202
    asked: list[Any] = field(default_factory=list)

    def get(self, path: str, **_query: str) -> Answer:
        assert path == f"/servers/{SERVER}"
        server = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        return Answer(200, {"server": server})

    def send(self, method: str, path: str, body: Any = None) -> Answer:
        assert (method, path) == ("POST", f"/servers/{SERVER}/action")
        self.asked.append(body)
        return Answer(self.status, {"conflictingRequest": {"message": "no"}})


def server(status: str, task: str | None, host: str, fault: str = "") -> dict[str, Any]:
    shown: dict[str, Any] = {"status": status, "OS-EXT-STS:task_state": task}
    shown |= {"OS-EXT-SRV-ATTR:host": host}
    return shown | ({"fault": {"message": fault}} if fault else {})


DONE = [
    server("RESIZE", "resize_prep", "cmp1a"),
    server("RESIZE", "resize_migrating", "cmp1a"),
    server("VERIFY_RESIZE", None, "cmp1b"),
]


@pytest.fixture
def nova(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> NovaService:
    """nova's API behind the terminal's cloud; it finishes the resize."""
    service = NovaService(list(DONE))
    real = terminal.open_cloud

    @contextmanager
    def with_nova(*args: Any, **more: Any) -> Iterator[OpenCloud]:
        with real(*args, **more) as opened:
            yield replace(opened, nova=Nova(service))

    monkeypatch.setattr("cellmove.cli.desk.open_cloud", with_nova)
    monkeypatch.setattr(samecell, "POLL_SECONDS", 0)
    return service


def test_by_default_the_own_cell_is_refused(terminal: Terminal, nova: NovaService) -> None:
    ran = terminal.type("resize", "web-1", "--flavor", "c2")
    assert ran.code == 1
    assert "--same-cell nova" in ran.err
    assert not nova.asked


def test_nova_is_asked_to_resize_and_waited_for(terminal: Terminal, nova: NovaService) -> None:
    ran = terminal.type("resize", "web-1", "--flavor", "c2", "--same-cell", "nova")
    assert ran.code == 0, ran.err
    (asked,) = nova.asked
    assert list(asked) == ["resize"]
    assert "nova: resize_migrating" in ran.err
    assert "on cmp1b in cell1 with flavor c2" in ran.out
    assert f"Next: openstack server resize confirm {SERVER}" in ran.out
    assert not terminal.world.query(CELL2.uuid, "SELECT id FROM instances WHERE uuid = ?", SERVER)


@pytest.mark.parametrize("more", [(), ("--to-host", "cmp1b")])
def test_without_a_flavor_nova_migrates_to_the_host(
    terminal: Terminal, nova: NovaService, more: tuple[str, ...]
) -> None:
    ran = terminal.type("resize", "web-1", "--same-cell", "nova", *more, "--json")
    assert ran.code == 0, ran.err
    assert nova.asked == [{"migrate": {"host": "cmp1b"}}]
    assert (ran.json["same_cell"], ran.json["host"]) == (True, "cmp1b")


def test_a_dry_run_asks_nova_for_nothing(terminal: Terminal, nova: NovaService) -> None:
    ran = terminal.type("resize", "web-1", "--same-cell", "nova", "--dry-run")
    assert ran.code == 0
    assert "the best host is cmp1b" in ran.out
    assert not nova.asked


def test_a_server_of_another_best_cell_is_not_left_to_nova(
    terminal: Terminal, nova: NovaService
) -> None:
    assert terminal.type("resize", "web-1", *TO_CELL2, "--same-cell", "nova").code == 0
    assert not nova.asked


def test_a_host_cannot_be_named_for_novas_resize(terminal: Terminal, nova: NovaService) -> None:
    wish = ("--flavor", "c2", "--to-host", "cmp1b")
    ran = terminal.type("resize", "web-1", *wish, "--same-cell", "nova")
    assert ran.code == 1
    assert "nova cannot be told the host" in ran.err
    assert not nova.asked


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (server("ACTIVE", None, "cmp1a", "No valid host was found."), 3),
        (server("ERROR", None, "cmp1a", "It broke."), 4),
    ],
)
def test_when_nova_gives_up_its_fault_is_told(
    terminal: Terminal, nova: NovaService, ends: dict[str, Any], code: int
) -> None:
    nova.shown = [DONE[0], ends]
    ran = terminal.type("resize", "web-1", "--same-cell", "nova")
    assert ran.code == code
    assert ends["fault"]["message"] in ran.err


def test_a_fault_that_novas_api_keeps_to_itself_is_told(
    terminal: Terminal, nova: NovaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_seconds: float) -> None:
        fault = {"instance_uuid": SERVER, "code": 500, "message": "no\nway", "host": "cmp1a"}
        with terminal.world.cells[CELL1.uuid].write() as rows:
            rows.insert("instance_faults", [fault])

    monkeypatch.setattr("cellmove.cli.samecell.time.sleep", broken)
    nova.shown = [DONE[0], server("ACTIVE", None, "cmp1a")]
    ran = terminal.type("resize", "web-1", "--same-cell", "nova")
    assert ran.code == 3
    assert "It is ACTIVE on cmp1a. no way" in ran.err


def test_a_resize_within_a_cell_is_novas_to_end(terminal: Terminal) -> None:
    with terminal.world.cells[CELL1.uuid].write() as rows:
        rows.change("instances", {"vm_state": "resized"}, uuid=SERVER)
        values = {"status": "finished", "cross_cell_move": 0}
        rows.change("migrations", values, expect=None, instance_uuid=SERVER)
    for verb in ("confirm", "revert"):
        ran = terminal.type(verb, "web-1", "--yes")
        assert ran.code == 1
        assert f"Run `openstack server resize confirm {SERVER}`" in ran.err


def test_when_nova_refuses_nothing_was_begun(terminal: Terminal, nova: NovaService) -> None:
    nova.status = 409
    ran = terminal.type("resize", "web-1", "--same-cell", "nova")
    assert ran.code == 1
    assert "409: no" in ran.err


def test_who_stops_waiting_is_told_that_nova_goes_on(
    terminal: Terminal, nova: NovaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cellmove.cli.samecell.time.sleep", interrupted)
    ran = terminal.type("resize", "web-1", "--same-cell", "nova")
    assert ran.code == 5
    assert "nova goes on by itself" in ran.err


def test_a_server_without_a_task_is_as_nova_shows_it() -> None:
    service = NovaService([server("ACTIVE", None, "cmp1a")])
    assert Nova(service).show(SERVER) == Shown("ACTIVE", "", "cmp1a", "")
    service.status = 400
    with pytest.raises(Refused, match="nova does not migrate the server"):
        Nova(service).migrate(SERVER, "cmp1b")
