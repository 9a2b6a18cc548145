"""`cellmove audit`: whatever is lost, double or left over is found, and what is well is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cellmove.audit import Audit, Severity
from cellmove.errors import Refused, Unreachable
from cellmove.journal import Entry, Journal, Mark, Verb
from cellmove.plan import plan
from tests.fakes.databases import CELL1, CELL2, NEIGHBOURS, add_server, counted
from tests.fakes.invariants import foreign
from tests.fakes.world import DOMAIN, SERVER, World, perform
from tests.unit.audit import plants
from tests.unit.audit.conftest import Look
from tests.unit.audit.plants import GONE, MIGRATION, PLANTS
from tests.unit.conftest import Terminal

MENDED = (
    "phantom-consumer",
    "inactive-binding",
    "stale-reservation",
    "guest-left",
    "plug-left",
    "checkpoint",
)
BESIDES: dict[str, set[str]] = {
    # What else is then so.
    "guest-elsewhere": {"guest-elsewhere", "directory-left"},
    "guest-left": {"guest-left", "directory-left"},
    "running-twice": {"running-twice", "guest-elsewhere", "directory-left"},
    "guest-without-server": {"guest-without-server", "directory-left"},
    "allocation-astray": {"allocation-astray", "no-allocation"},
}


def codes(found: Audit) -> set[str]:
    return {each.code for each in found.findings}


def test_a_whole_cloud_has_nothing_and_is_not_touched(world: World, look: Look) -> None:
    before = world.snapshot()
    found = look()
    assert (found.findings, found.under_way) == ((), ())
    assert (found.servers, found.hosts) == (3, 4)
    assert world.snapshot() == before


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_at_no_step_of_a_move_is_there_a_finding_though_its_journal_is_elsewhere(
    world: World, look: Look, verb: Verb
) -> None:
    verbs: tuple[Verb, ...] = ("resize", verb)
    for each in verbs:
        for step in plan(each, world.move(each)):
            perform(step, world)
            assert codes(look()) == set(), step.name
        assert look().under_way == (), each


@pytest.mark.parametrize("code", PLANTS)
def test_what_is_planted_is_found_and_only_what_is_safe_is_mended(
    world: World, look: Look, code: str
) -> None:
    whole, strangers = world.snapshot(), foreign(world)
    PLANTS[code](world)
    planted = world.snapshot()
    found = look()
    assert world.snapshot() == planted, "a look touches nothing"
    assert codes(found) == BESIDES.get(code, {code})
    assert all(each.seen.endswith(".") for each in found.findings)
    servers = {each.where.server for each in found.findings}
    assert len(servers) == 1
    assert servers <= ({""} if code == "unreachable" else {SERVER, GONE})
    if code != "unreachable":
        (server,) = servers
        mine = {each.key for each in found.findings}
        assert {each.key for each in look(server=server).findings} == mine
        assert codes(look(server=NEIGHBOURS["cmp2a"])) == set()

    again = look(mend=True)
    assert [each.finding.code for each in again.mended] == [code] * (code in MENDED)
    assert not any(each.error for each in again.mended)
    assert foreign(world) == strangers
    after = world.snapshot()
    if code not in MENDED:
        assert codes(again)
        assert after == planted
    elif code not in ("guest-left", "phantom-consumer"):
        assert again.findings == ()
        assert after == whole


def test_a_mended_guest_keeps_its_directory(world: World, look: Look) -> None:
    plants.guest_left(world)
    found = look(mend=True)
    assert codes(found) == {"directory-left"}
    assert SERVER not in world.hosts.by_name["cmp2a"].domains
    assert world.hosts.by_name["cmp2a"].has_directory(SERVER)


def test_a_guest_is_not_forgotten_where_it_is_the_only_one(world: World, look: Look) -> None:
    plants.guest_missing(world)
    plants.guest_left(world)
    assert look(mend=True).mended == ()
    assert SERVER in world.hosts.by_name["cmp2a"].domains


def test_what_a_deleted_server_holds_is_released(world: World, look: Look) -> None:
    add_server(
        world.api, world.cells[CELL1.uuid], uuid=GONE, host="cmp1b", deleted=9, vm_state="deleted"
    )
    with world.api.write() as rows:
        rows.change("instance_mappings", {"queued_for_delete": True}, instance_uuid=GONE)
    plants.hold(world, GONE, "cmp1b")
    assert codes(look()) == {"allocation-without-server"}
    assert codes(look(mend=True)) == set()
    assert world.placement.allocations(GONE).resources == {}


def test_what_a_migration_known_only_to_the_journal_holds_is_released(
    world: World, look: Look, tmp_path: Path
) -> None:
    entry = journalled(world, tmp_path, over=True)
    plants.hold(world, entry.move.migration, "cmp2a")
    (found,) = look().findings
    assert (found.code, found.mend) == ("allocation-without-server", None)
    for server in (None, SERVER):
        (found,) = look(moves=[entry], server=server).findings
        assert (found.code, found.where.server) == ("phantom-consumer", SERVER)
    assert look(moves=[entry], mend=True).findings == ()


def test_a_consumer_that_is_only_being_built_is_none_of_ours(world: World, look: Look) -> None:
    with world.api.write() as rows:
        rows.insert("instance_mappings", [plants.mapping(GONE) | {"cell_id": None}])
    plants.hold(world, GONE, "cmp1b")
    world.network.add_port(GONE, "cmp1b")
    volume = world.volumes.add_volume()
    world.volumes.reserve(volume, GONE)
    assert look().findings == ()


def journalled(world: World, folder: Path, *, over: bool) -> Entry:
    journal = Journal(folder / "journal.db")
    move = world.move("resize")
    journal.open_move("resize", move)
    if over:
        journal.write(move.id, "", Mark.TAKEN_BACK)
    return journal.entry(move.id)


def test_a_server_of_an_open_move_is_under_way_and_no_finding(
    world: World, look: Look, tmp_path: Path
) -> None:
    entry = journalled(world, tmp_path, over=False)
    plants.inactive_binding(world)
    plants.checkpoint(world)
    plants.guard_left(world)
    found = look(moves=[entry], mend=True)
    assert (found.findings, found.mended) == ((), ())
    (way,) = found.under_way
    assert (way.server, way.name) == (SERVER, "web-1")
    assert "cellmove show 1" in way.do
    assert codes(look()) == {"guard-left"}


def test_a_guest_that_runs_twice_is_told_even_while_a_move_is_open(
    world: World, look: Look, tmp_path: Path
) -> None:
    entry = journalled(world, tmp_path, over=False)
    plants.running_twice(world)
    assert codes(look(moves=[entry])) == {"running-twice"}


def test_what_nova_works_on_is_under_way(world: World, look: Look) -> None:
    plants.inactive_binding(world)
    plants.changed(world, task_state="rebooting")
    found = look()
    assert found.findings == ()
    assert [each.why for each in found.under_way] == ["task_state rebooting in cell1"]


def test_a_live_migration_is_under_way_on_both_hosts(world: World, look: Look) -> None:
    plants.migrated(world, "running")
    with world.cells[CELL1.uuid].write() as rows:
        rows.change(
            "migrations",
            {"migration_type": "live-migration", "dest_compute": "cmp1b"},
            uuid=MIGRATION,
        )
    plants.defined(world, "cmp1b", SERVER, running=True)
    found = look()
    assert found.findings == ()
    assert len(found.under_way) == 1


def test_a_resize_that_waits_for_its_end_may_have_all_it_has(world: World, look: Look) -> None:
    plants.resized(world)
    assert (look().findings, look().under_way) == ((), ())
    # But not a guest where it came from, nor anything on a third host.
    plants.defined(world, "cmp1a", SERVER, running=False)
    plants.directory_left(world)
    assert {(each.code, each.where.host) for each in look().findings} == {
        ("guest-left", "cmp1a"),
        ("directory-left", "cmp1b"),
    }


def test_the_disks_of_a_resize_within_a_cell_are_no_leftover(world: World, look: Look) -> None:
    plants.migrated(world, "finished")
    plants.changed(world, vm_state="resized")
    world.hosts.by_name["cmp1a"].make_directory(f"{SERVER}_resize")
    assert look().findings == ()
    plants.changed(world, vm_state="active")
    with world.cells[CELL1.uuid].write() as rows:
        rows.delete("migrations", uuid=MIGRATION)
    (found,) = look().findings
    assert (found.code, found.thing) == ("directory-left", f"{SERVER}_resize")


def test_what_novas_own_failed_confirm_leaves_is_found_and_its_commands_lead_out(
    world: World, look: Look
) -> None:
    plants.resized(world)
    here = world.cells[CELL2.uuid]
    with here.write() as rows:
        rows.change("migrations", {"status": "error"}, instance_uuid=SERVER, cross_cell_move=1)
        rows.change("instances", {"vm_state": "error"}, uuid=SERVER)
    (found,) = look().findings
    assert (found.code, found.where.cell, found.where.host) == ("hidden-copy", "cell1", "cmp1a")
    migration, row, confirm = found.do
    assert migration.startswith("mysql cell2 -e 'UPDATE migrations SET status = '")
    assert row.startswith("mysql cell2 -e 'UPDATE instances SET vm_state = '")
    assert confirm == f"cellmove confirm {SERVER}"
    with here.write() as rows:
        rows.change("migrations", {"status": "finished"}, instance_uuid=SERVER, status="error")
        rows.change("instances", {"vm_state": "resized"}, uuid=SERVER)
    for step in plan("confirm", world.move("confirm")):
        perform(step, world)
    assert look().findings == ()


def test_what_novas_own_failed_resize_leaves_is_found(world: World, look: Look) -> None:
    """Its roll-back after the guest was stopped: contexts, bindings, reservations may stay."""
    plants.port_elsewhere(world)
    plants.migration_context(world)
    plants.resize_note(world)
    plants.stale_reservation(world)
    plants.changed(world, vm_state="error")
    assert codes(look()) == {
        "port-elsewhere",
        "migration-context",
        "resize-note",
        "stale-reservation",
    }


def test_on_shared_storage_a_directory_is_everywhere(world: World, look: Look) -> None:
    plants.directory_left(world)
    world.hosts.by_name["cmp1b"].is_shared = True
    assert look().findings == ()
    world.hosts.by_name["cmp1b"].make_directory(GONE)
    assert [each.where.server for each in look().findings] == [GONE]


def test_somebody_elses_guest_is_nobodys_business(world: World, look: Look) -> None:
    world.hosts.by_name["cmp1b"].define(
        DOMAIN.format(name="vm", server=GONE, mac="fa:16:3e:00:00:09", device="tapx")
    )
    assert look().findings == ()


def test_only_what_stays_is_told(world: World, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    plants.inactive_binding(world)
    (port,) = world.network.ports(SERVER)
    monkeypatch.setattr(
        "cellmove.audit.whole.time.sleep", lambda _: world.network.unbind(port.id, "cmp2b")
    )
    assert look().findings == ()


def test_an_audit_of_a_cell_looks_at_no_other_cells_hosts(world: World, look: Look) -> None:
    plants.directory_left(world)
    plants.port_without_server(world)
    world.hosts.unreachable.update({"cmp2a", "cmp2b"})
    assert codes(look(cell="cell1")) == {"directory-left"}
    found = look(cell="cell2")
    assert codes(found) == {"port-without-server", "unreachable"}
    assert found.hosts == 0


@pytest.mark.parametrize("asked", [{"cell": "cell9"}, {"server": "web-9"}])
def test_what_is_unknown_is_refused(world: World, look: Look, asked: dict[str, str]) -> None:
    with pytest.raises(Refused, match="9") as refused:
        look(**asked)
    assert refused.value.seen
    assert refused.value.do


def test_without_cinder_nothing_is_said_of_volumes_but_that(
    world: World, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_args: object) -> Any:
        raise Unreachable("The cloud has no Cinder.", "None.", "Add one.")

    monkeypatch.setattr(world.volumes, "all_attachments", absent)
    assert codes(look()) == {"unreachable"}
    for cell in world.cells.values():
        with cell.write() as rows:
            rows.change("block_device_mapping", {"attachment_id": None}, expect=None, deleted=0)
    assert look().findings == ()


def test_the_worst_comes_first(world: World, look: Look) -> None:
    plants.spec_flavor(world)
    plants.inactive_binding(world)
    plants.running_twice(world)
    plants.no_allocation(world)
    found = [each.severity for each in look().findings]
    assert found == sorted(found, key=list(Severity).index)
    assert len(set(found)) == 4


def test_statements_grow_with_cells_and_not_with_servers(world: World, look: Look) -> None:
    look()
    counts = []
    for more in (0, 40):
        for n in range(more):
            server = f"{n:08d}-0000-4000-8000-000000000000"
            add_server(world.api, world.cells[CELL1.uuid], uuid=server, host="cmp1a")
        with counted(world.api) as api, counted(world.cells[CELL1.uuid]) as cell:
            found = look()
        counts.append((len(api) / (1 + bool(more)), len(cell) / (1 + bool(more))))
    assert len(found.findings) == 40 * 2, "no allocation, no guest"
    assert counts[0] == counts[1], "two looks instead of one"


def test_the_command_answers_in_both_forms(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellmove.audit.whole.time.sleep", lambda _: None)
    clean = terminal.type("audit")
    assert (clean.code, clean.out) == (
        0,
        "3 server(s) and 4 host(s) looked at: 0 finding(s); 0 under way.\n",
    )
    assert not terminal.journal.exists()
    plants.inactive_binding(terminal.world)
    plants.changed(terminal.world, display_name="a\x1b[31m")
    found = terminal.type("audit", "--server", SERVER)
    assert found.code == 7
    assert "inactive-binding" in found.out
    assert f"cellmove audit --server {SERVER} --mend" in found.out
    assert "\x1b" not in found.out
    (one,) = terminal.type("audit", "--json").json["findings"]
    assert (one["code"], one["severity"], one["host"]) == (
        "inactive-binding",
        "left over",
        "cmp2b",
    )
    assert one["safe"]


def test_mend_asks(terminal: Terminal, answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellmove.audit.whole.time.sleep", lambda _: None)
    plants.inactive_binding(terminal.world)
    assert terminal.type("audit", "--mend").code == 2
    before = terminal.world.snapshot()
    answers("n\n")
    assert terminal.type("audit", "--mend").code == 7
    assert terminal.world.snapshot() == before
    answers("y\n")
    mended = terminal.type("audit", "--mend", "--json")
    assert (mended.code, mended.json["findings"]) == (0, [])
    (one,) = mended.json["mended"]
    assert (one["code"], one["error"]) == ("inactive-binding", None)
    assert terminal.type("audit", "--mend", "--yes").code == 0


def test_what_resists_is_told(world: World, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    plants.inactive_binding(world)

    def resist(*_args: object) -> None:
        raise Unreachable("Neutron cannot be reached.", "Nobody answers.", "Try again.")

    monkeypatch.setattr(world.network, "unbind", resist)
    found = look(mend=True)
    assert codes(found) == {"inactive-binding"}
    (one,) = found.mended
    assert isinstance(one.error, Unreachable)
