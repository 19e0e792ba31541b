"""How late the event loop is: what everything on it waits for besides its own business.

A timer is set again and again, and how long after its time it is called is counted by size. That
finds whatever keeps the loop busy without a break, and whatever keeps it from running: a thread
that holds the interpreter, the collector of garbage, a machine that has too much to do.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

INTERVAL_S: Final = 0.05
BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Lags(NamedTuple):
    """What was measured so far, in seconds.

    Attributes:
        counts: for each of `BOUNDS_S`, how often it was that late and not later; last, the rest.
        longest_s: since the start.
    """

    counts: tuple[int, ...]
    sum_s: float
    longest_s: float


class LoopLag:
    """Measures the running loop from `start` until `stop`.

    Args:
        call_later: sets the timer; the loop's, unless somebody tests this.
        clock: seconds by a clock that is never set.
    """

    def __init__(
        self,
        *,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._call_later = call_later or loop.call_later
        self._clock = clock or loop.time
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = self._longest_s = self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due_s = self._clock() + INTERVAL_S
        self._timer = self._call_later(INTERVAL_S, self._tick)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def read(self) -> Lags:
        """What was measured since the start."""
        return Lags(tuple(self._counts), self._sum_s, self._longest_s)

    def _tick(self) -> None:
        lag_s = max(0.0, self._clock() - self._due_s)
        self._counts[bisect_left(BOUNDS_S, lag_s)] += 1
        self._sum_s += lag_s
        self._longest_s = max(self._longest_s, lag_s)
        self.start()


@contextmanager
def measured_lag() -> Iterator[LoopLag]:
    """Measure the running loop for the block."""
    lag = LoopLag()
    lag.start()
    try:
        yield lag
    finally:
        lag.stop()
