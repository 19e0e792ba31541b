"""An event loop whose clock jumps to the next timer when there is nothing else to do.

While a thread works it stands still: how long that takes is the machine's affair.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


REALLY_S = 10.0
"""How long something real is waited for before time passes after all."""


class _Selector(selectors.SelectSelector):
    """Waits in virtual time. What comes from threads and sockets is waited for really.

    Attributes:
        in_threads: how many calls are.
    """

    now_s = 1000.0
    in_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(REALLY_S)
        found = super().select(REALLY_S if timeout > 0 and self.in_threads else 0)
        if not found and timeout > 0:
            self.now_s += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._virtual.in_threads += 1
        future.add_done_callback(self._left_thread)
        return future

    def _left_thread(self, _: object) -> None:
        self._virtual.in_threads -= 1


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in no time at all."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
