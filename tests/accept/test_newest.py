"""The newest nova judges what cellmove wrote: its objects load it, its API shows it throughout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cellmove.dbcopy.copy import leftovers
from tests.accept.newest.kit import Newest, newest_nova
from tests.fakes.databases import C1, C2, CELL1, CELL2
from tests.fakes.world import SERVER, VOLUMES

pytestmark = pytest.mark.lab

HOME, THERE = CELL1.uuid, CELL2.uuid
NOBODY = "00000000-0000-0000-0000-000000000000"
OF_A_ROW = {"id", "updated_at"}
"""Other ones in another cell's row."""
OF_A_STAY = {
    "auto_disk_config",  # nova switches it off with every resize
    "info_cache",
    "launched_at",
    "services",
    *OF_A_ROW,
}
"""What a move and its way back leave otherwise."""
OF_A_HOST = OF_A_STAY | {
    "availability_zone",
    "compute_id",
    "flavor",
    "host",
    "instance_type_id",
    "memory_mb",
    "migration_context",
    "new_flavor",
    "node",
    "old_flavor",
    "root_gb",
    "system_metadata",
    "vm_state",
}


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newest]:
    with newest_nova(tmp_path_factory.mktemp("newest")) as made:
        yield made


def but(value: Any, *names: str) -> Any:
    """The same without these keys, however deep, and without those of a row."""
    if isinstance(value, list):
        return [but(each, *names) for each in value]
    if not isinstance(value, dict):
        return value
    left = value.keys() - OF_A_ROW - set(names)
    return {key: but(each, *names) for key, each in value.items() if key in left}


def test_its_objects_load_the_resized_server_and_after_the_revert_what_they_loaded_before(
    newest: Newest,
) -> None:
    judge = newest.judge
    before, spec = judge.objects(HOME), judge.request_spec()

    assert newest.move("resize") == ["ACTIVE", "RESIZE", "VERIFY_RESIZE"]
    there = judge.objects(THERE)
    was, now = before["instance"], there["instance"]
    assert but(now, *OF_A_HOST) == but(was, *OF_A_HOST)
    assert (now["vm_state"], now["host"], now["hidden"]) == ("resized", "cmp2a", False)
    # The target cell's own ids, in the columns that nova 26 does not have.
    assert there["node"]["host"] == "cmp2a"
    *_, migration = sorted(there["migrations"], key=lambda each: int(each["id"]))
    assert there["to"] == {migration["uuid"]: "cmp2a"}
    assert (migration["status"], migration["cross_cell_move"]) == ("finished", True)
    assert now["migration_context"]["migration_id"] == migration["id"]
    names = [now[which]["name"] for which in ("flavor", "new_flavor", "old_flavor")]
    assert names == [C2.name, C2.name, C1.name]
    assert now["flavor"]["extra_specs"] == C2.extra_specs
    assert now["system_metadata"] == was["system_metadata"] | {"old_vm_state": "active"}
    assert {device["volume_id"] for device in there["devices"]} == {None, *VOLUMES.values()}
    assert but(there["vifs"]) == but(before["vifs"])
    assert but(there["actions"][1:], "action_id") == but(before["actions"], "action_id")
    assert {event["result"] for event in there["actions"][0]["events"]} == {"Success"}
    shown = newest.server()
    assert shown["OS-EXT-SRV-ATTR:host"] == "cmp2a"
    assert shown["flavor"]["original_name"] == C2.name
    assert shown["tags"] == ["blue", "green"]
    assert {each["id"] for each in shown["os-extended-volumes:volumes_attached"]} == {
        *VOLUMES.values()
    }

    assert newest.move("revert") == ["VERIFY_RESIZE", "REVERT_RESIZE", "ACTIVE"]
    after = judge.objects(HOME)
    assert but(after["instance"], *OF_A_STAY) == but(was, *OF_A_STAY)
    assert after["node"]["host"] == "cmp1a"
    assert but(after["devices"], "attachment_id") == but(before["devices"], "attachment_id")
    assert [each["action"] for each in after["actions"][:2]] == ["revertResize", "resize"]
    assert after["actions"][2:] == before["actions"]
    assert but(judge.request_spec(), "pci_requests") == but(spec, "pci_requests")
    with newest.world.cells[THERE].read() as rows:
        assert leftovers(rows, SERVER) == {}


def test_it_goes_on_with_the_confirmed_server_and_finds_nothing_where_it_was(
    newest: Newest,
) -> None:
    assert newest.move("resize") == ["ACTIVE", "RESIZE", "VERIFY_RESIZE"]
    assert newest.move("confirm") == ["VERIFY_RESIZE", "ACTIVE"]
    with newest.world.cells[HOME].read() as rows:
        assert leftovers(rows, SERVER) == {}  # before any tool of nova's has tidied up
    for cell in (HOME, THERE):
        # docs/databases.rst: else nova looks for the last server that it had seen here.
        with newest.world.cells[cell].write() as rows:
            rows.delete("virtual_interfaces", instance_uuid=NOBODY)
    newest.manage(THERE, "db", "online_data_migrations")
    for cell in (HOME, THERE):
        # 1: there was something to archive; 3: there was nothing to purge.
        newest.manage(cell, "db", "archive_deleted_rows", "--until-complete", ends=(0, 1))
        newest.manage(cell, "db", "purge", "--all", ends=(0, 3))
    newest.judge.rename(THERE, "web-2")
    there = newest.judge.objects(THERE)
    assert there["instance"]["display_name"] == newest.server()["name"] == "web-2"
    assert there["node"]["host"] == "cmp2a"
    assert there["instance"]["migration_context"] is None
    assert there["instance"]["flavor"]["name"] == C2.name
    assert newest.judge.request_spec()["flavor"]["name"] == C2.name
    assert newest.look() == "ACTIVE"
