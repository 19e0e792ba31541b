"""A pause of the scrub, which ends by itself whatever the clocks do, and outlives a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from depot.scrub.copy_records import CopyRecords
from depot.scrub.report import MAX_PAUSE_S

_NOTE: Final = "scrub pause"


class Pause:
    """The pause, if there is one.

    In one life of the process its end is measured by a clock that nobody sets. Across a restart
    the wall clock must do; whatever that says, the pause ends no later than its length from then.
    """

    def __init__(
        self,
        records: CopyRecords,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._clock = clock
        self._monotonic = monotonic
        self._ends_at_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds until it ends; 0 when there is none."""
        return max(0.0, self._ends_at_s - self._monotonic())

    @property
    def until_s(self) -> float | None:
        """Unix time when it ends; None when there is none."""
        left_s = self.left_s
        return self._clock() + left_s if left_s else None

    def restore(self) -> None:
        """Go on with the pause of the process before."""
        try:
            begun_at_s, seconds = map(float, json.loads(self._records.read_note(_NOTE) or "[0, 0]"))
        except (TypeError, ValueError):
            return
        seconds = min(seconds, MAX_PAUSE_S)
        left_s = min(begun_at_s + seconds - self._clock(), seconds)
        self._ends_at_s = self._monotonic() + max(0.0, left_s)

    async def begin(self, seconds: float) -> None:
        """Pause from now on for so long, instead of any pause before."""
        seconds = min(seconds, MAX_PAUSE_S)
        self._ends_at_s = self._monotonic() + seconds
        await self._records.keep_note(_NOTE, json.dumps([self._clock(), seconds]))

    async def end(self) -> None:
        """End it now."""
        self._ends_at_s = 0.0
        await self._records.keep_note(_NOTE, None)
