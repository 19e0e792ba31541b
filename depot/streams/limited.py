"""A source whose bytes come no faster than budgets allow.

The wait is in the thread that reads, before it reads: what has not been read stays with the sender,
which TCP slows down. The sender's own pace is not judged by this time, since nobody listens then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from depot.streams.budget import Budget
from depot.streams.sources import Source

Budgets = Callable[[], Sequence[tuple[Budget, int]]]
"""The budgets, and how many bodies share the part of one in each. Asked before each step: what a
body counts as may change while it is read."""


class LimitedSource:
    """Reads `inner`, of which every byte counts in each of the budgets. Owned until `close`.

    Attributes:
        waited_s: time that reading `inner` has taken, the running read left out.
        waiting_since_s: monotonic time at which the running read of `inner` began, None outside.
    """

    def __init__(self, inner: Source, budgets: Budgets, length_bytes: int | None = None) -> None:
        self.waited_s = 0.0
        self.waiting_since_s: float | None = None
        self._inner = inner
        self._budgets = budgets
        self._left_bytes = length_bytes
        self._credits: dict[Budget, int] = {}
        self._stopped = threading.Event()

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`."""
        limited = {budget: bodies for budget, bodies in self._budgets() if budget.limited}
        if not limited and not self._credits:
            return self._read(buffer)
        self._drop_all_but(limited)
        credits = [self._credit(budget, n, len(buffer)) for budget, n in limited.items()]
        allowed_bytes = min(credits, default=len(buffer))
        if self._stopped.is_set():
            raise ConnectionAbortedError("the transfer was given up")
        count = self._read(buffer[:allowed_bytes])
        for budget in limited:
            self._credits[budget] = self._credits.get(budget, count) - count
        if self._left_bytes is not None:
            self._left_bytes -= count
        return count

    def abort(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._inner.abort()

    def close(self) -> None:
        """Give back what was claimed and not read. Does not close `inner`."""
        self._stopped.set()
        self._drop_all_but(())

    def _read(self, buffer: memoryview) -> int:
        begun_s = self.waiting_since_s = time.monotonic()
        try:
            return self._inner.readinto(buffer)
        finally:
            self.waiting_since_s = None
            self.waited_s += time.monotonic() - begun_s

    def _credit(self, budget: Budget, bodies: int, most_bytes: int) -> int:
        """What may be read now, once it is time; a step is often more than one read takes."""
        if credit_bytes := self._credits.get(budget, 0):
            return credit_bytes
        wanted_bytes = most_bytes if self._left_bytes is None else max(1, self._left_bytes)
        claim = budget.claim(wanted_bytes, bodies)
        self._credits[budget] = claim.size_bytes
        self._stopped.wait(claim.wait_s)
        return claim.size_bytes

    def _drop_all_but(self, kept: Collection[Budget]) -> None:
        for budget in self._credits.keys() - frozenset(kept):
            budget.give_back(self._credits.pop(budget))
