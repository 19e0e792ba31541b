"""How one artifact spreads: who reads from whom, and what each copy waits for."""

from __future__ import annotations

import pytest

from coordinator.replication.layout import MAX_HOPS, depth, fan_out_for
from coordinator.replication.values import MIB, Origin, Plan, Spread, Start
from depot.artifact import ArtifactHash, Generation

ARTIFACT = ArtifactHash.of(b"an artifact")


def _spread(
    origins: str, targets: str, *, relays: int, fan_out: int = 1, start: Start = Start.NOW
) -> Spread:
    return Spread(
        artifact=ARTIFACT,
        origins=tuple(Origin(sled=name, start=start) for name in origins),
        targets=tuple(targets),
        relays=relays,
        fan_out=fan_out,
        max_sources=3,
    )


def _table(spread: Spread) -> list[str]:
    return [
        f"{copy.target} < {','.join(copy.sources)} {copy.start}"
        + (f" {copy.after}" if copy.after else "")
        for copy in spread.copies()
    ]


def test_chains_begin_at_each_origin_and_each_waits_for_the_one_before_to_begin() -> None:
    assert _table(_spread("AB", "cdefg", relays=5)) == [
        "c < A,B now",
        "d < B,A now",
        "e < c,A,B begun c",
        "f < d,B,A begun d",
        "g < e,c,A begun e",
    ]


def test_a_tree_serves_as_many_as_its_fan_out_from_each_node() -> None:
    assert _table(_spread("A", "bcdef", relays=5, fan_out=2)) == [
        "b < A now",
        "c < A now",
        "d < b,A begun b",
        "e < b,A begun b",
        "f < c,A begun c",
    ]


def test_without_relays_each_serves_one_after_the_other_what_it_has_whole() -> None:
    assert _table(_spread("A", "bcdefgh", relays=0)) == [
        "b < A now",
        "c < A finished b",
        "d < b,A finished b",
        "e < A finished c",
        "f < b,A finished d",
        "g < c,A finished c",
        "h < d,b,A finished d",
    ]


def test_what_a_put_brings_is_read_when_the_put_has_begun_or_ended() -> None:
    begun = _spread("A", "bc", relays=1, start=Start.BEGUN)
    assert _table(begun) == ["b < A begun A", "c < A finished b"]
    finished = _spread("A", "bc", relays=0, start=Start.FINISHED)
    assert _table(finished) == ["b < A finished A", "c < A finished b"]


def test_those_that_do_not_relay_come_last_after_whom_their_source_relays_to() -> None:
    assert _table(_spread("A", "bcxy", relays=2)) == [
        "b < A now",
        "c < b,A begun b",
        "x < A finished b",
        "y < b,A finished c",
    ]


@pytest.mark.parametrize(("size_bytes", "expected"), [(0, 6), (16 * MIB, 2), (1024 * MIB, 1)])
def test_large_artifacts_go_through_chains_and_small_ones_through_trees(
    size_bytes: int, expected: int
) -> None:
    found = fan_out_for(size_bytes, 97, 3, hop_bytes=2 * MIB, max_fan_out=8)
    assert found == expected


def test_no_chain_is_longer_than_agents_relay() -> None:
    fan_out = fan_out_for(1 << 40, 100_000, 1, hop_bytes=2 * MIB, max_fan_out=8)
    assert depth(100_000, 1, fan_out) <= MAX_HOPS


def test_a_plan_gives_the_copies_of_all_its_spreads() -> None:
    spreads = (_spread("A", "bc", relays=2), _spread("B", "d", relays=1))
    plan = Plan(generation=Generation(1), spreads=spreads)
    assert [copy.target for copy in plan.copies()] == ["b", "c", "d"]
    assert plan.copies_planned == 3
