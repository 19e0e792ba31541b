"""Bytes per second that several bodies share: a token bucket that is taken from in turns.

Rules kept here:
- Whoever wants to move bytes claims a step first and waits for its time. Claims are served in the
  order in which they are made, and no body has more than one under way: so bodies that always have
  more to move get equal parts, and what one of them cannot use goes to the others. Several bodies
  that are one to everybody else (parts of one artifact) claim smaller steps, and get one part.
- A step is a twentieth of a second's worth, less while many wait, so that each moves now and then.
- Time that passed unused is made up for by one step at most: a limit is also one on short bursts.

Safe to use from any thread. Nothing in here waits but `grant`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Clock = Callable[[], float]
STEP_S: Final = 0.05
MAX_STEP_BYTES: Final = 4 << 20
CROWDED_S: Final = 0.5
"""With a longer queue than this, steps are smaller, down to MIN_CROWDED_STEP_BYTES."""
MIN_CROWDED_STEP_BYTES: Final = 4 << 10


@dataclass(frozen=True, slots=True)
class Claim:
    """What may be moved, `wait_s` seconds from now."""

    size_bytes: int
    wait_s: float


class Budget:
    """What all bodies of one kind may move together.

    Args:
        max_bytes_per_s: 0: as much as they like, and every claim is granted whole and at once.
    """

    def __init__(self, max_bytes_per_s: int = 0, clock: Clock = time.monotonic) -> None:
        self.max_bytes_per_s = max_bytes_per_s
        self._clock = clock
        self._free_at_s = clock() - STEP_S
        self._lock = threading.Lock()
        self._step_bytes = max(1, min(MAX_STEP_BYTES, int(max_bytes_per_s * STEP_S)))

    @property
    def limited(self) -> bool:
        """Whether there is any use in claiming."""
        return self.max_bytes_per_s > 0

    def claim(self, most_bytes: int, bodies: int = 1) -> Claim:
        """Reserve the next step.

        Args:
            most_bytes: what is wanted; it may be less, and at least one byte.
            bodies: how many are to get the part of one, together.
        """
        if not self.limited:
            return Claim(most_bytes, 0.0)
        with self._lock:
            now_s = self._clock()
            queue_s = self._free_at_s - now_s
            size_bytes = min(most_bytes, max(1, self._step(queue_s) // bodies))
            at_s = max(self._free_at_s, now_s - STEP_S)
            self._free_at_s = at_s + size_bytes / self.max_bytes_per_s
            return Claim(size_bytes, max(0.0, at_s - now_s))

    def give_back(self, size_bytes: int) -> None:
        """Leave to others what was claimed and not moved."""
        if self.limited:
            with self._lock:
                self._free_at_s -= size_bytes / self.max_bytes_per_s

    async def grant(self, most_bytes: int) -> int:
        """Claim a step and wait for it on the event loop; how many bytes it has."""
        claim = self.claim(most_bytes)
        if claim.wait_s > 0:
            try:
                await asyncio.sleep(claim.wait_s)
            except BaseException:
                self.give_back(claim.size_bytes)
                raise
        return claim.size_bytes

    async def pay(self, size_bytes: int) -> None:
        """Wait until all of `size_bytes` may be moved."""
        paid_bytes = 0
        try:
            while paid_bytes < size_bytes:
                paid_bytes += await self.grant(size_bytes - paid_bytes)
        except BaseException:
            self.give_back(paid_bytes)
            raise

    def pay_now(self, size_bytes: int) -> bool:
        """Take all of `size_bytes` if that is possible without waiting; else nothing."""
        if not self.limited:
            return True
        with self._lock:
            now_s = self._clock()
            if self._free_at_s > now_s or size_bytes > self._step_bytes:
                return False
            at_s = max(self._free_at_s, now_s - STEP_S)
            self._free_at_s = at_s + size_bytes / self.max_bytes_per_s
            return True

    def _step(self, queue_s: float) -> int:
        if queue_s <= CROWDED_S:
            return self._step_bytes
        crowded_bytes = max(MIN_CROWDED_STEP_BYTES, int(self._step_bytes * CROWDED_S / queue_s))
        return min(self._step_bytes, crowded_bytes)
