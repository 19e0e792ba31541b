"""Limits on bytes per second, in pure numbers: the clock moves only when the test says so."""

from __future__ import annotations

import asyncio
import heapq
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.streams.budget import MAX_STEP_BYTES, STEP_S, Budget

MIB = 1 << 20


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(order=True)
class Body:
    """Moves `size_bytes`, each step when its time has come, taking `slow_s` over it."""

    ready_s: float
    name: int
    granted_bytes: int = field(default=0, compare=False)
    moved_bytes: int = field(default=0, compare=False)
    size_bytes: float = field(default=math.inf, compare=False)
    slow_s: float = field(default=0.0, compare=False)
    bodies: int = field(default=1, compare=False)


def run(clock: Clock, budget: Budget, bodies: list[Body], until_s: float) -> None:
    """Let the bodies move what they may until `until_s`, each with one claim at a time."""
    heapq.heapify(bodies)
    while bodies[0].ready_s <= until_s:
        body = heapq.heappop(bodies)
        clock.now_s = body.ready_s
        body.moved_bytes += body.granted_bytes
        body.granted_bytes = 0
        if body.moved_bytes >= body.size_bytes:
            body.ready_s = math.inf
        else:
            most_bytes = int(min(body.size_bytes - body.moved_bytes, 1 << 40))
            claim = budget.claim(most_bytes, body.bodies)
            body.granted_bytes = claim.size_bytes
            body.ready_s = clock.now_s + claim.wait_s + body.slow_s
        heapq.heappush(bodies, body)


def bodies(count: int, start_s: float = 1000.0) -> list[Body]:
    return [Body(start_s, name) for name in range(count)]


@pytest.mark.parametrize("rate", [20_000, MIB, 117 * MIB, 3 << 30])
@pytest.mark.parametrize("count", [1, 2, 9, 300])
def test_s1_the_limit_is_kept_and_used_within_a_tenth(rate: int, count: int) -> None:
    clock = Clock()
    moving = bodies(count)
    run(clock, Budget(rate, clock), moving, 1000.0 + 20.0)
    assert sum(body.moved_bytes for body in moving) == pytest.approx(20 * rate, rel=0.1)


@pytest.mark.parametrize("count", [2, 3, 32, 300])
def test_bodies_that_want_more_get_equal_parts(count: int) -> None:
    clock = Clock()
    budget, moving = Budget(10 * MIB, clock), bodies(count)
    run(clock, budget, moving, 1010.0)  # those who come first to a crowd have larger steps
    before = {body.name: body.moved_bytes for body in moving}
    run(clock, budget, moving, 1060.0)
    parts = [body.moved_bytes - before[body.name] for body in moving]
    assert min(parts) >= 0.9 * max(parts)


def test_several_bodies_of_one_copy_get_the_part_of_one() -> None:
    clock = Clock()
    alone, *parts = [Body(1000.0, 0), *(Body(1000.0, name, bodies=3) for name in (1, 2, 3))]
    run(clock, Budget(10 * MIB, clock), [alone, *parts], 1030.0)
    together = sum(part.moved_bytes for part in parts)
    assert together == pytest.approx(alone.moved_bytes, rel=0.1)


def test_a_body_that_comes_later_gets_its_part_from_then_on() -> None:
    clock = Clock()
    first, second = Body(1000.0, 0), Body(1010.0, 1)
    run(clock, Budget(10 * MIB, clock), [first, second], 1020.0)
    assert first.moved_bytes == pytest.approx(150 * MIB, rel=0.1)
    assert second.moved_bytes == pytest.approx(50 * MIB, rel=0.1)


def test_what_a_slow_body_cannot_use_goes_to_the_others() -> None:
    clock = Clock()
    slow, fast = Body(1000.0, 0, slow_s=1.0), Body(1000.0, 1)
    run(clock, Budget(10 * MIB, clock), [slow, fast], 1020.0)
    assert slow.moved_bytes <= 20 * STEP_S * 10 * MIB
    assert fast.moved_bytes + slow.moved_bytes == pytest.approx(200 * MIB, rel=0.1)


def test_a_small_body_waits_for_its_turn_and_not_for_the_end_of_a_large_one() -> None:
    clock = Clock()
    budget = Budget(MIB, clock)
    large = bodies(8)
    run(clock, budget, large, 1005.0)
    assert budget.claim(1).wait_s <= 10 * STEP_S


def test_in_a_crowd_steps_are_smaller_so_that_each_moves_now_and_then() -> None:
    clock = Clock()
    budget = Budget(MIB, clock)
    waits = [budget.claim(1 << 30).wait_s for _ in range(1000)]
    # In steps of full size the last would wait for 1000 * STEP_S.
    assert waits[-1] <= 1000 * STEP_S / 3


def test_idle_time_buys_no_burst() -> None:
    clock = Clock()
    budget = Budget(MIB, clock)
    clock.now_s += 3600.0
    moving = bodies(1, clock.now_s)
    run(clock, budget, moving, clock.now_s + 1.0)
    assert moving[0].moved_bytes <= 1.2 * MIB


def test_what_is_given_back_is_there_for_others() -> None:
    clock = Clock()
    budget = Budget(MIB, clock)
    claims = [budget.claim(MIB) for _ in range(20)]
    for claim in claims:
        budget.give_back(claim.size_bytes)
    assert budget.claim(1).wait_s == 0.0


@given(st.integers(1, 1 << 40), st.lists(st.integers(1, 1 << 40), min_size=1, max_size=50))
def test_every_claim_makes_progress_and_none_is_more_than_was_wanted(
    rate: int, wishes: list[int]
) -> None:
    budget = Budget(rate, Clock())
    for wish in wishes:
        claim = budget.claim(wish)
        assert 1 <= claim.size_bytes <= wish
        assert claim.wait_s >= 0.0


def test_without_a_limit_all_is_granted_at_once() -> None:
    budget = Budget(0, Clock())
    assert not budget.limited
    assert [budget.claim(size).size_bytes for size in (1, 1 << 40)] == [1, 1 << 40]
    assert budget.claim(1 << 40).wait_s == 0.0
    assert budget.pay_now(1 << 40)


def test_paying_at_once_takes_what_is_there_and_never_waits() -> None:
    clock = Clock()
    budget = Budget(MIB, clock)
    paid = sum(4096 for _ in range(1000) if budget.pay_now(4096))
    assert 0 < paid <= 2 * STEP_S * MIB
    assert not budget.pay_now(4096)
    clock.now_s += 1.0
    assert budget.pay_now(4096)


def test_nobody_pays_at_once_past_those_who_wait() -> None:
    budget = Budget(MIB, Clock())
    while not budget.claim(MIB).wait_s:
        pass
    assert not budget.pay_now(1)


async def test_a_claim_that_is_given_up_while_it_waits_costs_nothing() -> None:
    budget = Budget(1000)
    while not budget.claim(1000).wait_s:
        pass
    before_s = budget.claim(1).wait_s
    waiting = asyncio.create_task(budget.grant(1000))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert budget.claim(1).wait_s <= before_s + STEP_S


async def test_a_payment_that_is_given_up_on_the_way_costs_nothing() -> None:
    budget = Budget(MIB, Clock())
    paying = asyncio.create_task(budget.pay(10 * MIB))
    await asyncio.sleep(0)  # it has had the steps for which it need not wait
    paying.cancel()
    await asyncio.gather(paying, return_exceptions=True)
    assert budget.claim(1).wait_s == 0


async def test_all_of_a_payment_counts() -> None:
    clock = Clock()
    budget = Budget(1 << 30, clock)
    await budget.pay(40 * MIB)
    at_once_bytes = 40 * MIB
    while not (claim := budget.claim(1 << 40)).wait_s:
        at_once_bytes += claim.size_bytes
    assert at_once_bytes <= STEP_S * (1 << 30) + 2 * MAX_STEP_BYTES


async def test_a_limit_holds_in_real_time_and_is_shared() -> None:
    rate = 20 * MIB
    budget, loop = Budget(rate), asyncio.get_running_loop()
    begin_s, moved = loop.time(), [0, 0]

    async def move(index: int) -> None:
        while loop.time() - begin_s < 1.0:
            moved[index] += await budget.grant(1 << 30)

    await asyncio.gather(move(0), move(1))
    # Never more than allowed; a busy machine may well move less.
    assert sum(moved) <= 1.2 * rate * (loop.time() - begin_s)
    assert min(moved) >= 0.7 * max(moved)
