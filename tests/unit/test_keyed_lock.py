from __future__ import annotations

import asyncio

import pytest

from depot.concurrency.keyed_lock import KeyedLock


async def test_holders_of_one_key_take_turns_in_order() -> None:
    lock: KeyedLock[str] = KeyedLock()
    inside: list[int] = []
    order: list[int] = []

    async def work(number: int) -> None:
        async with lock.hold("key"):
            inside.append(number)
            await asyncio.sleep(0)
            assert inside == [number]
            inside.clear()
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(10)))
    assert order == list(range(10))


async def test_holders_of_different_keys_do_not_wait_for_each_other() -> None:
    lock: KeyedLock[str] = KeyedLock()
    async with asyncio.timeout(10), lock.hold("a"), lock.hold("b"):
        pass


async def test_a_waiter_that_gives_up_leaves_the_others_in_line() -> None:
    lock: KeyedLock[str] = KeyedLock()
    entered = asyncio.Event()

    async def work() -> None:
        async with lock.hold("key"):
            entered.set()

    async with lock.hold("key"):
        leaving, staying = asyncio.ensure_future(work()), asyncio.ensure_future(work())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert not entered.is_set()
    await asyncio.wait_for(staying, 10)
    assert entered.is_set()


async def test_a_holder_that_fails_lets_go() -> None:
    lock: KeyedLock[str] = KeyedLock()
    with pytest.raises(ValueError, match="on purpose"):
        async with lock.hold("key"):
            raise ValueError("on purpose")
    async with asyncio.timeout(10), lock.hold("key"):
        pass


async def test_nothing_is_kept_of_keys_that_nobody_uses() -> None:
    lock: KeyedLock[int] = KeyedLock()

    async def work(key: int) -> None:
        async with lock.hold(key % 7):
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(100)))
    assert not lock._locks


async def test_a_key_is_taken_at_once_only_while_nobody_has_it() -> None:
    lock: KeyedLock[str] = KeyedLock()
    assert lock.take_now("a")
    assert not lock.take_now("a")
    assert lock.take_now("b")
    waiting = asyncio.ensure_future(_hold(lock, "a"))
    await asyncio.sleep(0)
    lock.release("a")
    assert not lock.take_now("a"), "it is the turn of the one that waits"
    await asyncio.wait_for(waiting, 10)
    assert lock.take_now("a")


async def test_a_waiter_that_gives_up_when_it_is_its_turn_passes_it_on() -> None:
    lock: KeyedLock[str] = KeyedLock()
    assert lock.take_now("a")
    leaving, staying = (asyncio.ensure_future(_hold(lock, "a")) for _ in range(2))
    await asyncio.sleep(0)
    lock.release("a")
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await asyncio.wait_for(staying, 10)
    assert not lock._locks


async def _hold(lock: KeyedLock[str], key: str) -> None:
    async with lock.hold(key):
        pass
