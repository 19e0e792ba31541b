"""How long a mass drop waits, with clocks that are wrong, set, or right (D4)."""

from __future__ import annotations

import pytest

from depot.config.grace import Grace

LONGEST_S = 600.0
START_S = 1_000_000.0
A_YEAR_S = 365 * 86400.0


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall_s = START_S
        self.monotonic_s = 50.0

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    def grace(self) -> Grace:
        return Grace(LONGEST_S, wall=lambda: self.wall_s, monotonic=lambda: self.monotonic_s)


def test_d4_a_grace_ends_when_it_says() -> None:
    clocks = Clocks()
    grace = clocks.grace()
    end_s = START_S + LONGEST_S
    assert grace.held_until_s(end_s) == end_s
    clocks.pass_s(LONGEST_S - 1)
    assert grace.held_until_s(end_s) == end_s
    clocks.pass_s(1)
    assert grace.held_until_s(end_s) == 0


def test_d4_a_grace_named_by_a_clock_far_ahead_lasts_no_longer_than_any_other() -> None:
    clocks = Clocks()
    grace = clocks.grace()
    end_s = START_S + A_YEAR_S
    assert grace.held_until_s(end_s) == START_S + LONGEST_S
    clocks.pass_s(LONGEST_S - 1)
    assert grace.held_until_s(end_s) == START_S + LONGEST_S
    clocks.pass_s(1)
    assert grace.held_until_s(end_s) == 0


def test_d4_a_clock_that_starts_at_zero_and_is_set_later_does_not_shorten_a_grace() -> None:
    clocks = Clocks()
    end_s = START_S + LONGEST_S
    clocks.wall_s = 0.0
    grace = clocks.grace()
    assert grace.held_until_s(end_s) == LONGEST_S
    clocks.wall_s = START_S + 10
    clocks.monotonic_s += 5
    assert grace.held_until_s(end_s) == end_s


def test_d4_another_grace_is_measured_from_its_own_beginning() -> None:
    clocks = Clocks()
    grace = clocks.grace()
    assert grace.held_until_s(START_S + A_YEAR_S)
    clocks.pass_s(LONGEST_S)
    later_s = START_S + 2 * A_YEAR_S
    assert grace.held_until_s(later_s) == clocks.wall_s + LONGEST_S
    clocks.pass_s(LONGEST_S)
    assert grace.held_until_s(later_s) == 0


@pytest.mark.parametrize("end_s", [0.0, START_S - 1, START_S])
def test_what_is_over_holds_nothing(end_s: float) -> None:
    assert Clocks().grace().held_until_s(end_s) == 0
