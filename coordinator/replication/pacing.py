"""When the next pass is due: reasons to begin one, and pauses after one that led nowhere."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final

from depot.concurrency.backoff import Backoff

PERIOD_S: Final = 60.0
FIRST_RETRY_S: Final = 1.0


class Ending(Enum):
    """What a pass ended in, as far as the next one is concerned."""

    SETTLED = auto()
    """There was nothing to do that can be done now."""
    GOES_ON = auto()
    """Something was done, or the database moved on: there may be more to do at once."""
    TRY_AGAIN = auto()
    """Something went wrong that may go well a little later."""


class Pacing:
    """Waits until a pass is due.

    Args:
        period_s: between passes that find nothing to do.
        manual: only `activate` has a pass begin; those that follow from it follow.
    """

    def __init__(self, *, period_s: float = PERIOD_S, manual: bool = False) -> None:
        self._period_s = period_s
        self._manual = manual
        self._due = asyncio.Event()
        self._retries: Backoff[None] = Backoff(FIRST_RETRY_S, max(FIRST_RETRY_S, period_s))
        self._pause_s: float | None = None if manual else 0.0

    @property
    def longest_pass_s(self) -> float:
        """When a pass is to make room for the next one."""
        return self._period_s

    @property
    def is_due(self) -> bool:
        """Somebody has a reason for another pass."""
        return self._due.is_set()

    def wake(self) -> None:
        """Something changed, which is a reason for a pass unless these begin on demand only."""
        if not self._manual:
            self._due.set()

    def activate(self) -> None:
        """Somebody wants a pass now, or one goes on in another."""
        self._due.set()

    async def wait(self) -> None:
        """Until a pass is due."""
        try:
            async with asyncio.timeout(self._pause_s):
                await self._due.wait()
        except TimeoutError:
            pass
        self._due.clear()

    def ended(self, ending: Ending) -> None:
        """Note how a pass ended, to know when the next one is due."""
        if ending is Ending.TRY_AGAIN and not self._manual:
            now_s = asyncio.get_running_loop().time()
            self._retries.failed(None, now_s)
            due_s = self._retries.next_due_s()
            assert due_s is not None
            self._pause_s = due_s - now_s
            return
        self._retries.clear()
        self._pause_s = None if self._manual else self._period_s
        if ending is Ending.GOES_ON:
            self._due.set()
