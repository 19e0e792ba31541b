"""A transaction that is cancelled while SQLite works on it: it holds nobody up, and leaves nothing.

A statement that was begun and is not read to its end keeps SQLite's lock, and a connection cannot
be closed from another thread while a statement runs on it.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, func, literal, select, union_all

from coordinator.database import counters
from coordinator.database.database import Database
from coordinator.database.engine import make_engine, parse_url
from coordinator.database.transaction import Transaction
from tests.coordinator.database.making import add_sled, opened

PATIENCE_S = 5.0
TWO_ROWS = select(union_all(select(func.tell()), select(literal(2))).subquery())


class Telling:
    """What is done, in the event loop, in the middle of a statement that calls `tell`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.then: Callable[[], object] = lambda: None

    def __call__(self) -> int:
        # In SQLite's thread; the loop goes on meanwhile, and the statement after it.
        done = asyncio.run_coroutine_threadsafe(self._do(), self.loop)
        done.result()
        return 1

    async def _do(self) -> None:
        self.then()
        await asyncio.sleep(0)


@pytest.fixture
def server() -> None:
    """SQLite alone: PostgreSQL ends the transaction of a connection that is gone."""


@pytest.fixture(autouse=True)
def _nothing_is_tidied_up_by_chance() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def tell() -> Telling:
    return Telling()


@pytest.fixture
async def telling(database_url: str, tell: Telling) -> AsyncIterator[Database]:
    """A database in which statements can call `tell`."""

    def prepare(connection: Any, _record: object) -> None:
        connection.create_function("tell", 0, tell)

    engine = await asyncio.to_thread(make_engine, parse_url(database_url), PATIENCE_S)
    event.listen(engine.sync_engine, "connect", prepare)
    async with Database(engine, patience_s=PATIENCE_S, rng=random.Random(1)) as database:
        yield database


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    async with await opened(database_url) as database:
        yield database


@pytest.mark.parametrize("times", [1, 2])
async def test_a_run_that_is_cancelled_in_a_statement_leaves_the_lock_to_the_next(
    telling: Database, other: Database, tell: Telling, times: int
) -> None:
    async def work(tx: Transaction) -> None:
        await add_sled(tx, "s1")
        await tx.rows(TWO_ROWS)

    task = asyncio.create_task(telling.run(work))
    tell.then = lambda: [task.cancel() for _ in range(times)]
    with pytest.raises(asyncio.CancelledError):
        await task
    for one in (other, telling):
        await one.run(counters.add, {"list_ok": 1})
    assert await other.run(counters.read) == {"list_ok": 2}


async def test_a_run_that_is_cancelled_while_it_waits_for_the_lock_leaves_no_task(
    telling: Database, other: Database
) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def hold(tx: Transaction) -> None:
        await counters.add(tx, {"list_ok": 1})
        waiting.set()
        await go_on.wait()

    await telling.run(counters.read)  # so that it has its connection
    holds = asyncio.create_task(other.run(hold))
    await waiting.wait()
    before = asyncio.all_tasks()
    waits = asyncio.create_task(telling.run(counters.add, {"list_ok": 1}))
    for _ in range(3):
        for _ in range(20):
            await asyncio.sleep(0)
        waits.cancel()
    go_on.set()
    await holds
    with pytest.raises(asyncio.CancelledError):
        await waits
    await telling.close()
    assert asyncio.all_tasks() <= before
    assert await other.run(counters.read) == {"list_ok": 1}
