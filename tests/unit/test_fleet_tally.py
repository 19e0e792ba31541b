"""A soak in which something never happened is not taken for one in which all went well."""

from __future__ import annotations

from tests.system.tally import BY_EACH, Kind, Tally


def everything_once() -> Tally:
    tally = Tally(("a", "b"), at_least=1)
    for kind in Kind:
        for who in ("a", "b") if kind in BY_EACH else ("somebody",):
            tally.add(kind, who)
    return tally


def test_nothing_is_lacking_when_everything_happened_with_both() -> None:
    assert everything_once().lacking() == []


def test_everything_is_lacking_at_first() -> None:
    lacking = Tally(("a", "b"), at_least=1).lacking()
    assert len(lacking) == len(Kind) + len(BY_EACH)


def test_what_only_one_coordinator_was_asked_for_is_lacking() -> None:
    tally = Tally(("a", "b"), at_least=1)
    tally.add(Kind.DELETED, "a")
    assert "deleted b" in tally.lacking()
    assert "deleted a" not in tally.lacking()


def test_once_is_not_twice() -> None:
    tally = Tally((), at_least=2)
    tally.add(Kind.DATASET_LOST, "sled-0")
    assert "dataset lost" in tally.lacking()
    tally.add(Kind.DATASET_LOST, "sled-1")
    assert "dataset lost" not in tally.lacking()


def test_the_figures_are_said_by_kind() -> None:
    said = str(everything_once())
    assert "uploaded 1+1, " in said
    assert "coordinator killed 1, " in said
