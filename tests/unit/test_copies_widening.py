"""When a copy takes one more source, and when it gives it back. Time is a number here."""

from __future__ import annotations

import pytest

from agent.copies.widening import MIB, Reading, Widening, WideningPolicy

POLICY = WideningPolicy()
SIZE = 4096 * MIB


class Copy:
    """A copy that goes at whatever rate the test says."""

    def __init__(self, policy: WideningPolicy = POLICY, size_bytes: int = SIZE) -> None:
        self.now_s, self.position, self.waited_s, self.size_bytes = 0.0, 0.0, 0.0, size_bytes
        self.widening = Widening(policy, self.reading())

    def reading(self) -> Reading:
        position = int(self.position)
        return Reading(self.now_s, position, self.waited_s, self.size_bytes - position)

    def run(self, seconds: float, rate: float, waiting: float = 1.0) -> int:
        """Go on at `rate`; how many sources there should be then."""
        for _ in range(round(seconds * 20)):
            self.now_s += 0.05
            self.position += rate * 0.05
            self.waited_s += waiting * 0.05
            self.widening.look(self.reading())
        return self.widening.sources


def test_it_begins_with_one() -> None:
    assert Copy().run(0.4, MIB) == 1


def test_one_that_does_not_give_enough_gets_company() -> None:
    assert Copy().run(0.6, 25 * MIB) == 2


def test_company_that_helps_stays_and_gets_more() -> None:
    copy = Copy()
    copy.run(0.6, 25 * MIB)
    assert copy.run(1.0, 50 * MIB) == 3
    assert copy.run(1.0, 75 * MIB) == 4


def test_there_are_never_more_than_allowed() -> None:
    copy = Copy(WideningPolicy(max_sources=2))
    copy.run(0.6, 10 * MIB)
    assert copy.run(20.0, 100 * MIB) == 2


def test_company_that_does_not_help_is_given_back_and_no_other_tried() -> None:
    copy = Copy()
    assert copy.run(0.6, 25 * MIB) == 2
    assert copy.run(1.0, 26 * MIB) == 1
    assert copy.run(60.0, 25 * MIB) == 1


def test_of_several_only_the_one_that_does_not_help_is_given_back() -> None:
    copy = Copy()
    copy.run(0.6, 25 * MIB)
    assert copy.run(1.0, 50 * MIB) == 3
    assert copy.run(1.0, 50 * MIB) == 2
    assert copy.run(60.0, 50 * MIB) == 2


def test_the_first_moments_of_a_new_source_are_not_held_against_it() -> None:
    copy = Copy()
    copy.run(0.6, 25 * MIB)
    copy.run(0.4, 20 * MIB)
    assert copy.run(0.6, 50 * MIB) >= 2


def test_what_the_copy_itself_is_the_limit_of_is_no_reason() -> None:
    assert Copy().run(60.0, 25 * MIB, waiting=0.3) == 1


def test_a_rate_that_is_enough_is_left_alone() -> None:
    assert Copy(size_bytes=1 << 50).run(60.0, 600 * MIB) == 1


@pytest.mark.parametrize("size_bytes", [MIB, 8 * MIB, 30 * MIB])
def test_what_is_soon_over_is_not_worth_it(size_bytes: int) -> None:
    assert Copy(size_bytes=size_bytes).run(0.6, 25 * MIB) == 1


def test_a_small_artifact_from_a_slow_source_is_not_worth_it_either() -> None:
    assert Copy(size_bytes=8 * MIB).run(5.0, 100_000) == 1


def test_one_source_at_most_means_one() -> None:
    assert Copy(WideningPolicy(max_sources=1)).run(60.0, MIB) == 1


def test_once_sources_were_lost_it_stays_with_what_is_left() -> None:
    copy = Copy()
    copy.run(0.6, 25 * MIB)
    copy.widening.lost(1)
    assert copy.run(60.0, 25 * MIB) == 1
