"""How long deletions are held after a mass drop (D4), whatever the clock did meanwhile.

A ledger names the end of its grace as wall-clock time, which survives restarts and is wrong when
the clock was. So the grace also ends once it was seen to run for as long as one may last, by a
clock that is never set.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Grace:
    """Judges whether the grace that a ledger names is over.

    Args:
        longest_s: how long a grace lasts.
        wall: Unix time.
        monotonic: seconds by a clock that is never set.
    """

    def __init__(
        self,
        longest_s: float,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest_s = longest_s
        self._wall = wall
        self._monotonic = monotonic
        self._end_s = 0.0
        self._seen_s = monotonic()

    def held_until_s(self, end_s: float) -> float:
        """Unix time at which a grace that ends at `end_s` lets deletions begin; 0: it has.

        Asked of another end than before, it begins to measure that one.
        """
        if end_s != self._end_s:
            self._end_s, self._seen_s = end_s, self._monotonic()
        left_s = min(end_s - self._wall(), self._seen_s + self._longest_s - self._monotonic())
        return self._wall() + left_s if left_s > 0 else 0.0
