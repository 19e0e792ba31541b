"""How fast one dataset is read to verify its copies: never above the rate that is due or allowed.

What rate that is `depot.scrub.pace` decides. The rate that is due depends on every copy, so it is
worked out from time to time, in a thread, and not at every step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from depot.artifact import ArtifactHash
from depot.concurrency.foreground import Foreground
from depot.concurrency.unhurried import leisurely
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.scrub.copy_records import CopyRecords
from depot.scrub.pace import ScrubPace, condensed
from depot.streams.blocks import BLOCK_SIZE_BYTES

CHECK_S: Final = 60.0
"""How often it is asked whether it is time for a pass, and what rate is due."""
_WAIT_S: Final = 0.5
# Waiting for less costs more than it brings.
_SHORTEST_WAIT_S: Final = 0.002


class Throttle:
    """The rate of one dataset, and how far ahead of it the reading is.

    Attributes:
        due_rate: bytes per second, as it was last worked out.
    """

    def __init__(
        self,
        mirror: Mirror,
        *,
        records: CopyRecords,
        pace: ScrubPace,
        foreground: Foreground,
        clock: Callable[[], float],
    ) -> None:
        self._mirror = mirror
        self._records = records
        self._pace = pace
        self._foreground = foreground
        self._clock = clock
        self._meter = _Meter()
        self._checked_s = float("-inf")
        self.due_rate = 0.0

    @property
    def check_s(self) -> float:
        """How long what was worked out is good for."""
        return min(CHECK_S, self._pace.interval_s / 20)

    def rate(self, *, requested: bool) -> float:
        """The rate to read at now; see `ScrubPace.rate`."""
        return self._pace.rate(self.due_rate, requested=requested, busy=self._foreground.busy)

    async def check(self) -> None:
        """Work out what rate is due, unless that was done a moment ago."""
        if time.monotonic() - self._checked_s < self.check_s:
            return
        self._checked_s = time.monotonic()
        self.due_rate = await asyncio.to_thread(self._due_rate_of, self._mirror.artifacts.rows)

    def check_anew(self) -> None:
        """Have the next `check` work it out in any case."""
        self._checked_s = float("-inf")

    def start(self, *, requested: bool) -> None:
        """Begin to read."""
        self._meter.start(self.rate(requested=requested))

    async def has_turn(self, *, requested: bool) -> bool:
        """Tell whether it is time for the next step; if not, wait for a part of what is left."""
        wait_s = self._meter.wait_s(self.rate(requested=requested))
        if wait_s < _SHORTEST_WAIT_S:
            return True
        await self._foreground.changed.wait(min(wait_s, _WAIT_S))
        return False

    def count(self, count_bytes: int) -> None:
        """Count bytes that were read."""
        self._meter.count(count_bytes)

    def _due_rate_of(self, copies: Mapping[ArtifactHash, Copy]) -> float:
        ages = self._records.ages(self._mirror)
        bases_s, sizes_bytes = list[float](), list[int]()
        for some in leisurely(copies.items()):
            sound = [(a, copy.size_bytes) for a, copy in some if not copy.damaged]
            bases_s += [ages.get(artifact, 0.0) for artifact, _ in sound]
            sizes_bytes += [size_bytes for _, size_bytes in sound]
        return self._pace.due_rate(condensed(bases_s, sizes_bytes), self._clock())


class _Meter:
    """How many bytes too many were read for the rate, which may change at any time."""

    def __init__(self) -> None:
        self._ahead_bytes = 0.0
        self._looked_s = 0.0

    def start(self, rate: float) -> None:
        """Begin a pass, with a wait for a first block: a busy node may not have a byte to spare."""
        self._ahead_bytes = max(self._ahead_bytes, float(BLOCK_SIZE_BYTES)) if rate else 0.0
        self._looked_s = time.monotonic()

    def count(self, count_bytes: int) -> None:
        """Count bytes that were read."""
        self._ahead_bytes += count_bytes

    def wait_s(self, rate: float) -> float:
        """Return how long to wait at this rate, seen from now."""
        now_s = time.monotonic()
        self._ahead_bytes -= rate * (now_s - self._looked_s)
        # A short burst makes up for waits that took longer than they should have.
        self._ahead_bytes = max(self._ahead_bytes, -rate * 0.05)
        self._looked_s = now_s
        return self._ahead_bytes / rate if rate else float("inf")
