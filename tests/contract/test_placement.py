"""What cellmove relies on in Placement."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from cellmove.errors import Conflict, StepFailed
from cellmove.model import Allocations, Candidate, ResourceGroup
from tests.contract.conftest import GUARANTEES, PlacementWorld

ONE = {"VCPU": 1, "MEMORY_MB": 128}


def wanted(consumer: str, provider: str, generation: int | None = None) -> Allocations:
    return Allocations(consumer, {provider: ONE}, generation, "a-project", "a-user")


def given(world: PlacementWorld, provider: str) -> Allocations:
    """A consumer that holds `ONE` of this provider."""
    consumer = world.new_consumer()
    world.placement.replace([wanted(consumer, provider)])
    return world.placement.allocations(consumer)


def test_an_unknown_consumer_holds_nothing_and_has_no_generation(
    placements: PlacementWorld,
) -> None:
    consumer = placements.new_consumer()
    assert placements.placement.allocations(consumer) == Allocations(consumer, {}, None)


def test_what_is_given_is_held(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    placements.placement.replace([wanted(consumer, placements.source)])
    held = placements.placement.allocations(consumer)
    assert held == replace(wanted(consumer, placements.source), generation=held.generation)
    assert held.generation is not None
    assert placements.placement.held()[consumer] == held.resources


def test_every_write_counts_the_generation_up(placements: PlacementWorld) -> None:
    held = given(placements, placements.source)
    placements.placement.replace([held])
    again = placements.placement.allocations(held.consumer)
    assert (held.generation, again.generation) == (1, 2)


def test_emptying_a_consumer_forgets_it(placements: PlacementWorld) -> None:
    held = given(placements, placements.source)
    placements.placement.replace([replace(held, resources={})])
    assert placements.placement.allocations(held.consumer) == Allocations(held.consumer, {}, None)


def test_emptying_nobody_makes_nobody(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    placements.placement.replace([Allocations(consumer, {}, None, "a-project", "a-user")])
    placements.placement.replace([wanted(consumer, placements.source)])
    assert placements.placement.allocations(consumer).generation == 1


def test_expecting_nobody_where_somebody_is_is_a_conflict(placements: PlacementWorld) -> None:
    held = given(placements, placements.source)
    with pytest.raises(Conflict):
        placements.placement.replace([replace(held, resources={}, generation=None)])
    assert placements.placement.allocations(held.consumer) == held


def test_changing_nothing_is_allowed(placements: PlacementWorld) -> None:
    placements.placement.replace([])


def test_an_allocation_moves_to_another_consumer_in_one_write(placements: PlacementWorld) -> None:
    held = given(placements, placements.source)
    free = placements.placement.free(placements.source)
    migration = placements.new_consumer()
    placements.placement.replace(
        [replace(held, resources={}), replace(held, consumer=migration, generation=None)]
    )
    assert placements.placement.allocations(held.consumer).resources == {}
    moved = placements.placement.allocations(migration)
    assert moved == replace(held, consumer=migration, generation=moved.generation)
    assert placements.placement.free(placements.source) == free


@pytest.mark.parametrize("generation", [None, 77])
def test_another_generation_is_a_conflict_and_changes_nothing(
    placements: PlacementWorld, generation: int | None
) -> None:
    held = given(placements, placements.source)
    other = placements.new_consumer()
    with pytest.raises(Conflict, match="generation"):
        placements.placement.replace(
            [
                wanted(other, placements.target),
                replace(held, resources={placements.target: ONE}, generation=generation),
            ]
        )
    assert placements.placement.allocations(held.consumer) == held
    assert placements.placement.allocations(other).generation is None


def test_a_generation_for_nobody_is_a_conflict(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    with pytest.raises(Conflict):
        placements.placement.replace([wanted(consumer, placements.source, generation=1)])
    assert placements.placement.allocations(consumer).generation is None


def test_no_room_is_a_conflict_that_says_so_and_changes_nothing(placements: PlacementWorld) -> None:
    held = given(placements, placements.source)
    other = placements.new_consumer()
    greedy = replace(wanted(other, placements.source), resources={placements.source: {"VCPU": 2}})
    placements.placement.replace([greedy])
    third = placements.new_consumer()
    with pytest.raises(Conflict, match="room"):
        placements.placement.replace(
            [replace(held, resources={}), replace(greedy, consumer=third),
             replace(greedy, consumer=placements.new_consumer())]
        )  # fmt: skip
    assert placements.placement.allocations(held.consumer) == held
    assert placements.placement.allocations(third).generation is None


def test_what_a_consumer_holds_already_is_room_for_itself(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    all_of_it = {placements.source: {"MEMORY_MB": 1024}}
    placements.placement.replace([replace(wanted(consumer, ""), resources=all_of_it)])
    held = placements.placement.allocations(consumer)
    placements.placement.replace([held])
    assert placements.placement.free(placements.source)["MEMORY_MB"] == 0


def test_more_than_one_consumer_may_have_is_no_room(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    too_much = {placements.source: {"VCPU": 3}}
    with pytest.raises(Conflict, match="room"):
        placements.placement.replace([replace(wanted(consumer, ""), resources=too_much)])


def test_a_resource_that_the_host_does_not_have_is_no_room(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    disk = {placements.source: {"DISK_GB": 1}}
    with pytest.raises(Conflict, match="room"):
        placements.placement.replace([replace(wanted(consumer, ""), resources=disk)])


def test_an_unknown_provider_is_refused(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    nowhere = str(uuid.uuid4())
    with pytest.raises(StepFailed):
        placements.placement.replace([wanted(consumer, nowhere)])
    with pytest.raises(StepFailed):
        placements.placement.free(nowhere)
    assert placements.placement.allocations(consumer).generation is None


def test_free_is_what_one_consumer_can_still_be_given(placements: PlacementWorld) -> None:
    assert placements.placement.free(placements.source) == {"VCPU": 2, "MEMORY_MB": 1024}
    for _ in range(3):
        given(placements, placements.source)
    assert placements.placement.free(placements.source) == {"VCPU": 1, "MEMORY_MB": 1024 - 3 * 128}
    assert placements.placement.free(placements.target) == {"VCPU": 2, "MEMORY_MB": 1024}


def asked(trait: str = "CUSTOM_VNIC_TYPE_NORMAL") -> ResourceGroup:
    return ResourceGroup("a-port", str(uuid.uuid4()), GUARANTEES, (trait,))


def test_a_host_alone_is_its_own_provider(placements: PlacementWorld) -> None:
    assert placements.placement.providers(placements.source) == {placements.source}


def test_nested_and_sharing_providers_belong_to_the_host(placements: PlacementWorld) -> None:
    switch, store = placements.new_switch(), placements.new_store()
    found = placements.placement.providers(placements.source)
    assert found == {placements.source, switch, store}
    assert placements.placement.providers(placements.target) == {placements.target, store}


def test_the_host_gives_what_it_has(placements: PlacementWorld) -> None:
    found = placements.placement.candidates(placements.source, ONE)
    assert found == (Candidate({placements.source: ONE}, {}),)


@pytest.mark.parametrize("needs", [{"VCPU": 3}, {"VCPU": 1, "MEMORY_MB": 2048}, {"DISK_GB": 1}])
def test_a_host_that_has_too_little_gives_nothing(
    placements: PlacementWorld, needs: dict[str, int]
) -> None:
    assert placements.placement.candidates(placements.source, needs) == ()


def test_what_others_hold_is_not_given_again(placements: PlacementWorld) -> None:
    consumer = placements.new_consumer()
    most = {placements.source: {"MEMORY_MB": 1000}}
    placements.placement.replace([replace(wanted(consumer, ""), resources=most)])
    assert placements.placement.candidates(placements.source, ONE) == ()


def test_a_port_is_served_by_a_nested_provider_of_its_kind(placements: PlacementWorld) -> None:
    switch, group = placements.new_switch(), asked()
    (found,) = placements.placement.candidates(placements.source, ONE, [group])
    assert found == Candidate({placements.source: ONE, switch: GUARANTEES}, {group.id: switch})


def test_two_ports_of_a_host_take_twice_of_its_one_switch(placements: PlacementWorld) -> None:
    switch, one, other = placements.new_switch(), asked(), asked()
    (found,) = placements.placement.candidates(
        placements.source, ONE, [one, replace(other, port="b-port")]
    )
    assert found.resources[switch] == {name: 2 * rate for name, rate in GUARANTEES.items()}
    assert found.chosen == {one.id: switch, other.id: switch}


def test_all_hosts_with_room_are_known_at_once(placements: PlacementWorld) -> None:
    both = {placements.source, placements.target}
    assert placements.placement.roomy(ONE) & both == both
    held = {placements.source: {"MEMORY_MB": 1000}}
    consumer = placements.new_consumer()
    placements.placement.replace([replace(wanted(consumer, ""), resources=held)])
    assert placements.placement.roomy(ONE) & both == {placements.target}
    assert placements.placement.roomy(ONE, required=["COMPUTE_TRUSTED_CERTS"]) & both == set()
    assert placements.placement.roomy(ONE, forbidden=["COMPUTE_TRUSTED_CERTS"]) & both == {
        placements.target
    }


def test_a_host_has_room_when_a_nested_provider_serves_its_ports(
    placements: PlacementWorld,
) -> None:
    placements.new_switch()
    placements.new_store()
    both = {placements.source, placements.target}
    assert placements.placement.roomy(ONE, [asked()]) & both == {placements.source}
    assert placements.placement.roomy(ONE | {"DISK_GB": 2}) & both == both


def test_no_port_is_served_by_a_provider_of_another_kind(placements: PlacementWorld) -> None:
    placements.new_switch()
    other = asked("CUSTOM_VNIC_TYPE_DIRECT")
    assert placements.placement.candidates(placements.source, ONE, [other]) == ()
    assert placements.placement.candidates(placements.target, ONE, [asked()]) == ()


def test_a_claim_on_several_providers_is_held_and_handed_over_whole(
    placements: PlacementWorld,
) -> None:
    placements.new_switch()
    (found,) = placements.placement.candidates(placements.source, ONE, [asked()])
    server, migration = placements.new_consumer(), placements.new_consumer()
    claim = replace(wanted(server, ""), resources=found.resources)
    placements.placement.replace([claim])
    held = placements.placement.allocations(server)
    assert held.resources == found.resources
    placements.placement.replace([replace(held, resources={}), replace(claim, consumer=migration)])
    assert placements.placement.allocations(server).resources == {}
    assert placements.placement.allocations(migration).resources == found.resources


def test_a_disk_is_taken_of_the_store_that_the_hosts_share(placements: PlacementWorld) -> None:
    store = placements.new_store()
    (found,) = placements.placement.candidates(placements.source, ONE | {"DISK_GB": 2})
    assert found.resources == {placements.source: ONE, store: {"DISK_GB": 2}}
