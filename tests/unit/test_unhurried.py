from __future__ import annotations

import asyncio

import pytest

from depot.concurrency.unhurried import gently_sorted, leisurely, unhurried


class Clock:
    """Time that passes when somebody works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def longest_wait_s(items: int, cost_s: float, step_s: float) -> float:
    """How long another task of the loop waited at most while a pass was made."""
    clock = Clock()
    waits: list[float] = []

    async def other() -> None:
        last_s = clock()
        while True:
            await asyncio.sleep(0)
            waits.append(clock() - last_s)
            last_s = clock()

    task = asyncio.ensure_future(other())
    async for _ in unhurried(range(items), step_s=step_s, clock=clock):
        clock.now_s += cost_s
    await asyncio.sleep(0)
    task.cancel()
    return max(waits)


async def test_others_wait_for_one_step_however_many_items_there_are() -> None:
    for items in (10, 1000, 20_000):
        assert await longest_wait_s(items, cost_s=0.001, step_s=0.005) <= 0.0065


async def test_an_item_that_takes_longer_than_a_step_is_a_step() -> None:
    assert await longest_wait_s(50, cost_s=0.02, step_s=0.005) <= 0.021


async def test_a_pass_that_takes_no_time_is_made_in_one_step() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    assert [item async for item in unhurried(range(1000), clock=Clock())] == list(range(1000))
    task.cancel()
    assert turns == 0


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 20_000])
def test_a_gentle_sort_is_a_sort(count: int) -> None:
    items = [(number * 7919 % 1000, number) for number in range(count)]
    assert gently_sorted(items, key=lambda item: item[0]) == sorted(items, key=lambda item: item[0])


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 20_000])
def test_a_thread_at_leisure_goes_through_everything_in_order(count: int) -> None:
    given = [item for part in leisurely(range(count), sleep=lambda _: None) for item in part]
    assert given == list(range(count))


def rests_s(items: int, part_cost_s: float, rests: int = 9) -> list[float]:
    """How long a thread rested each time that went through so many things at leisure."""
    clock, rested_s = Clock(), list[float]()
    for _ in leisurely(range(items), rests=rests, clock=clock, sleep=rested_s.append):
        clock.now_s += part_cost_s
    return rested_s


def test_a_thread_at_leisure_works_a_tenth_of_its_time() -> None:
    assert rests_s(10_000, 0.001) == pytest.approx([0.009] * 9)


def test_a_thread_for_whose_result_somebody_waits_rests_less() -> None:
    assert rests_s(10_000, 0.001, rests=2) == pytest.approx([0.002] * 9)


def test_a_thread_that_has_little_to_do_does_not_rest() -> None:
    assert rests_s(1000, 0.001) == []


def test_a_thread_at_leisure_rests_two_seconds_at_most() -> None:
    assert sum(rests_s(10_000_000, 0.001)) == pytest.approx(2.0)
