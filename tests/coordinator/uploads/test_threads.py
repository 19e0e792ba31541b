from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from coordinator.uploads.threads import run_until_over
from depot.concurrency.threads import DaemonThreads


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    threads = DaemonThreads("test", 2)
    yield threads
    threads.close()


async def test_the_result_of_the_work_is_given(threads: DaemonThreads) -> None:
    assert await run_until_over(threads, lambda: 7, lambda: None) == 7


async def test_what_the_work_raises_is_raised(threads: DaemonThreads) -> None:
    def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await run_until_over(threads, fail, lambda: None)


async def test_cancelled_work_is_stopped_and_over_before_anybody_goes_on(
    threads: DaemonThreads,
) -> None:
    begun, stop = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    over: list[bool] = []

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        stop.wait()
        over.append(True)
        raise ConnectionAbortedError("stopped")

    async def wait() -> None:
        try:
            await run_until_over(threads, work, stop.set)
        finally:
            assert over, "whatever the work uses would be closed while it is used"

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over == [True]
