"""How long one write has waited for one mirror alone, and when that is enough.

Two mirrors never take exactly the same time, and each waits a little for the other. What counts is
by how much one is behind in all: the time that only it was waited for, less the time that only the
others were. Where there is no other mirror, nobody is slowed down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Final

from depot.streams.blocks import Block, Ring
from depot.writing.lanes import Consumer, Writer

_LOOK_EVERY_S: Final = 0.1


class Lag:
    """Measures the writers of one transfer against each other.

    Args:
        most_s: how far one may be behind.
        stall_timeout_s: how long any of them may keep a block, or take to finish.
    """

    def __init__(self, writers: Sequence[Writer], most_s: float, stall_timeout_s: float) -> None:
        self._writers = writers
        self._most_s = most_s
        self._stall_timeout_s = stall_timeout_s
        self._waited_s = [0.0] * len(writers)

    def take(self, ring: Ring, consumers: Sequence[Consumer]) -> Block | None:
        """Wait for a free block; None when the slowest consumer is to be given up."""
        end_s = time.monotonic() + self._stall_timeout_s
        while (now_s := time.monotonic()) < end_s:
            alone = self._alone(consumers)
            most_s = min(end_s - now_s, _LOOK_EVERY_S, self._left_s(alone))
            block = ring.take(max(0.0, most_s))
            self._count(alone, now_s)
            if block is not None:
                return block
            if self._left_s(alone) <= 0:
                return None
        return None

    def await_writers(self, threads: Sequence[Future[None]]) -> bool:
        """Wait for the ends of all, or give up on those that take too long; whether all ended."""
        end_s = time.monotonic() + self._stall_timeout_s
        running = {i for i, writer in enumerate(self._writers) if not writer.abandoned}
        while running:
            now_s = time.monotonic()
            alone = next(iter(running)) if len(running) == 1 else None
            most_s = min(end_s - now_s, _LOOK_EVERY_S, self._left_s(alone))
            wait([threads[i] for i in running], max(0.0, most_s), FIRST_COMPLETED)
            running = {i for i in running if not threads[i].done()}
            self._count(alone, now_s)
            if running and (time.monotonic() >= end_s or self._left_s(alone) <= 0):
                for index in running:
                    self._writers[index].abandon()
                break
        return all(thread.done() for thread in threads)

    def _alone(self, consumers: Sequence[Consumer]) -> int | None:
        """The writer that has blocks while nobody else has."""
        busy = [c for c in consumers if c.error is None and c.waiting_blocks]
        if len(busy) != 1:
            return None
        found = (i for i, writer in enumerate(self._writers) if writer is busy[0])
        return next(found, None)

    def _count(self, alone: int | None, since_s: float) -> None:
        if alone is not None:
            self._waited_s[alone] += time.monotonic() - since_s

    def _left_s(self, index: int | None) -> float:
        others = [
            self._waited_s[i]
            for i, writer in enumerate(self._writers)
            if i != index and writer.error is None
        ]
        if index is None or not others:
            return math.inf
        return self._most_s - (self._waited_s[index] - min(others))
