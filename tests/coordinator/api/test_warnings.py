from __future__ import annotations

from coordinator.api.fleet_view import MAX_NAMED, healing
from coordinator.replication.values import Plan
from depot.artifact import ArtifactHash, Generation

X = ArtifactHash.of(b"x")


def test_a_sled_that_heals_is_named_and_how_much_it_lacks() -> None:
    plan = Plan(generation=Generation(1), healing={"s1": (X,)})
    (said,) = healing(plan)
    assert "sled s1 has 1 artifacts on fewer datasets" in said
    assert [*healing(None), *healing(Plan(generation=Generation(1)))] == []


def test_of_many_sleds_that_heal_some_are_named() -> None:
    short = {f"s{number}": (X,) for number in range(MAX_NAMED + 7)}
    said = [*healing(Plan(generation=Generation(1), healing=short))]
    assert len(said) == MAX_NAMED + 1
    assert said[-1] == "so have 7 more sleds"
