"""How long a call is waited for, before and after it has begun."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future

import pytest

from depot.concurrency.threads import ended_within

PATIENCE_S = 60.0


async def wait(call: Future[None], *, queue_s: float = PATIENCE_S, run_s: float = 0.02) -> bool:
    return await ended_within(call, queue_s=queue_s, run_s=run_s, check_s=0.001)


async def test_a_call_that_ends_has_ended() -> None:
    call: Future[None] = Future()
    asyncio.get_running_loop().call_later(0.01, call.set_result, None)
    assert await wait(call)


async def test_a_call_that_does_not_begin_never_will() -> None:
    call: Future[None] = Future()
    assert not await wait(call, queue_s=0.02)
    assert call.cancelled()


async def test_a_call_that_runs_too_long_goes_on() -> None:
    call: Future[None] = Future()
    call.set_running_or_notify_cancel()
    assert not await wait(call)
    assert call.running()


class BegunAtTheLastMoment(Future[None]):
    """A thread takes it as soon as it was waited for too long, right after somebody looked."""

    def __init__(self, queue_s: float) -> None:
        super().__init__()
        self._begins_s = time.monotonic() + queue_s

    def running(self) -> bool:
        was_running = super().running()
        if time.monotonic() >= self._begins_s and not was_running:
            self.set_running_or_notify_cancel()
        return was_running


@pytest.mark.parametrize("queue_s", [0.0, 0.02])
async def test_a_call_that_begins_at_the_last_moment_has_its_time(queue_s: float) -> None:
    call = BegunAtTheLastMoment(queue_s)
    asyncio.get_running_loop().call_later(queue_s + 0.05, call.set_result, None)
    assert await wait(call, queue_s=queue_s, run_s=PATIENCE_S)


async def test_who_waits_no_more_takes_the_call_back() -> None:
    call: Future[None] = Future()
    waiting = asyncio.create_task(wait(call))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled()
