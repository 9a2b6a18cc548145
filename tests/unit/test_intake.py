"""Every refusal is reached from the cloud as it is found, says three sentences, touches nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cellmove.errors import Exit, Refusals, Refused
from cellmove.intake import intake_resize, locate
from cellmove.model import Cell, Move
from tests.fakes.databases import C1, C2, CELL1, CELL2, NEIGHBOURS, PROJECT, USER, add_server
from tests.fakes.hypervisor import FakeFile
from tests.fakes.placement import Inventory
from tests.fakes.world import ACTOR, GIB, REQUESTS, SERVER, State, World
from tests.unit.rehearsal import Rehearsal

CELL0 = "00000000-0000-0000-0000-000000000000"
Spoil = Callable[[World], Any]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, State]:
    """A server that runs on cmp1a."""
    world = World(tmp_path_factory.mktemp("idle"))
    return world, world.save()


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, State]:
    """A server that waits on cmp2a to be confirmed or reverted."""
    world = World(tmp_path_factory.mktemp("resized"))
    return world, Rehearsal(world, "resize").end.state


@pytest.fixture
def world(idle: tuple[World, State]) -> World:
    return fresh(idle)


@pytest.fixture
def waiting(resized: tuple[World, State]) -> World:
    return fresh(resized)


def fresh(of: tuple[World, State]) -> World:
    world, state = of
    world.load(state)
    world.hosts.unreachable.clear()
    return world


def change(
    world: World, cell: Cell | None, table: str, values: dict[str, Any], **where: Any
) -> None:
    """Change rows behind nova's back: of a cell, or of the API database."""
    database = world.api if cell is None else world.cells[cell.uuid]
    with database.write() as rows:
        rows.change(table, values, expect=None, **where)


def insert(world: World, cell: Cell | None, table: str, **values: Any) -> int:
    database = world.api if cell is None else world.cells[cell.uuid]
    with database.write() as rows:
        ids = rows.insert(table, [values])
    return ids[0] if ids else 0


def instance(**values: Any) -> Spoil:
    return lambda world: change(world, CELL1, "instances", values, uuid=SERVER)


def extra(**values: Any) -> Spoil:
    return lambda world: change(world, CELL1, "instance_extra", values, instance_uuid=SERVER)


def bdm(**values: Any) -> Spoil:
    common = {"instance_uuid": SERVER, "uuid": "00000000-0000-4000-8000-0000000000b1"}
    return lambda world: insert(world, CELL1, "block_device_mapping", **common, **values)


def service(host: str, cell: Cell, **values: Any) -> Spoil:
    return lambda world: change(world, cell, "services", values, host=host)


def port(**facts: Any) -> Spoil:
    def spoil(world: World) -> None:
        (found,) = world.network.ports(SERVER)
        kept = world.network._ports[found.id]
        kept.port = replace(kept.port, **facts)

    return spoil


def binding(**facts: Any) -> Spoil:
    def spoil(world: World) -> None:
        (found,) = world.network.ports(SERVER)
        bindings = world.network._ports[found.id].bindings
        bindings["cmp1a"] = replace(bindings["cmp1a"], **facts)

    return spoil


def group(policy: str, member: str) -> Spoil:
    def spoil(world: World) -> None:
        made = insert(
            world,
            None,
            "instance_groups",
            uuid="00000000-0000-4000-8000-0000000000aa",
            name="together",
            user_id=USER,
            project_id=PROJECT,
        )
        insert(world, None, "instance_group_policy", group_id=made, policy=policy)
        for each in (SERVER, member):
            insert(world, None, "instance_group_member", group_id=made, instance_uuid=each)

    return spoil


def source(world: World) -> Any:
    return world.hosts.by_name["cmp1a"]


def target(world: World) -> Any:
    return world.hosts.by_name["cmp2a"]


def pci(world: World) -> None:
    text = json.dumps([{"count": 1, "spec": [], "alias_name": "gpu"}])
    change(world, CELL1, "instance_extra", {"pci_requests": text}, instance_uuid=SERVER)


def flavor_spec(world: World) -> None:
    insert(
        world, None, "flavor_extra_specs", flavor_id=C2.id, key="hw:cpu_policy", value="dedicated"
    )


def full(name: str) -> Spoil:
    room = {"VCPU": 16, "MEMORY_MB": 4096, "DISK_GB": 100} | {name: 1}

    def spoil(world: World) -> None:
        (node,) = world.query(CELL2.uuid, "SELECT uuid FROM compute_nodes WHERE host = 'cmp2a'")
        world.placement.add_provider(
            node["uuid"], {each: Inventory(total) for each, total in room.items()}
        )

    return spoil


def guaranteed(world: World) -> None:
    """A port that wants what no switch of the target gives."""
    (found,) = world.network.ports(SERVER)
    world.network.add_group(found.id, {"NET_BW_EGR_KILOBIT_PER_SEC": 1})


def flavor(**values: Any) -> Spoil:
    return lambda world: change(world, None, "flavors", values, id=C2.id)


def big_root(world: World) -> None:
    directory = source(world).directories[SERVER]
    directory["disk"] = replace(directory["disk"], size_bytes=5 * GIB)


def stale(world: World) -> None:
    change(world, CELL1, "migrations", {"status": "finished"}, instance_uuid=SERVER)


def leftover(world: World) -> None:
    insert(world, CELL2, "tags", resource_id=SERVER, tag="left")


def host_device(world: World) -> None:
    guest = source(world).domains[SERVER]
    xml = guest.xml.replace("<devices>", "<devices><hostdev mode='subsystem' type='pci'/>")
    source(world).domains[SERVER] = replace(guest, xml=xml)


def strange_firmware(world: World) -> None:
    guest = source(world).domains[SERVER]
    xml = guest.xml.replace("/var/lib/libvirt/qemu/nvram/", "/srv/nvram/")
    source(world).domains[SERVER] = replace(guest, xml=xml)


def ephemeral(world: World) -> None:
    source(world).directories[SERVER]["disk.eph0"] = FakeFile("qcow2", GIB, b"")


def checkpoint(world: World) -> None:
    source(world).checkpoints_[SERVER] = ["nightly"]


REFUSED: dict[str, tuple[Spoil, str]] = {
    "a server in error": (instance(vm_state="error"), "Only a running or stopped server"),
    "a resized server": (instance(vm_state="resized"), "Only a running or stopped server"),
    "a busy server": (instance(task_state="rebooting"), "Something else works on the server."),
    "a server that never ran": (instance(launched_at=None), "The server was never launched."),
    "a volume that is half attached": (
        bdm(source_type="volume", destination_type="volume", volume_id="v1", boot_index=None),
        "nova's record of volume v1 is not complete.",
    ),
    "a smaller ephemeral disk": (ephemeral, "Ephemeral disks never shrink."),
    "a first ephemeral disk": (flavor(ephemeral_gb=1), "A first ephemeral disk is not made yet."),
    "a NUMA topology": (extra(numa_topology="{}"), "Servers with pinned CPUs, NUMA nodes"),
    "persistent memory": (extra(resources="{}"), "Servers with persistent memory"),
    "a PCI request": (pci, "Servers with PCI devices"),
    "an image that wants a TPM": (
        lambda world: insert(
            world,
            CELL1,
            "instance_system_metadata",
            instance_uuid=SERVER,
            key="image_hw_tpm_version",
            value="2.0",
        ),
        "Servers with a virtual TPM",
    ),
    "a source without libvirt": (
        lambda world: change(
            world, CELL1, "compute_nodes", {"hypervisor_type": "ironic"}, host="cmp1a"
        ),
        "Servers of other hypervisors",
    ),
    "a target without libvirt": (
        lambda world: change(
            world, CELL2, "compute_nodes", {"hypervisor_type": "VMware"}, host="cmp2a"
        ),
        "Servers of other hypervisors",
    ),
    "a target that lacks the guest's machine": (
        lambda world: setattr(target(world), "machines", frozenset()),
        "cmp2a cannot run the guest.",
    ),
    "firmware variables in a strange place": (
        strange_firmware,
        "Servers whose firmware keeps its variables in an unusual place",
    ),
    "large firmware variables": (
        lambda world: source(world).nvrams.update(
            dict.fromkeys(source(world).nvrams, bytes(1 << 21))
        ),
        "The firmware's variables are too large to be moved.",
    ),
    "a disabled flavor": (flavor(disabled=True), "Flavor c2 is disabled."),
    "a flavor with extra specs": (flavor_spec, "Servers with pinned CPUs, NUMA nodes"),
    "swap of another size": (flavor(swap=64), "Swap of another size is not made yet."),
    "a guest with checkpoints": (checkpoint, "The guest on cmp1a has libvirt checkpoints."),
    "a flavor with a smaller root disk": (flavor(root_gb=1), "A root disk never shrinks."),
    "a flavor without a root disk": (flavor(root_gb=0), "A root disk never shrinks."),
    "a root disk that has grown": (big_root, "A root disk never shrinks."),
    "a source whose nova-compute is down": (
        service("cmp1a", CELL1, forced_down=True),
        "nova-compute on cmp1a is not up.",
    ),
    "a target whose nova-compute is down": (
        service("cmp2a", CELL2, forced_down=True),
        "nova-compute on cmp2a is not up.",
    ),
    "a disabled target": (
        service("cmp2a", CELL2, disabled=True),
        "nova-compute on cmp2a is disabled.",
    ),
    "a target that is too old": (
        service("cmp2a", CELL2, version=46),
        "nova-compute on cmp2a is too old.",
    ),
    "a port that is not bound": (
        binding(vif_type="binding_failed"),
        "Only plain Open vSwitch ports",
    ),
    "a hybrid port": (binding(details={"ovs_hybrid_plug": True}), "Only plain Open vSwitch"),
    "a direct port": (binding(vnic_type="direct"), "Servers with SR-IOV"),
    "a port whose rate nobody guarantees there": (guaranteed, "There is no room on cmp2a."),
    "a trunk": (port(is_trunk_parent=True), "Ports with subports are not moved."),
    "a port bound elsewhere": (binding(host="cmp1b"), "A port is not bound where the server is."),
    "a server without an allocation": (
        lambda world: world.placement._consumers.pop(SERVER),
        "The server's allocation in Placement is not as it should be.",
    ),
    "a target without memory": (full("MEMORY_MB"), "There is no room on cmp2a."),
    "a target without disk": (full("DISK_GB"), "There is no room on cmp2a."),
    "anti-affinity": (
        group("anti-affinity", NEIGHBOURS["cmp2a"]),
        "The server's group keeps it off cmp2a.",
    ),
    "affinity": (
        group("affinity", NEIGHBOURS["cmp1a"]),
        "The server's group keeps its members together.",
    ),
    "no guest": (
        lambda world: source(world).domains.pop(SERVER),
        "There is no guest of the server on cmp1a.",
    ),
    "a guest that is off": (
        lambda world: source(world).shutdown(SERVER, 0),
        "nova and libvirt do not agree on the guest.",
    ),
    "a guest with a host device": (host_device, "Guests of this kind are not moved yet."),
    "no root disk": (
        lambda world: source(world).directories[SERVER].clear(),
        "The server's root disk is not on cmp1a.",
    ),
    "a further disk": (
        lambda world: (
            source(world).directories[SERVER].update({"disk.data": FakeFile("raw", GIB, b"")})
        ),
        "Servers with further local disks",
    ),
    "a directory left at the target": (
        lambda world: target(world).make_directory(SERVER),
        "A directory of this server is on cmp2a already.",
    ),
    "a guest left at the target": (
        lambda world: target(world).define(source(world).domains[SERVER].xml),
        "A guest of this server is on cmp2a already.",
    ),
    "a full file system at the target": (
        lambda world: setattr(target(world), "free", 1 << 20),
        "There is no room for the disks on cmp2a.",
    ),
    "an old migration that waits": (stale, "nova would take an old migration of the server"),
    "leftover rows in the target cell": (leftover, "already has records of the server"),
    "a host with no node": (
        lambda world: change(world, CELL1, "instances", {"host": "gone"}, uuid=SERVER),
        "The server is on no host that nova knows.",
    ),
    "two nodes of the source": (
        lambda world: insert(world, CELL1, "compute_nodes", **_second_node(world, "cmp1a")),
        "should hold one row of this kind.",
    ),
    "a server that is being built": (
        lambda world: insert(
            world, None, "build_requests", instance_uuid=SERVER, project_id=PROJECT, instance="{}"
        ),
        "There is no server",
    ),
    "a server without a cell": (
        lambda world: change(
            world, None, "instance_mappings", {"cell_id": None}, instance_uuid=SERVER
        ),
        "There is no server",
    ),
    "a server in cell0": (
        lambda world: change(
            world, None, "instance_mappings", {"cell_id": _cell0(world)}, instance_uuid=SERVER
        ),
        "There is no server",
    ),
    "a disabled target cell": (
        lambda world: change(world, None, "cell_mappings", {"disabled": True}, id=CELL2.id),
        "Host cmp2a cannot be the target.",
    ),
}


def _cell0(world: World) -> int:
    return int(world.query("api", "SELECT id FROM cell_mappings WHERE uuid = ?", CELL0)[0]["id"])


def _second_node(world: World, host: str) -> dict[str, Any]:
    with world.cells[CELL1.uuid].read() as rows:
        node = rows.all("compute_nodes", host=host)[0]
    other = {"uuid": "00000000-0000-4000-8000-0000000000cc", "hypervisor_hostname": "second"}
    return {name: value for name, value in node.items() if name != "id"} | other


def refused(world: World, ask: Callable[[], Move]) -> Refused:
    """The refusal; nothing at all was touched."""
    world._report_services()
    before = world.snapshot()
    with pytest.raises(Refused) as caught:
        ask()
    assert world.snapshot() == before
    assert caught.value.exit_code is Exit.REFUSED
    return caught.value


def resize(world: World, **asked: Any) -> Move:
    wish: dict[str, Any] = {"flavor": "c2", "to_host": "cmp2a", "to_cell": None} | asked
    return intake_resize(world.cloud, SERVER, actor=ACTOR, request_id=REQUESTS["resize"], **wish)


@pytest.mark.parametrize("why", list(REFUSED))
def test_a_resize_is_refused_for(world: World, why: str) -> None:
    spoil, what = REFUSED[why]
    spoil(world)
    error = refused(world, lambda: resize(world))
    assert not isinstance(error, Refusals), str(error)
    assert what in error.what
    assert error.seen
    assert error.do


@pytest.mark.parametrize(
    ("reason", "do"),
    [
        ("new disks", "Enable it, or choose another host with --to-host."),
        ("AUTO: lost", "Wait until nova enables it, or choose another host with --to-host."),
    ],
)
def test_why_a_target_is_disabled_is_told(world: World, reason: str, do: str) -> None:
    service("cmp2a", CELL2, disabled=True, disabled_reason=reason)(world)
    error = refused(world, lambda: resize(world))
    assert (error.seen, error.do) == (f"The reason given: {reason}.", do)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"flavor": "huge"}, "There is no flavor 'huge'."),
        ({"flavor": "c1"}, "The server has flavor 'c1' already."),
        ({"to_host": "nowhere"}, "nova knows no host 'nowhere'."),
        ({"to_host": "cmp1b"}, "Host cmp1b cannot be the target."),
        ({"to_cell": "cell1"}, "Host cmp2a is not in cell cell1."),
        ({"to_host": None, "to_cell": "cell9"}, "Cell 'cell9' cannot be the target."),
        ({"to_host": None, "to_cell": "cell1"}, "Cell 'cell1' cannot be the target."),
    ],
)
def test_a_wish_is_refused(world: World, asked: dict[str, Any], what: str) -> None:
    error = refused(world, lambda: resize(world, **asked))
    assert error.what == what
    assert error.seen
    assert error.do


def test_all_reasons_are_told_at_once(world: World) -> None:
    for why in ("a busy server", "a volume that is half attached", "a trunk", "a further disk"):
        REFUSED[why][0](world)
    error = refused(world, lambda: resize(world))
    assert isinstance(error, Refusals)
    assert len(error.reasons) == 4
    assert SERVER in error.what
    assert all(str(reason) in str(error) for reason in error.reasons)


def test_a_name_that_one_server_bears_is_its_uuid(world: World) -> None:
    assert locate(world.cloud, "web-1") == SERVER
    assert locate(world.cloud, SERVER) == SERVER
    assert locate(world.cloud, SERVER.upper().replace("-", "")) == SERVER


def test_a_resized_server_bears_its_name_once(waiting: World) -> None:
    assert locate(waiting.cloud, "web-1") == SERVER


def test_a_name_that_none_or_two_bear_is_refused(world: World) -> None:
    with pytest.raises(Refused, match=r"No cell has one\."):
        locate(world.cloud, "web-9")
    second = "22222222-2222-4333-8444-555555555555"
    add_server(world.api, world.cells[CELL2.uuid], uuid=second, host="cmp2b", name="web-1")
    with pytest.raises(Refused) as caught:
        locate(world.cloud, "web-1")
    assert SERVER in caught.value.seen
    assert second in caught.value.seen


def test_the_move_has_what_the_cloud_has(world: World) -> None:
    move = world.move("resize")
    (row,) = world.query(CELL1.uuid, "SELECT id FROM instances WHERE uuid = ?", SERVER)
    assert row["id"] > 100, "an id of cell1 that means nothing in cell2"
    assert (move.server, move.name, move.kind) == (SERVER, "web-1", "resize")
    assert (move.source.name, move.source.cell, move.source.zone) == ("cmp1a", CELL1, "az1")
    assert (move.target.name, move.target.cell, move.target.zone) == ("cmp2a", CELL2, "az2")
    assert (move.old_flavor, move.new_flavor.name) == (C1, "c2")
    assert (move.vm_state, move.power_state) == ("active", 1)
    assert (move.project_id, move.user_id) == (PROJECT, USER)
    assert (move.actor_user_id, move.actor_project_id) == (ACTOR.user_id, ACTOR.project_id)
    assert (move.conductor, move.request_id) == ("conductor-1", REQUESTS["resize"])
    assert [each.host for each in move.ports] == ["cmp1a"]
    assert [(each.name, each.size_bytes) for each in move.disks] == [("disk", 2 * GIB)]
    assert move.source_domain == f"instance-{row['id']:08x}" == source(world).domains[SERVER].name
    assert move.shutdown_timeout_seconds == 60


def test_without_a_flavor_it_is_a_migration(world: World) -> None:
    move = world.move("resize", None)
    assert move.kind == "migration"
    assert move.old_flavor == move.new_flavor == C1


def test_an_image_may_ask_for_another_shutdown_timeout(world: World) -> None:
    insert(
        world,
        CELL1,
        "instance_system_metadata",
        instance_uuid=SERVER,
        key="image_os_shutdown_timeout",
        value="7",
    )
    assert world.move("resize").shutdown_timeout_seconds == 7


def test_every_move_has_an_id_and_a_migration_of_its_own(world: World) -> None:
    first, second = world.move("resize"), world.move("resize")
    assert first.id != second.id
    assert first.migration != second.migration


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_what_ends_a_resize_is_the_same_move_again(waiting: World, verb: Any) -> None:
    move = waiting.move(verb)
    (migration,) = waiting.query(CELL2.uuid, "SELECT uuid FROM migrations WHERE status='finished'")
    assert move.migration == migration["uuid"]
    assert (move.source.name, move.target.name, move.vm_state) == ("cmp1a", "cmp2a", "active")
    assert (move.old_flavor.name, move.new_flavor.name) == ("c1", "c2")
    assert [each.name for each in move.disks] == ["disk"]


ENDING: dict[str, tuple[Spoil, str]] = {
    "a server that is busy": (
        lambda world: change(world, CELL2, "instances", {"task_state": "deleting"}, uuid=SERVER),
        "The server does not wait to be confirmed or reverted.",
    ),
    "a server that is active": (
        lambda world: change(world, CELL2, "instances", {"vm_state": "active"}, uuid=SERVER),
        "The server does not wait to be confirmed or reverted.",
    ),
    "a migration that somebody ends": (
        lambda world: change(
            world, CELL2, "migrations", {"status": "confirming"}, status="finished"
        ),
        "The server does not wait to be confirmed or reverted.",
    ),
    "a resize within the cell": (
        lambda world: change(
            world, CELL2, "migrations", {"cross_cell_move": False}, status="finished"
        ),
        "The server was resized within its cell, which is nova's own to end.",
    ),
    "a source host without a mapping": (
        lambda world: change(world, None, "host_mappings", {"host": "other"}, host="cmp1a"),
        "The server's source cell is not known.",
    ),
    "a source row that is shown": (
        lambda world: change(world, CELL1, "instances", {"hidden": False}, uuid=SERVER),
        "The server's records in cell1 are not hidden.",
    ),
    "a source row that is gone": (
        lambda world: change(world, CELL1, "instances", {"deleted": 1}, uuid=SERVER),
        "The server's records cannot be read.",
    ),
    "a source row of another move": (
        lambda world: change(
            world,
            CELL1,
            "migrations",
            {"uuid": "00000000-0000-4000-8000-0000000000dd"},
            status="post-migrating",
        ),
        "is not in cell1.",
    ),
    "an old guest that is back": (
        lambda world: source(world).define(target(world).domains[SERVER].xml),
        "The old guest is still defined on cmp1a.",
    ),
    "a resized guest that is gone": (
        lambda world: target(world).domains.pop(SERVER),
        "There is no guest of the server on cmp2a.",
    ),
}
REVERTING: dict[str, tuple[Spoil, str]] = {
    "a source whose nova-compute is down": (
        service("cmp1a", CELL1, forced_down=True),
        "nova-compute on cmp1a is not up.",
    ),
    "old disks that are gone": (
        lambda world: source(world).directories.pop(SERVER),
        "The server's root disk is not on cmp1a.",
    ),
    "a binding at the source that is gone": (
        lambda world: world.network.unbind(world.network.ports(SERVER)[0].id, "cmp1a"),
        "to go back to.",
    ),
    "room that is no longer held": (
        lambda world: world.placement._consumers.pop(
            world.query(CELL2.uuid, "SELECT uuid FROM migrations WHERE status = 'finished'")[0][
                "uuid"
            ]
        ),
        "The room on cmp1a is no longer held.",
    ),
}


@pytest.mark.parametrize(
    ("verb", "why"),
    [(verb, why) for verb in ("confirm", "revert") for why in ENDING]
    + [("revert", why) for why in REVERTING],
)
def test_the_end_of_a_resize_is_refused_for(waiting: World, verb: Any, why: str) -> None:
    spoil, what = (ENDING | REVERTING)[why]
    spoil(waiting)
    error = refused(waiting, lambda: waiting.move(verb))
    assert not isinstance(error, Refusals), str(error)
    assert what in error.what
    assert error.seen
    assert error.do


@pytest.mark.parametrize("verb", ["confirm", "revert"])
def test_a_server_that_was_not_resized_has_nothing_to_end(world: World, verb: Any) -> None:
    error = refused(world, lambda: world.move(verb))
    assert "Its vm_state is active" in error.seen
