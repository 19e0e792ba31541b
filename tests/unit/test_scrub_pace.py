from __future__ import annotations

import pytest

from depot.scrub.pace import FLOOR_BYTES_PER_S, Aged, ScrubPace, condensed

DAY_S = 86400.0
NOW_S = 1_800_000_000.0
MAX = 500_000_000
PACE = ScrubPace(DAY_S, MAX)


def aged(age_s: float, size_bytes: int) -> Aged:
    return Aged(NOW_S - age_s, size_bytes)


def test_what_was_all_verified_just_now_is_due_within_the_interval() -> None:
    copies = [aged(0, 1_000_000)] * 864
    assert PACE.due_rate(copies, NOW_S) == pytest.approx(10_000)


def test_the_copy_that_is_due_first_sets_the_rate() -> None:
    # 1 GB that is due in 100 s, and much more that has time.
    copies = [aged(0, 10**12), aged(DAY_S - 100, 10**9)]
    assert PACE.due_rate(copies, NOW_S) == pytest.approx((10**12 + 10**9) / DAY_S, rel=0.01)
    assert PACE.due_rate(copies[1:], NOW_S) == pytest.approx(10**7)


def test_what_is_overdue_is_read_at_once() -> None:
    due = PACE.due_rate([aged(2 * DAY_S, 10**9)], NOW_S)
    assert PACE.rate(due, requested=False, busy=True) == MAX


def test_a_time_to_come_counts_as_now() -> None:
    assert PACE.due_rate([aged(-9 * DAY_S, 86400)], NOW_S) == pytest.approx(1)


@pytest.mark.parametrize("apart_s", [0.0, 1e-7, 7.3])
def test_many_copies_are_due_no_later_for_being_condensed_and_hardly_earlier(
    apart_s: float,
) -> None:
    every = [aged(number * apart_s, 1 + number % 977) for number in range(10_000)]
    few = condensed([copy.basis_s for copy in every], [copy.size_bytes for copy in every])
    assert len(few) < 1100
    assert sum(copy.size_bytes for copy in few) == sum(copy.size_bytes for copy in every)
    exact = PACE.due_rate(every, NOW_S)
    assert exact * 0.999_999 <= PACE.due_rate(few, NOW_S) <= exact * 1.01


def test_nothing_to_verify_takes_no_rate() -> None:
    assert PACE.due_rate([], NOW_S) == 0


@pytest.mark.parametrize(
    ("due_rate", "rate"),
    [(0, FLOOR_BYTES_PER_S), (10**8, 10**8), (10**12, MAX)],
)
def test_a_pass_is_at_least_at_the_floor_and_at_most_at_the_maximum(
    due_rate: float, rate: float
) -> None:
    assert PACE.rate(due_rate, requested=False, busy=False) == rate


def test_a_maximum_below_the_floor_is_kept() -> None:
    assert ScrubPace(DAY_S, 1000).rate(0, requested=False, busy=False) == 1000
    assert ScrubPace(DAY_S, 1000).rate(0, requested=True, busy=True) == 1000


def test_a_busy_node_gives_a_pass_what_it_needs_to_be_in_time_and_no_more() -> None:
    assert PACE.rate(0, requested=False, busy=True) == 0
    assert PACE.rate(12_345, requested=False, busy=True) == 12_345
    assert PACE.rate(10**12, requested=False, busy=True) == MAX


def test_a_requested_pass_is_as_fast_as_is_allowed_but_not_while_the_node_is_busy() -> None:
    assert PACE.rate(0, requested=True, busy=False) == MAX
    assert PACE.rate(0, requested=True, busy=True) == FLOOR_BYTES_PER_S


def test_a_busy_node_makes_its_interval() -> None:
    # Simulated: 1 TB, all of it verified at once, on a node that is never quiet.
    copies = [aged(0, 10**9)] * 1000
    now_s, read = NOW_S, 0
    while read < len(copies):
        rate = PACE.rate(PACE.due_rate(copies[read:], now_s), requested=False, busy=True)
        now_s += 10**9 / rate
        read += 1
    assert now_s - NOW_S <= DAY_S + 1


def test_a_pass_begins_when_the_oldest_copy_has_a_quarter_of_the_interval_left() -> None:
    assert not PACE.begins(NOW_S - 0.74 * DAY_S, 0, NOW_S)
    assert PACE.begins(NOW_S - 0.76 * DAY_S, 0, NOW_S)


def test_a_pass_leaves_out_what_is_young_unless_there_is_no_time() -> None:
    assert PACE.since_s(0, NOW_S) == NOW_S - DAY_S / 2
    assert PACE.since_s(MAX / 2, NOW_S) == NOW_S
    assert PACE.begins(NOW_S, MAX / 2, NOW_S)


def test_passes_never_follow_each_other_without_a_rest() -> None:
    assert 0 < PACE.rest_s() < DAY_S / 20


def test_a_maximum_that_is_too_low_for_the_interval_is_said() -> None:
    assert PACE.problem(int(MAX * DAY_S)) is None
    said = ScrubPace(3600, 1000).problem(3600 * 1000 * 4)
    assert said is not None
    assert "4.0 hours at scrub.max_bytes_per_s, scrub.interval is 1.0 hours" in said
