from __future__ import annotations

from coordinator.api.fleet_view import MAX_NAMED, healing, lost_snapshots
from coordinator.replication.values import Inventory, Plan, SledInventory
from coordinator.values import FleetSnapshot
from depot.artifact import ArtifactHash, Generation

X = ArtifactHash.of(b"x")
GENERATION = Generation(1)


def inventory(*unwell: str) -> Inventory:
    sled = SledInventory(id="s1", unwell=unwell)
    return Inventory(generation=GENERATION, sizes={X: 1}, sleds=(sled,))


def test_a_sled_that_heals_is_named_and_how_much_it_lacks() -> None:
    plan = Plan(generation=GENERATION, healing={"s1": (X,)})
    assert [*healing(plan, inventory())] == [
        "sled s1 has 1 artifact on fewer datasets than it should: it heals that by itself"
    ]
    assert [*healing(None, None), *healing(Plan(generation=GENERATION), inventory())] == []


def test_a_dataset_that_keeps_it_from_healing_is_named() -> None:
    plan = Plan(generation=GENERATION, healing={"s1": (X,)})
    (said,) = healing(plan, inventory("dataset /b is missing (no such directory)"))
    assert said.endswith("than it should: dataset /b is missing (no such directory)")


def test_of_many_sleds_that_heal_some_are_named() -> None:
    short = {f"s{number}": (X,) for number in range(MAX_NAMED + 7)}
    said = [*healing(Plan(generation=GENERATION, healing=short), inventory())]
    assert len(said) == MAX_NAMED + 1
    assert said[-1] == "so have 7 more sleds"


def version(number: int) -> FleetSnapshot:
    return FleetSnapshot("state", f"v{number}", ArtifactHash.of(b"%d" % number), 1, 0.0, {})


def test_a_snapshot_that_is_nowhere_is_named_with_the_remedy() -> None:
    plan = Plan(generation=GENERATION, lost=frozenset({version(1).sha256, X}))
    (said,) = lost_snapshots(plan, [version(2), version(1)])
    assert said.startswith("snapshot state, version v1, is nowhere: publish it again")
    assert [*lost_snapshots(None, [version(1)])] == []
    of_many = Plan(generation=GENERATION, lost=frozenset(version(n).sha256 for n in range(25)))
    assert len([*lost_snapshots(of_many, map(version, range(25)))]) == MAX_NAMED + 1
