"""A plan costs what the fleet is large: twice the sleds or artifacts, about twice the work.

The lines that run are counted, not seconds: how long a plan for 1,000 sleds takes is measured by
`make bench`.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import pytest

from coordinator.replication.plan import plan
from coordinator.replication.values import Policy
from tests.benchmarks.rows.planning import fleet_of

SLEDS, ARTIFACTS = 40, 60
TWICE = 2.3
"""With room for what grows with a logarithm."""
SHARES = (0.0, 0.5, 1.0)


def lines(sleds: int, artifacts: int, share: float) -> int:
    """How many lines are run for a plan of a fleet that holds a share of everything."""
    luck = Random(7)
    fleet = fleet_of(sleds, artifacts, lambda *_: luck.random() < share)
    count = 0

    def on_event(_frame: object, kind: str, _what: object) -> Any:
        nonlocal count
        count += kind == "line"
        return on_event

    before = sys.gettrace()
    sys.settrace(on_event)
    try:
        plan(fleet, Policy(), Random(1))
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("share", SHARES)
def test_twice_the_sleds_are_about_twice_the_work(share: float) -> None:
    assert lines(2 * SLEDS, ARTIFACTS, share) < TWICE * lines(SLEDS, ARTIFACTS, share)


@pytest.mark.parametrize("share", SHARES)
def test_twice_the_artifacts_are_about_twice_the_work(share: float) -> None:
    assert lines(SLEDS, 2 * ARTIFACTS, share) < TWICE * lines(SLEDS, ARTIFACTS, share)
