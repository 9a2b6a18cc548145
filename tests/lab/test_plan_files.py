"""A choice explained, a plan put aside and done exactly, and what is left to nova; one server."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.kit.nova import Nova
from tests.lab.kit.places import HYPERVISORS, host_run, sql
from tests.lab.kit.program import Cellmove
from tests.lab.kit.traces import rows

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SOURCE, SIBLING = "cmp1a", "cmp1b"
PLANNING = ("--flavor", "c2", "--to-cell", "cell2", "--dry-run")


@pytest.fixture(scope="module")
def cellmove(tmp_path_factory: pytest.TempPathFactory) -> Cellmove:
    return Cellmove(tmp_path_factory.mktemp("plans"))


@pytest.fixture(scope="module")
def server(admin_nova: Nova, blank: str) -> Iterator[str]:
    """The only server of this file: its tests use it one after the other, in their order."""
    shop, more = {"purpose": "shop"}, {"imageRef": blank}
    with admin_nova.lent("plans", SOURCE, metadata=shop, more=more) as server:
        admin_nova.wait_port(server, SOURCE)
        yield server


def act(nova: Nova, server: str, **metadata: str) -> None:
    """Change the server's metadata as its owner would."""
    answer = nova._compute.send("POST", f"/servers/{server}/metadata", {"metadata": metadata})
    assert answer.ok, answer.message


def judged(cellmove: Cellmove, server: str, *wish: str) -> dict[str, dict[str, Any]]:
    done = cellmove("resize", server, *wish, "--dry-run", "--explain", "--json", check=False)
    (choice,) = done.json()["explained"]
    return {each["host"]: each for each in choice["hosts"]}


def test_every_hypervisor_that_nova_has_is_explained(server: str, cellmove: Cellmove) -> None:
    hosts = judged(cellmove, server, "--flavor", "c2", "--to-cell", "cell2")
    assert set(hosts) == set(HYPERVISORS)
    assert hosts[SOURCE]["filter"] == "elsewhere"
    assert hosts[SIBLING]["filter"] == "cell"
    best = {name for name, each in hosts.items() if each["rank"] == 1}
    assert best == {name for name, each in hosts.items() if each["chosen"]}
    # What cellmove holds to be free is what nova's own nodes say.
    free = {
        name: int(ram)
        for name, ram in sql(
            "cell2.nova_cell2", "SELECT host, free_ram_mb FROM compute_nodes WHERE deleted = 0"
        )
    }
    for name in ("cmp2a", "cmp2b"):
        assert hosts[name]["weights"]["ram"] == pytest.approx(
            free[name] / max(free.values()), abs=0.05
        )


def test_the_own_cell_is_preferred_as_nova_prefers_it(server: str, cellmove: Cellmove) -> None:
    hosts = judged(cellmove, server, "--flavor", "c2")
    assert hosts[SIBLING]["rank"] == 1
    assert hosts[SIBLING]["weights"]["cross-cell"] == 1_000_000
    assert hosts["cmp2a"]["weights"]["cross-cell"] == 0


def test_a_drifted_plan_is_refused_by_name_and_a_fresh_one_done_exactly(
    server: str, admin_nova: Nova, cellmove: Cellmove, tmp_path: Path
) -> None:
    stale, fresh = tmp_path / "stale.json", tmp_path / "fresh.json"
    cellmove("resize", server, *PLANNING, "--out", str(stale))
    assert stale.stat().st_mode & 0o777 == 0o600
    act(admin_nova, server, purpose="office")
    refused = cellmove("resize", "--plan", str(stale), "--json", check=False)
    assert refused.code == 1
    told = [reason["what"] for reason in refused.json()["error"]["reasons"]]
    assert "Metadata purpose is not as planned." in told
    assert admin_nova.status(server) == "ACTIVE"

    planned = cellmove("resize", server, *PLANNING, "--out", str(fresh), "--json").json()
    move = planned["plans"][0]["move"]
    done = cellmove("resize", "--plan", str(fresh), "--json").json()
    assert done["results"][0]["host"] == move["target"]["host"] == admin_nova.host(server)
    assert admin_nova.status(server) == "VERIFY_RESIZE"
    found = rows("cell2.nova_cell2", "migrations", f"instance_uuid = '{server}'")
    assert [each["uuid"] for each in found] == [move["migration"]]

    assert "carried out already" in cellmove("resize", "--plan", str(fresh), check=False).stderr
    cellmove("revert", server, "--yes")
    assert (admin_nova.status(server), admin_nova.host(server)) == ("ACTIVE", SOURCE)


def test_what_keeps_nova_from_a_resize_within_the_cell_is_told(
    server: str, admin_nova: Nova, cellmove: Cellmove
) -> None:
    """The hypervisors of the lab do not know each other's SSH keys, which nova needs for it."""
    admin_nova.wait_port(server, SOURCE)
    done = cellmove("resize", server, "--flavor", "c2", "--same-cell", "nova", check=False)
    assert done.code == 3, done
    assert "nova: resize_prep" in done.stderr
    assert "not able to execute ssh command" in done.stderr
    assert (admin_nova.status(server), admin_nova.host(server)) == ("ACTIVE", SOURCE)


def test_nova_resizes_within_the_cell_and_is_left_to_end_it(
    server: str, admin_nova: Nova, cellmove: Cellmove
) -> None:
    with acquainted(SOURCE, SIBLING):
        answer = cellmove("resize", server, "--flavor", "c2", "--same-cell", "nova", "--json")
        told = answer.json()
        assert (told["same_cell"], told["host"], told["status"]) == (True, SIBLING, "VERIFY_RESIZE")
        assert (admin_nova.status(server), admin_nova.host(server)) == ("VERIFY_RESIZE", SIBLING)
        refused = cellmove("confirm", server, "--yes", check=False)
        assert refused.code == 1
        assert told["next"][0] in refused.stderr
        admin_nova.revert(server)
    assert admin_nova.host(server) == SOURCE


@contextmanager
def acquainted(source: str, target: str) -> Iterator[None]:
    """nova of one hypervisor may sign in to the other as nova, as its own resize wants it."""
    home = "/var/lib/nova/.ssh"
    cell = f"cell{target[3]}.nova_cell{target[3]}"
    ((address,),) = sql(cell, f"SELECT host_ip FROM compute_nodes WHERE host = '{target}'")
    known = shell(target, "ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key")
    entry = shlex.quote(f"{address} {known.strip()}")
    try:
        make = f"mkdir -m 700 {home} && ssh-keygen -q -t ed25519 -N '' -f {home}/id_ed25519"
        shell(source, make)
        key = shell(source, f"cat {home}/id_ed25519.pub")
        shell(source, f"echo {entry} > {home}/known_hosts && chown -R nova: {home}")
        shell(
            target,
            f"mkdir -m 700 {home} && echo {shlex.quote(key.strip())} > {home}/authorized_keys"
            f" && chown -R nova: {home} && usermod -p '*' nova",
        )
        yield
    finally:
        shell(target, f"rm -rf {home}; usermod -p '!' nova")
        shell(source, f"rm -rf {home}")


def shell(host: str, line: str) -> str:
    """A line of shell as root inside a host of the lab."""
    return host_run(host, ["sh", "-c", line])
