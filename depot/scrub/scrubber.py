"""Background verification: every copy on every dataset is read and hashed within an interval.

A copy rots without a word, and both copies of an artifact may have done so by the time somebody
wants it. So each one is read past the page cache before that, each dataset at its own pace, and
what turns out bad is told to whoever heals it. Work that somebody waits for comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import groupby

from depot.mirrors.mirror_set import MirrorSet
from depot.scrub.dataset import DatasetScrubber, ScrubContext
from depot.scrub.report import ScrubPass, ScrubStatus
from depot.scrub.throttle import CHECK_S


class Scrubber:
    """The scrubs of all datasets, which run side by side."""

    def __init__(self, mirrors: MirrorSet, context: ScrubContext) -> None:
        self._context = context
        self._datasets = [DatasetScrubber(mirror, mirrors.all, context) for mirror in mirrors.all]

    def status(self) -> ScrubStatus:
        """How it is, from memory."""
        pace = self._context.pace
        return ScrubStatus(
            interval_s=pace.interval_s,
            max_bytes_per_s=pace.max_bytes_per_s,
            paused_until_s=self._context.pause.until_s,
            datasets=tuple(dataset.status() for dataset in self._datasets),
            warnings=tuple(self._warnings()),
        )

    async def start(self) -> None:
        """Have every copy verified from now on, as fast as is allowed; ends a pause.

        Idempotent while such a pass runs. A dataset that is away is scrubbed when it is back.
        """
        for dataset in self._datasets:
            dataset.request()
        await self.save()
        await self.resume()

    async def pause(self, seconds: float) -> None:
        """Read nothing for so long, at most `MAX_PAUSE_S`."""
        await self._context.pause.begin(seconds)

    async def resume(self) -> None:
        """End a pause."""
        await self._context.pause.end()
        self.wake()

    def wake(self) -> None:
        """Have every dataset looked at: one may be back."""
        self._context.wake.give()

    async def run_once(self) -> list[ScrubPass]:
        """Verify every copy of every healthy dataset now; how that went, dataset by dataset."""
        await self.start()
        healthy = [dataset for dataset in self._datasets if dataset.mirror.healthy]
        async with asyncio.TaskGroup() as group:
            for dataset in healthy:
                group.create_task(dataset.go_on())
        return [dataset.last for dataset in healthy if dataset.last is not None]

    async def run(self) -> None:
        """Scrub until cancelled."""
        async with asyncio.TaskGroup() as group:
            for dataset in self._datasets:
                group.create_task(dataset.run(), name=f"scrub-{dataset.mirror.index}")
            group.create_task(self._look_after_findings(), name="scrub-findings")

    def restore(self) -> None:
        """Take up the pause of the process before."""
        self._context.pause.restore()

    async def save(self) -> None:
        """Keep how far it is, for a restart."""
        for dataset in self._datasets:
            await dataset.save()

    async def _look_after_findings(self) -> None:
        is_wanted = self._context.is_wanted
        while True:
            for dataset in self._datasets:
                self._context.records.forget(dataset.mirror, lambda a: not is_wanted(a))
            await asyncio.sleep(CHECK_S)

    def _warnings(self) -> Iterator[str]:
        yield from self._context.records.problems
        said = [
            (self._context.pace.problem(dataset.survey().total_bytes), dataset.mirror.path)
            for dataset in self._datasets
        ]
        for problem, about in groupby(said, key=lambda each: each[0]):
            if problem is not None:
                yield f"{', '.join(str(path) for _, path in about)}: {problem}"
