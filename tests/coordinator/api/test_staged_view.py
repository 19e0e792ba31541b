from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coordinator.api.staged_view import not_on_sleds, render
from coordinator.api.standing import Known
from coordinator.replication.values import Inventory, SledInventory
from coordinator.values import KnownCoordinator, Sled, SledPolicy
from depot.artifact import ArtifactHash, Generation

A, B, C = (ArtifactHash.of(name) for name in (b"a", b"b", b"c"))
ALL = frozenset({A, B, C})
SLEDS = tuple(Sled(name, f"http://{name}:1", f"http://{name}:2") for name in ("s1", "s2"))
NOTHING_SEEN = Known(wanted=dict.fromkeys(ALL, 1), sleds=SLEDS, releases=(), target=None)


def seen(*sleds: SledInventory) -> Known:
    inventory = Inventory(generation=Generation(1), sizes=NOTHING_SEEN.wanted, sleds=sleds)
    return replace(NOTHING_SEEN, inventory=inventory)


BOTH = seen(SledInventory(id="s1", held={A: 1}), SledInventory(id="s2", held={B: 2}))


def test_f5_before_any_sled_was_asked_nothing_is_safe() -> None:
    assert not_on_sleds(NOTHING_SEEN, ALL) == ALL


def test_f5_one_sled_that_has_it_is_enough() -> None:
    assert not_on_sleds(BOTH, ALL) == {C}
    assert not_on_sleds(replace(BOTH, came={"s2": frozenset({C})}), ALL) == set()


def test_what_nobody_wants_need_not_be_safe() -> None:
    assert not_on_sleds(replace(NOTHING_SEEN, wanted={A: 1}), ALL) == {A}


def test_f5_what_a_sled_that_does_not_answer_once_had_is_not_safe() -> None:
    away = SledInventory(id="s1", held={A: 1}, set_aside="unreachable")
    assert not_on_sleds(seen(away, SledInventory(id="s2", held={B: 2})), ALL) == {A, C}


def test_f5_what_an_expunged_sled_has_is_not_safe() -> None:
    sleds = (SLEDS[0], replace(SLEDS[1], policy=SledPolicy.EXPUNGED))
    known = replace(BOTH, sleds=sleds, came={"s2": frozenset({C})})
    assert not_on_sleds(known, ALL) == {B, C}


def test_of_a_coordinator_counts_what_is_on_no_sled_and_in_no_other_staging() -> None:
    coordinators = tuple(KnownCoordinator(id_, "host", 1.0, 2.0) for id_ in ("c1", "c2", "c3"))
    staged = {"c1": frozenset({A, C}), "c2": frozenset({B})}
    found = render(coordinators, staged, BOTH)
    assert [(each.id, each.staged, each.only_there) for each in found] == [
        ("c1", 2, 1),
        ("c2", 1, 0),
        ("c3", 0, 0),
    ]
    found = render(coordinators, {**staged, "c2": frozenset({B, C})}, BOTH)
    assert [each.only_there for each in found] == [0, 0, 0]


class Unwalkable(dict[ArtifactHash, int]):
    """What a sled holds; it takes long to walk through that."""

    def __iter__(self) -> Iterator[ArtifactHash]:
        raise AssertionError("walked through all that a sled holds")


def test_what_is_staged_is_looked_up_among_all_that_a_sled_holds() -> None:
    held = Unwalkable({ArtifactHash.of(bytes([number])): 2 for number in range(9)} | {A: 1})
    assert not_on_sleds(seen(SledInventory(id="s1", held=held)), {A, B}) == {B}
