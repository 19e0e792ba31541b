from __future__ import annotations

from coordinator.api.fleet_view import MAX_NAMED, healing
from coordinator.replication.values import Inventory, Plan, SledInventory
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
