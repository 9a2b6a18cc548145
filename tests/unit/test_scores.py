"""Whole verbs: every checkpoint on the way, and what is there and what is gone in the end."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import canonicalize

import pytest

from cellmove.journal import State, Verb
from cellmove.model import Cell
from cellmove.plan import CLEARED_RECORDS, CLEARED_SERVICES, CLEARING, SCORES
from cellmove.steps.base import Step
from tests.fakes.databases import CELL1, CELL2, CELLS
from tests.fakes.invariants import foreign, unsafe, unsound
from tests.fakes.world import SERVER, World
from tests.unit.checkpoints import line, table
from tests.unit.rehearsal import Rehearsal

# fmt: off
# step | mapped | row in the source cell | row in the target cell | migration there and there
#   | whose provider the server's and the migration's consumer hold
# A row: vm_state (`same`: as before) task_state power host hidden-or-shown.
CHECKPOINTS: dict[Verb, str] = {
    "resize": """
# CP 1: the server is locked
guard-server               | cell1  | same resize_prep on cmp1a shown       | -                                  | -              | -             | cmp1a  | -
# CP 2 and 3: migration and allocations
open-migration             | cell1  | same resize_prep on cmp1a shown       | -                                  | pre-migrating  | -             | cmp1a  | -
hold-source-allocation     | cell1  | same resize_prep on cmp1a shown       | -                                  | pre-migrating  | -             | -      | cmp1a
claim-target               | cell1  | same resize_prep on cmp1a shown       | -                                  | pre-migrating  | -             | cmp2a  | cmp1a
# CP 5: the hidden copy
copy-records               | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
bind-ports                 | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
reserve-target-attachments | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
note-target-attachments    | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
reserve-source-attachments | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
# CP 6: the target is claimed and prepared
write-target-claim         | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
write-source-claim         | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
make-target-directory      | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
define-target-guest        | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
keep-source-bases          | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
bring-bases                | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
precopy-disks              | cell1  | same resize_prep on cmp1a shown       | same resize_prep on cmp1a hidden   | pre-migrating  | pre-migrating | cmp2a  | cmp1a
# CP 7: the guest stops, its disk crosses
begin-at-source            | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
export-shared-to-target    | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
connect-shared-volumes     | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
store-shared-connections   | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
stop-source-guest          | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
copy-disks                 | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
forget-writes              | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
copy-firmware              | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
forget-source-guest        | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
note-source-attachments    | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
disconnect-source-volumes  | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
release-source-attachments | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
activate-target-bindings   | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
export-to-target           | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
connect-target-volumes     | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
store-target-connections   | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
place-target-volumes       | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
plug-target-ports          | cell1  | same resize_migrating on cmp1a shown  | same resize_prep on cmp1a hidden   | migrating      | pre-migrating | cmp2a  | cmp1a
# CP 8: the source is done
finish-at-source           | cell1  | same resize_migrated off cmp1a shown  | same resize_prep on cmp1a hidden   | post-migrating | pre-migrating | cmp2a  | cmp1a
# CP 10: it starts at the target
begin-at-target            | cell1  | same resize_migrated off cmp1a shown  | same resize_finish on cmp1a hidden | post-migrating | pre-migrating | cmp2a  | cmp1a
unplug-source-ports        | cell1  | same resize_migrated off cmp1a shown  | same resize_finish on cmp1a hidden | post-migrating | pre-migrating | cmp2a  | cmp1a
release-shared-attachments | cell1  | same resize_migrated off cmp1a shown  | same resize_finish on cmp1a hidden | post-migrating | pre-migrating | cmp2a  | cmp1a
launch-target-guest        | cell1  | same resize_migrated off cmp1a shown  | same resize_finish on cmp1a hidden | post-migrating | pre-migrating | cmp2a  | cmp1a
start-target-guest         | cell1  | same resize_migrated off cmp1a shown  | same resize_finish on cmp1a hidden | post-migrating | pre-migrating | cmp2a  | cmp1a
# CP 11: the target is done
finish-at-target           | cell1  | same resize_migrated off cmp1a shown  | resized - on cmp2a hidden          | post-migrating | finished      | cmp2a  | cmp1a
carry-changes-over         | cell1  | same resize_migrated off cmp1a shown  | resized - on cmp2a hidden          | post-migrating | finished      | cmp2a  | cmp1a
compare-records            | cell1  | same resize_migrated off cmp1a shown  | resized - on cmp2a hidden          | post-migrating | finished      | cmp2a  | cmp1a
# CP 12: the switch
show-target                | cell1  | same resize_migrated off cmp1a shown  | resized - on cmp2a shown           | post-migrating | finished      | cmp2a  | cmp1a
point-mapping              | cell2  | same resize_migrated off cmp1a shown  | resized - on cmp2a shown           | post-migrating | finished      | cmp2a  | cmp1a
hide-source                | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown           | post-migrating | finished      | cmp2a  | cmp1a
update-request-spec        | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown           | post-migrating | finished      | cmp2a  | cmp1a
close-source-events        | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown           | post-migrating | finished      | cmp2a  | cmp1a
close-target-events        | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown           | post-migrating | finished      | cmp2a  | cmp1a
""",
    "confirm": """
# CP 13c: locked
begin-confirm             | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | cmp1a
carry-history-over        | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | cmp1a
# CP 14c: the source is cleaned
remove-source-disks       | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | cmp1a
remove-source-firmware    | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | cmp1a
delete-source-attachments | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | cmp1a
delete-source-bindings    | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | cmp1a
release-source-allocation | cell2  | same resize_migrated off cmp1a hidden | resized - on cmp2a shown | post-migrating | confirming | cmp2a  | -
delete-source-records     | cell2  | -                                     | resized - on cmp2a shown | -              | confirming | cmp2a  | -
# CP 15c: confirmed
finish-confirm            | cell2  | -                                     | same - on cmp2a shown    | -              | confirmed  | cmp2a  | -
""",
    "revert": """
# CP 13r: locked
begin-revert               | cell2  | same resize_migrated off cmp1a hidden  | resized resize_reverting on cmp2a shown  | post-migrating | reverting | cmp2a  | cmp1a
restore-source-bases       | cell2  | same resize_migrated off cmp1a hidden  | resized resize_reverting on cmp2a shown  | post-migrating | reverting | cmp2a  | cmp1a
restore-request-spec       | cell2  | same resize_migrated off cmp1a hidden  | resized resize_reverting on cmp2a shown  | post-migrating | reverting | cmp2a  | cmp1a
carry-history-home         | cell2  | same resize_migrated off cmp1a hidden  | resized resize_reverting on cmp2a shown  | post-migrating | reverting | cmp2a  | cmp1a
# CP 14r: the source's row is told; the guest stops
carry-state-home           | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
reserve-source-attachments | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
carry-volumes-home         | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
reserve-target-attachments | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
stop-target-guest          | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
define-source-guest        | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
forget-target-guest        | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
unplug-target-ports        | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
note-target-attachments    | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
disconnect-target-volumes  | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
release-target-attachments | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
export-to-source           | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
connect-source-volumes     | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
store-source-connections   | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
place-source-volumes       | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
activate-source-bindings   | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
carry-changes-home         | cell2  | same resize_reverting off cmp1a hidden | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
# CP 14r: the switch home; the old guest starts
show-source                | cell2  | same resize_reverting off cmp1a shown  | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
point-mapping-home         | cell1  | same resize_reverting off cmp1a shown  | resized resize_reverting on cmp2a shown  | reverting      | reverting | cmp2a  | cmp1a
hide-target                | cell1  | same resize_reverting off cmp1a shown  | resized resize_reverting on cmp2a hidden | reverting      | reverting | cmp2a  | cmp1a
plug-source-ports          | cell1  | same resize_reverting off cmp1a shown  | resized resize_reverting on cmp2a hidden | reverting      | reverting | cmp2a  | cmp1a
start-source-guest         | cell1  | same resize_reverting off cmp1a shown  | resized resize_reverting on cmp2a hidden | reverting      | reverting | cmp2a  | cmp1a
return-allocation          | cell1  | same resize_reverting off cmp1a shown  | resized resize_reverting on cmp2a hidden | reverting      | reverting | cmp1a  | -
# CP 16r: reverted; the target is cleaned
finish-revert              | cell1  | same - on cmp1a shown                  | resized resize_reverting on cmp2a hidden | reverted       | reverting | cmp1a  | -
remove-target-disks        | cell1  | same - on cmp1a shown                  | resized resize_reverting on cmp2a hidden | reverted       | reverting | cmp1a  | -
remove-target-firmware     | cell1  | same - on cmp1a shown                  | resized resize_reverting on cmp2a hidden | reverted       | reverting | cmp1a  | -
release-source-bases       | cell1  | same - on cmp1a shown                  | resized resize_reverting on cmp2a hidden | reverted       | reverting | cmp1a  | -
delete-target-bindings     | cell1  | same - on cmp1a shown                  | resized resize_reverting on cmp2a hidden | reverted       | reverting | cmp1a  | -
delete-target-attachments  | cell1  | same - on cmp1a shown                  | resized resize_reverting on cmp2a hidden | reverted       | reverting | cmp1a  | -
delete-target-records      | cell1  | same - on cmp1a shown                  | -                                        | reverted       | -         | cmp1a  | -
""",
}
# fmt: on

FINISHING: tuple[Verb, ...] = ("confirm", "revert")


class Play:
    """A server resized, and from there both confirmed and reverted; each outside call is watched."""

    def __init__(self, folder: Path, vm_state: str, flavor: str | None) -> None:
        self.world = World(folder, vm_state)
        self.vm_state = vm_state
        self.flavor = flavor
        self.lines: dict[Verb, list[str]] = {}
        self.harm: list[str] = []
        self.neighbours = foreign(self.world)
        self.before = self.world.snapshot()
        self.spec_before = _spec(self.world)
        self.row_before = self.ask(CELL1, "instances", "uuid")[0]
        self.world.trap.watch = lambda: self.harm.extend(unsafe(self.world))
        self.ends = {"resize": self._run("resize")}
        for verb in FINISHING:
            self.world.load(self.ends["resize"].end.state)
            self.ends[verb] = self._run(verb)

    def after(self, verb: Verb) -> Rehearsal:
        """The world as it is when the verb is done."""
        self.world.load(self.ends[verb].end.state)
        return self.ends[verb]

    def ask(self, cell: Cell, table: str, column: str = "instance_uuid") -> list[dict[str, Any]]:
        """The server's rows in this table, newest first."""
        query = f"SELECT * FROM {table} WHERE {column} = ? ORDER BY id DESC"
        return self.world.query(cell.uuid, query, SERVER)

    def _run(self, verb: Verb) -> Rehearsal:
        lines = self.lines.setdefault(verb, [])

        def note(step: Step) -> None:
            lines.append(line(self.world, step.name, self.vm_state, step.move.migration))

        return Rehearsal(self.world, verb, self.flavor, note)


Played = Callable[[str, str | None], Play]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A play of this vm_state and flavor; each is played once."""

    @functools.cache
    def make(vm_state: str, flavor: str | None) -> Play:
        return Play(tmp_path_factory.mktemp("play"), vm_state, flavor)

    return make


def difference(
    before: dict[str, list[Any]], after: dict[str, list[Any]]
) -> dict[str, tuple[list[Any], list[Any]]]:
    """Table -> rows that are gone, rows that are new."""
    found = {
        name: (
            [row for row in was if row not in after[name]],
            [row for row in after[name] if row not in was],
        )
        for name, was in before.items()
    }
    return {name: (gone, new) for name, (gone, new) in found.items() if gone or new}


ALL = [
    pytest.param(vm_state, flavor, id=f"{vm_state}-{flavor}")
    for vm_state in ("active", "stopped")
    for flavor in ("c2", None)
]


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
@pytest.mark.parametrize("verb", list(SCORES))
def test_every_checkpoint_is_as_nova_has_it(
    played: Played, verb: Verb, vm_state: str, flavor: str | None
) -> None:
    expected = table(CHECKPOINTS[verb])
    if vm_state == "stopped":
        expected = [each.replace(" on cmp", " off cmp") for each in expected]
    assert played(vm_state, flavor).lines[verb] == expected


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
def test_at_no_moment_is_the_server_unsafe(
    played: Played, vm_state: str, flavor: str | None
) -> None:
    assert played(vm_state, flavor).harm == []


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
@pytest.mark.parametrize("verb", list(SCORES))
def test_after_each_verb_the_cloud_is_sound_and_the_neighbours_are_as_they_were(
    played: Played, verb: Verb, vm_state: str, flavor: str | None
) -> None:
    play = played(vm_state, flavor)
    assert play.after(verb).entry.state is State.FINISHED
    assert unsound(play.world) == []
    assert foreign(play.world) == play.neighbours


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
def test_a_revert_gives_back_everything_beside_the_source_cell(
    played: Played, vm_state: str, flavor: str | None
) -> None:
    play = played(vm_state, flavor)
    play.after("revert")
    after = play.world.snapshot()
    for name in (CELL2.uuid, "network", "placement"):
        assert play.before[name] == after[name], name
    assert set(difference(play.before["api"], after["api"])) <= {"request_specs"}
    assert _spec(play.world) == play.spec_before
    # What was brought into nova's cache is left to it.
    nobodys: dict[str, Any] = {"domains": {}, "bases": {}}
    for name, host in play.before["hosts"].items():
        assert host | nobodys == after["hosts"][name] | nobodys, name
        assert _guests(host) == _guests(after["hosts"][name])


def _spec(world: World) -> dict[str, Any]:
    """The request spec without a name that nova, too, writes into it with a new flavor."""
    query = "SELECT spec FROM request_specs WHERE instance_uuid = ?"
    (row,) = world.query("api", query, SERVER)
    spec: dict[str, Any] = json.loads(row["spec"])
    spec["nova_object.data"]["pci_requests"]["nova_object.data"].pop("instance_uuid", None)
    return spec


def _guests(host: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """The definitions without the spelling: they have been parsed and written again."""
    return {
        server: (name, state, canonicalize(xml, strip_text=True))
        for server, (name, state, xml) in host["domains"].items()
    }


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
def test_a_revert_adds_to_the_history_and_loses_nothing(
    played: Played, vm_state: str, flavor: str | None
) -> None:
    play = played(vm_state, flavor)
    done = play.after("revert")
    found = difference(play.before[CELL1.uuid], play.world.snapshot()[CELL1.uuid])
    history = {"migrations", "instance_actions", "instance_actions_events"}
    assert set(found) - {"instances", "instance_info_caches"} <= history
    assert [found[each][0] for each in history] == [[], [], []]
    newest = play.ask(CELL1, "migrations")[0]
    assert (newest["uuid"], newest["status"]) == (done.move.migration, "reverted")
    verb = "resize" if flavor else "migrate"
    actions = [row["action"] for row in play.ask(CELL1, "instance_actions")]
    assert actions == ["revertResize", verb, "resize", "create"]


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
def test_a_revert_leaves_the_servers_own_row_as_it_was(
    played: Played, vm_state: str, flavor: str | None
) -> None:
    play = played(vm_state, flavor)
    play.after("revert")
    (row,) = play.ask(CELL1, "instances", "uuid")
    changed = {name for name, value in row.items() if value != play.row_before[name]}
    # nova's own resize clears auto_disk_config, and its own revert leaves it so.
    assert changed == {"updated_at", "launched_at", "auto_disk_config"}


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
def test_a_confirm_leaves_nothing_in_the_source_cell_or_on_the_source(
    played: Played, vm_state: str, flavor: str | None
) -> None:
    play = played(vm_state, flavor)
    done = play.after("confirm")
    after = play.world.snapshot()
    assert [name for name, rows in after[CELL1.uuid].items() if SERVER in repr(rows)] == []
    orphans = "WHERE action_id NOT IN (SELECT id FROM instance_actions)"
    query = f"SELECT * FROM instance_actions_events {orphans}"
    assert play.world.query(CELL1.uuid, query) == []
    assert SERVER not in repr(after["hosts"]["cmp1a"])
    assert done.move.migration not in after["placement"]
    (port,) = play.world.network.ports(SERVER)
    (binding,) = play.world.network.bindings(port.id)
    assert (binding.host, binding.active) == ("cmp2a", True)


@pytest.mark.parametrize(("vm_state", "flavor"), ALL)
def test_a_confirm_leaves_no_trace_of_the_resize_on_the_server(
    played: Played, vm_state: str, flavor: str | None
) -> None:
    play = played(vm_state, flavor)
    play.after("confirm")
    (extra,) = play.ask(CELL2, "instance_extra")
    flavors = json.loads(extra["flavor"])
    assert extra["migration_context"] is None
    assert flavors["old"] is None
    assert flavors["new"] is None
    assert flavors["cur"]["nova_object.data"]["name"] == (flavor or "c1")
    metadata = play.ask(CELL2, "instance_system_metadata")
    assert "old_vm_state" not in [row["key"] for row in metadata]


@pytest.mark.parametrize("verb", list(SCORES))
def test_every_event_of_every_action_is_finished(played: Played, verb: Verb) -> None:
    play = played("active", "c2")
    play.after(verb)
    for cell in CELLS:
        events = play.world.query(cell.uuid, "SELECT * FROM instance_actions_events")
        assert [each["event"] for each in events if each["result"] != "Success"] == []


def test_a_server_that_was_reverted_can_be_moved_again(played: Played) -> None:
    play = played("active", "c2")
    play.after("revert")
    Rehearsal(play.world, "resize")
    Rehearsal(play.world, "confirm")
    assert unsound(play.world) == []
    assert foreign(play.world) == play.neighbours


def test_every_step_that_is_defined_stands_in_a_score() -> None:
    scores = [*SCORES.values(), *CLEARING.values(), *CLEARED_RECORDS.values(), CLEARED_SERVICES]
    assert defined(Step) == {step for score in scores for step in score}


def defined(kind: type[Any]) -> set[type[Step]]:
    """All concrete steps of the package."""
    found = {each for sub in kind.__subclasses__() for each in defined(sub)}
    ours = kind.__module__.startswith("cellmove.steps.")
    concrete = ours and "name" in vars(kind) and not inspect.isabstract(kind)
    return found | ({kind} if concrete else set())
