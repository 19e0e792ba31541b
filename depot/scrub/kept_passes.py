"""Where the passes of one dataset are kept: they go on after a restart, or when it is back.

Kept under the dataset's own name, so that another disk in the slot goes on with its own passes. One
that runs is written every few seconds: what was verified since is in the records of the copies.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from depot.errors import DatasetUnusable
from depot.mirrors.mirror import Mirror
from depot.scrub.copy_records import CopyRecords
from depot.scrub.report import ScrubPass, decode_passes, encode_passes

_SAVE_S: Final = 5.0


class KeptPasses:
    """The pass that runs and the last that ended of whatever dataset is in a slot."""

    def __init__(self, mirror: Mirror, records: CopyRecords) -> None:
        self._mirror = mirror
        self._records = records
        self._about: str | None = None
        self._saved_s = float("-inf")

    def take_up(self) -> tuple[ScrubPass | None, ScrubPass | None] | None:
        """Return the passes of a dataset that has come, once; None: there is no other one."""
        dataset_id = self._dataset_id()
        if dataset_id is None or dataset_id == self._about:
            return None
        self._about = dataset_id
        return decode_passes(self._records.read_note(_note(dataset_id)))

    async def keep(self, current: ScrubPass | None, last: ScrubPass | None, *, now: bool) -> None:
        """Write them, `now` or unless that was done a moment ago."""
        if self._about is None or (not now and time.monotonic() - self._saved_s < _SAVE_S):
            return
        self._saved_s = time.monotonic()
        await self._records.keep_note(_note(self._about), encode_passes(current, last))

    def _dataset_id(self) -> str | None:
        with suppress(DatasetUnusable):
            return self._mirror.dataset.marker.dataset_id
        return None


def _note(dataset_id: str) -> str:
    return f"scrub {dataset_id}"
