"""What holds of every plan, whatever is where."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from coordinator.replication.plan import plan
from coordinator.replication.values import (
    MIB,
    Inventory,
    Plan,
    Policy,
    SledInventory,
    Start,
)
from depot.artifact import ArtifactHash, Generation

ARTIFACTS = tuple(ArtifactHash.of(bytes([number])) for number in range(6))
WANTED = ARTIFACTS[:5]
# What a sled may have of an artifact: good copies, and whether it is arriving.
STATES = ((None, False), (None, True), (2, False), (1, False), (0, False), (2, True))
# Numbers are drawn and taken apart: a value drawn for each pair would take most of the time.
some_artifacts = st.integers(0, 2 ** len(ARTIFACTS) - 1).map(
    lambda bits: frozenset(each for n, each in enumerate(ARTIFACTS) if bits >> n & 1)
)
sleds = st.tuples(
    st.integers(0, len(STATES) ** len(ARTIFACTS) - 1),
    st.booleans(),
    st.sampled_from([None, 1.0, 100.0]),
    st.sampled_from([None, None, None, "it does not answer"]),
)


def _sled(
    name: str, states: int, relays: bool, pace: float | None, aside: str | None
) -> SledInventory:
    held, arriving = {}, set()
    for artifact in ARTIFACTS:
        states, state = divmod(states, len(STATES))
        copies, arrives = STATES[state]
        if copies is not None:
            held[artifact] = copies
        if arrives:
            arriving.add(artifact)
    return SledInventory(
        id=name,
        held=held,
        arriving=frozenset(arriving),
        relays=relays,
        pace_bytes_per_s=pace,
        set_aside=aside,
    )


def _inventory(
    sizes: list[int],
    sleds: list[tuple[int, bool, float | None, str | None]],
    staged_here: frozenset[ArtifactHash],
    staged_elsewhere: frozenset[ArtifactHash],
) -> Inventory:
    return Inventory(
        generation=Generation(3),
        sizes=dict(zip(WANTED, sizes, strict=True)),
        sleds=tuple(_sled(f"sled-{number}", *each) for number, each in enumerate(sleds)),
        staged_here=staged_here,
        staged_elsewhere=staged_elsewhere,
    )


inventories = st.builds(
    _inventory,
    st.lists(
        st.sampled_from([0, 1, MIB, 40 * MIB, 4096 * MIB]),
        min_size=len(WANTED),
        max_size=len(WANTED),
    ),
    st.lists(sleds, max_size=12),
    some_artifacts,
    some_artifacts,
)
policies = st.builds(
    Policy,
    min_sled_replication=st.integers(1, 4),
    puts_to_relays=st.integers(1, 3),
    max_fan_out=st.integers(1, 4),
    max_sources=st.integers(1, 4),
)
seeds = st.integers(0, 3)
Replica = tuple[ArtifactHash, str]


def _usable(inventory: Inventory) -> dict[str, SledInventory]:
    return {sled.id: sled for sled in inventory.sleds if sled.set_aside is None}


def _holds(sled: SledInventory, artifact: ArtifactHash) -> bool:
    return sled.held.get(artifact, 0) > 0


def _relayed_from(sled: SledInventory, artifact: ArtifactHash) -> bool:
    return sled.relays and artifact in sled.arriving and not _holds(sled, artifact)


def _planned(found: Plan) -> list[Replica]:
    puts = [(put.artifact, put.target) for put in found.puts]
    return [*puts, *((copy.artifact, copy.target) for copy in found.copies())]


def _can_be_given(inventory: Inventory, artifact: ArtifactHash) -> bool:
    return artifact in inventory.staged_here or any(
        _holds(sled, artifact) or _relayed_from(sled, artifact)
        for sled in _usable(inventory).values()
    )


@given(inventories, policies, seeds)
def test_f1_every_missing_replica_that_anybody_can_give_is_planned_exactly_once(
    inventory: Inventory, policy: Policy, seed: int
) -> None:
    missing = {
        (artifact, sled.id)
        for sled in _usable(inventory).values()
        for artifact in WANTED
        if not _holds(sled, artifact) and artifact not in sled.arriving
        if _can_be_given(inventory, artifact)
    }
    assert Counter(_planned(plan(inventory, policy, Random(seed)))) == Counter(missing)


@given(inventories, policies, seeds)
def test_who_gives_an_artifact_has_it_or_is_receiving_it_or_gets_it_in_this_plan(
    inventory: Inventory, policy: Policy, seed: int
) -> None:
    found = plan(inventory, policy, Random(seed))
    planned, usable = set(_planned(found)), _usable(inventory)
    assert {put.artifact for put in found.puts} <= inventory.staged_here
    for copy in found.copies():
        assert copy.target not in copy.sources
        assert 1 <= len(set(copy.sources)) == len(copy.sources) <= policy.max_sources
        for source in copy.sources:
            assert (
                _holds(usable[source], copy.artifact)
                or _relayed_from(usable[source], copy.artifact)
                or (copy.artifact, source) in planned
            )


@given(inventories, policies, seeds)
def test_a_copy_waits_for_what_brings_its_first_source_the_bytes_and_never_in_a_circle(
    inventory: Inventory, policy: Policy, seed: int
) -> None:
    found = plan(inventory, policy, Random(seed))
    usable = _usable(inventory)
    begun = {(put.artifact, put.target) for put in found.puts}
    served: dict[Replica, str] = {}
    for copy in found.copies():
        source = usable[copy.sources[0]]
        match copy.start, copy.after:
            case Start.NOW, None:
                at_hand = _holds(source, copy.artifact) or _relayed_from(source, copy.artifact)
                assert at_hand
            case Start.BEGUN, after:
                assert after == source.id
                assert source.relays
                assert (copy.artifact, after) in begun
            case Start.FINISHED, after:
                assert after is not None
                # What it waits for stands before it in the plan, so there is no circle.
                assert (copy.artifact, after) in begun
                assert after == source.id or served[copy.artifact, after] == source.id
            case found_instead:
                raise AssertionError(found_instead)
        begun.add((copy.artifact, copy.target))
        served[copy.artifact, copy.target] = source.id


@given(inventories, policies, seeds)
def test_f2_staging_lets_go_only_of_what_enough_sleds_in_service_hold(
    inventory: Inventory, policy: Policy, seed: int
) -> None:
    found = plan(inventory, policy, Random(seed))
    enough = max(1, min(policy.min_sled_replication, len(inventory.sleds)))
    for artifact in inventory.staged_here:
        holders = sum(_holds(sled, artifact) for sled in _usable(inventory).values())
        held = artifact in WANTED and holders >= enough
        assert (artifact in found.droppable) == held
        assert (artifact in found.unwanted) == (artifact not in WANTED)


@given(inventories, policies, seeds)
def test_each_wanted_artifact_is_somewhere_or_named(
    inventory: Inventory, policy: Policy, seed: int
) -> None:
    found = plan(inventory, policy, Random(seed))
    held = {
        artifact
        for artifact in WANTED
        if any(_holds(sled, artifact) for sled in _usable(inventory).values())
    }
    named = found.lost | found.out_of_reach | found.awaited
    assert named == set(WANTED) - held - inventory.staged_here
    assert len(named) == len(found.lost) + len(found.out_of_reach) + len(found.awaited)
    if len(_usable(inventory)) < len(inventory.sleds):
        assert not found.lost


@given(inventories, policies, seeds)
def test_a_seed_gives_one_plan_in_whatever_order_things_are_listed(
    inventory: Inventory, policy: Policy, seed: int
) -> None:
    turned = replace(
        inventory,
        sizes=dict(reversed(list(inventory.sizes.items()))),
        sleds=tuple(
            replace(sled, held=dict(reversed(list(sled.held.items()))))
            for sled in reversed(inventory.sleds)
        ),
    )
    assert plan(inventory, policy, Random(seed)) == plan(turned, policy, Random(seed))


@given(
    st.integers(2, 40),
    st.integers(1, 25),
    st.booleans(),
    st.sampled_from([1, MIB, 512 * MIB]),
    seeds,
)
def test_no_sled_of_an_empty_fleet_gets_more_than_its_share(
    number: int, artifacts: int, relays: bool, size_bytes: int, seed: int
) -> None:
    wanted = [ArtifactHash.of(bytes([each])) for each in range(artifacts)]
    fleet = Inventory(
        generation=Generation(1),
        sizes=dict.fromkeys(wanted, size_bytes),
        sleds=tuple(SledInventory(id=str(each), relays=relays) for each in range(number)),
        staged_here=frozenset(wanted),
    )
    found = plan(fleet, Policy(), Random(seed))
    serves = Counter(copy.sources[0] for copy in found.copies())
    of_one = Counter((copy.artifact, copy.sources[0]) for copy in found.copies())
    most_of_one = max(of_one.values(), default=0)
    if relays and most_of_one <= 1:
        # A chain: each passes on what it gets, and nobody anything twice.
        assert len({sled for _, sled in of_one}) == number - 1
        return
    puts = Counter(put.target for put in found.puts)
    assert max(puts.values()) <= -(-len(found.puts) // number)
    # A copy is not divided: a whole one more than the share, besides what one artifact asks of it.
    assert max(serves.values(), default=0) <= -(-found.copies_planned // number) + most_of_one
    assert most_of_one <= (Policy().max_fan_out if relays else number.bit_length())


@given(
    st.integers(1, 6),
    st.integers(1, 30),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([1, 2 * MIB, 64 * MIB]),
    seeds,
)
def test_no_sled_of_a_fleet_of_which_some_have_all_gets_more_than_its_share(
    holders: int, others: int, artifacts: int, relays: bool, size_bytes: int, seed: int
) -> None:
    wanted = [ArtifactHash.of(bytes([each])) for each in range(artifacts)]
    sleds = [
        SledInventory(
            id=str(each),
            relays=relays,
            held=dict.fromkeys(wanted, 2) if each < holders else {},
        )
        for each in range(holders + others)
    ]
    fleet = Inventory(
        generation=Generation(1), sizes=dict.fromkeys(wanted, size_bytes), sleds=tuple(sleds)
    )
    found = plan(fleet, Policy(), Random(seed))
    assert not found.puts
    serves = Counter(copy.sources[0] for copy in found.copies())
    of_one = Counter((copy.artifact, copy.sources[0]) for copy in found.copies())
    most_of_one = max(of_one.values())
    if relays and most_of_one == 1:
        # Chains from each that has it: nobody passes anything on twice.
        assert max(serves.values()) <= artifacts
        return
    assert most_of_one <= (Policy().max_fan_out if relays else len(sleds).bit_length())
    # At first nobody else can give anything: that is divided among those who have all.
    of_holders = -(-artifacts * min(others, holders * most_of_one) // holders)
    share = max(-(-found.copies_planned // len(sleds)), of_holders)
    assert max(serves.values()) <= share + most_of_one
