"""Reads of small things for many who ask at the same time: each thing once, several in one call.

Rules kept here:
- Whoever asks is told, once: what was read after it asked, or that there is nothing for it. One
  who cannot be told keeps nobody else from it.
- No more are read, and no more wait, than the bounds below (S1). Who finds no place hears at once.
- A read that takes long, as on a device that hangs, is given up, and for a while none is begun:
  those who ask, or asked and wait, have another way, which knows what to do about it (B4).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

import structlog

from depot.http.activity import Activity

log = structlog.get_logger("depot.http")

K = TypeVar("K")
V = TypeVar("V")

MOST_WAITING: Final = 1024
MOST_READS: Final = 4
BATCH_BYTES: Final = 88 << 10
"""So that an answer with all of them is still a single message of a worker process."""
BATCH_NAMES: Final = 128
"""So that the call is one too, and nobody waits for thousands of files that are next to nothing."""
PATIENCE_S: Final = 0.5
PAUSE_S: Final = 5.0

Tell = Callable[[V | None], None]


class SharedReads(Generic[K, V]):
    """Collects what is asked for within a turn of the event loop, or while the reads are busy.

    Args:
        read: gives each of some things, or None.
        activity: counts each call as work that runs.
    """

    def __init__(
        self, read: Callable[[Sequence[K]], Awaitable[Sequence[V | None]]], activity: Activity
    ) -> None:
        self._read = read
        self._activity = activity
        self._asked: dict[K, tuple[int, list[Tell[V]]]] = {}
        self._waiting = 0
        self._reads: set[asyncio.Task[Sequence[V | None]]] = set()
        self._begins = False
        self._paused_until_s = 0.0

    def ask(self, key: K, size_bytes: int, tell: Tell[V]) -> bool:
        """Have `tell` called with what `key` names; False: it will not be."""
        loop = asyncio.get_running_loop()
        if self._waiting >= MOST_WAITING or loop.time() < self._paused_until_s:
            return False
        self._waiting += 1
        self._asked.setdefault(key, (size_bytes, []))[1].append(tell)
        if not self._begins and len(self._reads) < MOST_READS:
            self._begins = True
            loop.call_soon(self._begin)
        return True

    async def close(self) -> None:
        """End the reads that run and begin no other; who waits is told that there is nothing."""
        self._paused_until_s = math.inf
        self._send_away()
        for read in self._reads:
            read.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)

    def _begin(self) -> None:
        self._begins = False
        if asyncio.get_running_loop().time() < self._paused_until_s:
            self._send_away()
        while self._asked and len(self._reads) < MOST_READS:
            batch = self._take()
            read = asyncio.get_running_loop().create_task(self._run(list(batch)))
            self._reads.add(read)
            read.add_done_callback(partial(self._ended, batch))

    def _send_away(self) -> None:
        while self._asked:
            for tells in self._take().values():
                self._tell(tells, None)

    def _take(self) -> dict[K, list[Tell[V]]]:
        batch: dict[K, list[Tell[V]]] = {}
        left_bytes = BATCH_BYTES
        for key, (size_bytes, tells) in list(self._asked.items()):
            if batch and (size_bytes > left_bytes or len(batch) == BATCH_NAMES):
                break
            left_bytes -= size_bytes
            batch[key] = tells
            del self._asked[key]
        return batch

    async def _run(self, keys: Sequence[K]) -> Sequence[V | None]:
        with self._activity.request():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await self._read(keys)
            except TimeoutError:
                self._paused_until_s = asyncio.get_running_loop().time() + PAUSE_S
                return [None] * len(keys)

    def _ended(self, batch: dict[K, list[Tell[V]]], read: asyncio.Task[Sequence[V | None]]) -> None:
        self._reads.discard(read)
        found: Sequence[V | None] = [None] * len(batch)
        if not read.cancelled():
            if (error := read.exception()) is None:
                found = read.result()
            else:
                log.error("reading small artifacts failed", exc_info=error)
        for tells, value in zip(batch.values(), found, strict=True):
            self._tell(tells, value)
        self._begin()

    def _tell(self, tells: list[Tell[V]], value: V | None) -> None:
        self._waiting -= len(tells)
        for tell in tells:
            try:
                tell(value)
            except Exception as error:  # a task's root; those behind it wait to be told as well
                log.error("telling of a small artifact failed", exc_info=error)
