"""Daemon threads for blocking calls.

A device that hangs leaves a thread in uninterruptible sleep. Threads of `concurrent.futures` are
joined when the interpreter exits, so one such thread would keep the process alive; these are
daemons and can be left behind. The number of threads is bounded, and so is the time a caller waits.
"""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads:
    """Up to `limit` daemon threads, started when needed and kept for the next call."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; its result or exception arrives in the future."""
        call = _Call(Future[T](), partial(function, *args, **kwargs))
        future = call.future
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._started < self._limit:
                self._start_thread()
        self._calls.put(call)
        return future

    async def call(
        self, timeout_s: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call and wait for it, at most `timeout_s` seconds.

        Raises:
            OSError: ETIMEDOUT, when the call has not ended by then. It may still end later.
        """
        return await self.wait(timeout_s, self.submit(function, *args, **kwargs))

    async def wait(self, timeout_s: float, call: Future[T]) -> T:
        """Wait for a submitted call; see `call`."""
        return await wait_within(timeout_s, call, self._name)

    def close(self) -> None:
        """Let every idle thread end; a busy one ends after its call."""
        with self._lock:
            started, self._started, self._limit = self._started, 0, 0
        for _ in range(started):
            self._calls.put(None)

    def _start_thread(self) -> None:
        self._started += 1
        name = f"{self._name}-{self._started}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run(self._count_idle)
            del call  # no reference to the last call's arguments while idle

    def _count_idle(self) -> None:
        # Before the result is there: whoever waits for it may submit the next call at once.
        with self._lock:
            self._idle += 1


@dataclass(slots=True)
class _Call(Generic[T]):
    future: Future[T]
    function: Callable[[], T]

    def run(self, on_end: Callable[[], None]) -> None:
        """Make the call; `on_end` is called before the future has its result."""
        if not self.future.set_running_or_notify_cancel():
            on_end()
            return
        try:
            result = self.function()
        except BaseException as error:  # a task root: whatever happened belongs to the caller
            on_end()
            self.future.set_exception(error)
            # The error holds this frame: it is not to hold the future, which holds the error, and
            # with it all that the call had, until the collector of cycles comes by.
            del self
        else:
            on_end()
            self.future.set_result(result)


def waiting_for(call: Future[T]) -> asyncio.Future[T]:
    """Make the one future in which the event loop waits for a call, as often as it wants to."""
    waiting = asyncio.wrap_future(call)
    # What went wrong is taken from here or from the call, or asyncio would log it as lost.
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    return waiting


async def wait_within(timeout_s: float, call: Future[T], name: str) -> T:
    """Wait for a call, at most `timeout_s` seconds. One that has not begun by then never will.

    Raises:
        OSError: ETIMEDOUT, when it has not ended by then; it may still end later.
    """
    future = asyncio.wrap_future(call)
    try:
        done, _ = await asyncio.wait((future,), timeout=timeout_s)
    except asyncio.CancelledError:
        _give_up(call, future)
        raise
    if not done:
        _give_up(call, future)
        raise OSError(errno.ETIMEDOUT, f"no answer within {timeout_s:g} s", name)
    return future.result()


async def ended_within(call: Future[T], *, queue_s: float, run_s: float, check_s: float) -> bool:
    """Wait for a call, so long for its begin and so long from then on; tell whether it has ended.

    It is looked at every `check_s` seconds. One that has not begun in time never will: it is
    cancelled then. One that runs too long goes on.
    """
    waiting = waiting_for(call)
    since_s, begun = time.monotonic(), False
    try:
        while not (await asyncio.wait((waiting,), timeout=check_s))[0]:
            now_s = time.monotonic()
            if not begun and call.running():
                since_s, begun = now_s, True
            # It may have begun since, and then has all of its time.
            if now_s - since_s > (run_s if begun else queue_s) and (begun or call.cancel()):
                return False
        return True
    except asyncio.CancelledError:
        call.cancel()
        raise


def _give_up(call: Future[T], future: asyncio.Future[T]) -> None:
    # The call itself first: asyncio would pass a cancellation on only at its next turn.
    call.cancel()
    future.cancel()
