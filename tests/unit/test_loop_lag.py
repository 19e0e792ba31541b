from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.loop_lag import BOUNDS_S, INTERVAL_S, LoopLag
from agent.metrics import loop_lag_figures


class Loop:
    """A loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.set_for_s: list[float] = []
        self._due: Callable[[], None] | None = None

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        self.set_for_s.append(self.now_s + delay_s)
        self._due = call
        return asyncio.get_running_loop().call_later(3600.0, call)

    def turn(self, lag_s: float) -> None:
        """Let the timer be called, so much too late."""
        assert self._due is not None
        self.now_s = self.set_for_s[-1] + lag_s
        self._due()

    def measured(self) -> LoopLag:
        return LoopLag(call_later=self.call_later, clock=lambda: self.now_s)


async def test_a_pass_that_keeps_the_loop_busy_is_noticed() -> None:
    loop = Loop()
    lag = loop.measured()
    lag.start()
    for lag_s in (0.0, 0.001, 0.3, 0.002):
        loop.turn(lag_s)
    lag.stop()
    found = lag.read()
    assert found.counts[0] == 3
    assert found.counts[BOUNDS_S.index(0.5)] == 1
    assert abs(found.longest_s - 0.3) < 1e-6
    assert abs(found.sum_s - 0.303) < 1e-6


async def test_a_lag_is_not_carried_into_the_next() -> None:
    loop = Loop()
    lag = loop.measured()
    lag.start()
    loop.turn(10.0)
    assert loop.set_for_s[-1] == loop.now_s + INTERVAL_S
    loop.turn(0.0)
    lag.stop()
    assert lag.read().counts[-1] == 1
    assert lag.read().counts[0] == 1


async def test_lags_are_shown_as_a_histogram_and_the_longest_by_itself() -> None:
    loop = Loop()
    lag = loop.measured()
    lag.start()
    for lag_s in (0.0, 0.03, 4.0):
        loop.turn(lag_s)
    lag.stop()
    histogram, longest = loop_lag_figures(lag.read())
    values = {sample.labels.get("le"): sample.value for sample in histogram.samples}
    assert values["0.005"] == 1
    assert values["0.05"] == 2
    assert values["2.5"] == 2
    assert values["+Inf"] == 3
    assert round(longest.samples[0].value, 6) == 4.0
