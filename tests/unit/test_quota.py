"""Q1 in pure numbers: what is used and promised together never passes the limit."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from depot.mirrors.quota import Quota, Reservation


class QuotaMachine(RuleBasedStateMachine):
    """Writers come, grow, land and leave in any order."""

    LIMIT = 100

    def __init__(self) -> None:
        super().__init__()
        self.quota = Quota(self.LIMIT)
        self.open: list[Reservation] = []
        self.used = 0

    @rule(size=st.integers(0, 60))
    def reserve(self, size: int) -> None:
        free = self.quota.available_bytes
        reservation = self.quota.reserve(size)
        assert (reservation is not None) == (size <= free)
        if reservation is not None:
            self.open.append(reservation)

    @precondition(lambda self: self.open)
    @rule(by=st.integers(-5, 40), index=st.integers(0, 10))
    def grow(self, by: int, index: int) -> None:
        reservation = self.open[index % len(self.open)]
        before, free = reservation.size_bytes, self.quota.available_bytes
        by = max(by, 0)
        assert reservation.grow(by) == (by <= free)
        assert reservation.size_bytes == before + (by if by <= free else 0)

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 10))
    def land(self, index: int) -> None:
        reservation = self.open.pop(index % len(self.open))
        self.used += reservation.size_bytes
        size = reservation.size_bytes
        # First used, then released: for a moment both count, never neither.
        self.quota.add_used(size)
        reservation.release()

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 10))
    def give_up(self, index: int) -> None:
        reservation = self.open.pop(index % len(self.open))
        reservation.release()
        reservation.release()

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(0, self.used))
        self.used -= size
        self.quota.add_used(-size)

    @invariant()
    def never_above_the_limit(self) -> None:
        promised = sum(reservation.size_bytes for reservation in self.open)
        assert (self.quota.used_bytes, self.quota.reserved_bytes) == (self.used, promised)
        assert self.used + promised <= self.LIMIT
        assert self.quota.available_bytes == self.LIMIT - self.used - promised


TestQuotaMachine = QuotaMachine.TestCase


@given(st.lists(st.integers(0, 50), max_size=20))
def test_after_every_release_nothing_is_promised(sizes: list[int]) -> None:
    quota = Quota(200)
    for reservation in [quota.reserve(size) for size in sizes]:
        if reservation is not None:
            reservation.release()
    assert quota.reserved_bytes == 0


@pytest.mark.parametrize("used", [100, 150])
def test_a_lowered_limit_leaves_no_room_and_no_debt(used: int) -> None:
    quota = Quota(100)
    quota.set_used(used)
    assert quota.available_bytes == 0
    assert quota.reserve(1) is None
    assert quota.reserve(0) is not None
    quota.add_used(-used)
    assert quota.available_bytes == 100


def test_threads_together_get_no_more_than_there_is() -> None:
    quota = Quota(1000)
    granted: list[Reservation] = []

    def ask() -> None:
        for _ in range(200):
            if reservation := quota.reserve(1):
                granted.append(reservation)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == quota.reserved_bytes == 1000
