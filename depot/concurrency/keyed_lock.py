"""One lock for each key in use, and none for the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLock(Generic[K]):
    """Serialises work on the same key; work on different keys goes on in parallel.

    Of one event loop. Those that wait for a key get it in the order in which they came.
    """

    def __init__(self) -> None:
        # Whoever lets go hands the key to the first that still waits: nobody comes in between.
        self._locks: dict[K, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[None]:
        """Wait for the key, hold it for the block."""
        if not self.take_now(key):
            await self._wait(key)
        try:
            yield
        finally:
            self.release(key)

    def take_now(self, key: K) -> bool:
        """Take a key until `release`; False when somebody has it."""
        if key in self._locks:
            return False
        self._locks[key] = deque()
        return True

    def release(self, key: K) -> None:
        """Let go of a key that was taken."""
        waiting = self._locks[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():  # or it gave up
                turn.set_result(None)
                return
        del self._locks[key]

    async def _wait(self, key: K) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._locks[key].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given the key, and nobody else will let go of it
                self.release(key)
            raise
