"""Bodies that are read no faster than budgets allow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from depot.streams.budget import Budget
from depot.streams.limited import LimitedSource
from depot.writing.ingest import fill

WAIT_S = 20.0


@dataclass
class Endless:
    """Gives at most `most_bytes` a read, and remembers how much was asked for."""

    most_bytes: int = 1 << 30
    asked: list[int] = field(default_factory=list)
    aborted: bool = False

    def readinto(self, buffer: memoryview, /) -> int:
        self.asked.append(len(buffer))
        return min(len(buffer), self.most_bytes)

    def abort(self) -> None:
        self.aborted = True


def block(size_bytes: int = 1 << 20) -> memoryview:
    return memoryview(bytearray(size_bytes))


def frozen() -> float:
    return 1000.0


def test_without_a_limit_a_read_is_passed_on_as_it_is() -> None:
    inner = Endless()
    source = LimitedSource(inner, lambda: [(Budget(), 1), (Budget(), 1)])
    assert source.readinto(block()) == 1 << 20
    assert inner.asked == [1 << 20]


def test_a_read_takes_no_more_than_the_smallest_step() -> None:
    inner = Endless()
    narrow, wide = Budget(20_000, frozen), Budget(2_000_000, frozen)
    assert LimitedSource(inner, lambda: [(narrow, 1), (wide, 1)]).readinto(block()) == 1000
    assert LimitedSource(inner, lambda: [(wide, 1), (narrow, 1)]).readinto(block()) == 1000


def test_what_a_read_did_not_use_serves_the_next() -> None:
    inner = Endless(most_bytes=400)
    budget = Budget(20_000, frozen)
    source = LimitedSource(inner, lambda: [(budget, 1)])
    assert [source.readinto(block()) for _ in range(3)] == [400, 400, 200]
    assert inner.asked == [1000, 600, 200]


def test_no_more_is_claimed_than_there_is_to_come() -> None:
    budget = Budget(20_000, frozen)
    source = LimitedSource(Endless(), lambda: [(budget, 1)], length_bytes=10)
    assert source.readinto(block()) == 10
    # The next body does not wait for what this one had no use for.
    assert budget.claim(1).wait_s == 0.0


def test_what_was_claimed_and_not_read_is_given_back_at_the_end() -> None:
    budget = Budget(20_000, frozen)
    for _ in range(50):
        source = LimitedSource(Endless(most_bytes=0), lambda: [(budget, 1)])
        assert source.readinto(block()) == 0
        source.close()
    assert budget.claim(1).wait_s == 0.0


def test_abort_ends_a_wait() -> None:
    inner = Endless()
    budget = Budget(1)  # a byte a second
    source = LimitedSource(inner, lambda: [(budget, 1)])
    ended: list[BaseException] = []

    def read() -> None:
        try:
            fill(source, block(1000))
        except OSError as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    source.abort()
    reader.join(WAIT_S)
    assert [type(error) for error in ended] == [ConnectionAbortedError]
    assert inner.aborted


def test_the_budgets_may_change_while_it_is_read() -> None:
    healing, asked = Budget(20_000, frozen), Budget(40_000, frozen)
    current = [healing]
    inner = Endless(most_bytes=300)
    source = LimitedSource(inner, lambda: [(current[0], 1)])
    assert source.readinto(block()) == 300
    current[0] = asked
    source.readinto(block())
    assert inner.asked == [1000, 2000]
    # What it had claimed of the other and not used is there again: less than a step is gone.
    assert healing.claim(1).wait_s == pytest.approx(0.0)


def test_bodies_that_are_one_to_others_take_smaller_steps() -> None:
    inner = Endless()
    budget = Budget(20_000, frozen)
    assert LimitedSource(inner, lambda: [(budget, 4)]).readinto(block()) == 250
