"""Which sled is asked for which part."""

from __future__ import annotations

from agent.snapshots.fleet_depots import Depots
from agent.snapshots.values import Version

VERSION = Version("state", "v1", "ab" * 32)


def test_they_are_asked_as_the_coordinator_has_them() -> None:
    depots = Depots()
    assert depots.in_turn((VERSION, 0)) == []
    depots.know(["b", "a", "c"])
    assert depots.in_turn((VERSION, 0)) == ["b", "a", "c"]


def test_one_that_failed_is_asked_last_whatever_the_part() -> None:
    depots = Depots()
    depots.know(["a", "b", "c"])
    depots.failed("a")
    assert depots.in_turn((VERSION, 0)) == ["b", "c", "a"]
    depots.failed("b")
    depots.failed("b")
    assert depots.in_turn((VERSION, 8)) == ["c", "a", "b"]


def test_who_asks_for_a_part_once_more_asks_another_sled() -> None:
    depots = Depots()
    depots.know(["a", "b"])
    depots.gives((VERSION, 0), "a")
    assert depots.in_turn((VERSION, 0)) == ["b", "a"]
    assert depots.in_turn((VERSION, 8)) == ["a", "b"]
    depots.failed("b")
    assert depots.in_turn((VERSION, 0)) == ["b", "a"]
    depots.gives((VERSION, 0), "b")
    assert depots.in_turn((VERSION, 0)) == ["a", "b"]
