"""Whether somebody waits for the node right now: puts, copies, reads. What can wait then does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Signal:
    """Wakes everybody who waits, each time it is given."""

    def __init__(self) -> None:
        self._given = asyncio.Event()

    def give(self) -> None:
        """Wake those who wait now."""
        self._given.set()
        self._given = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Return when it is given next, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._given.wait()
        except TimeoutError:
            return


class Foreground:
    """Counts the work that somebody waits for.

    Attributes:
        changed: given when such work begins where none was, and when the last of it ends.
    """

    def __init__(self) -> None:
        self.changed = Signal()
        self._running = 0

    @property
    def busy(self) -> bool:
        """Somebody waits for something."""
        return self._running > 0

    def begin(self) -> Callable[[], None]:
        """Count one piece of work, until what is returned is called; later calls change nothing."""
        self._count(1)
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._count(-1)

        return end

    @contextmanager
    def work(self) -> Iterator[None]:
        """Count the block."""
        end = self.begin()
        try:
            yield
        finally:
            end()

    def _count(self, change: int) -> None:
        before, self._running = self.busy, self._running + change
        if before is not self.busy:
            self.changed.give()
