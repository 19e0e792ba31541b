"""Commits, as many at once as there are: what waits while one batch is made durable is the next.

Nothing waits for company: a put that comes alone is a batch of one. A mirror has one batch under
way, so that those behind it become one, and no mirror waits for another. When the dataset fails
with a batch, those behind it fail with it, without a call that would only fail, or hang, again.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from depot.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.mirror import Mirror
from depot.publishing import Entry, Published, publish

MOST_ENTRIES: Final = 256
MOST_BYTES: Final = 4 << 20
"""Contents of one batch, which are copied to the process that writes them."""

Outcome = Published | OSError | DatasetUnusable


class GroupCommit:
    """Publishes on the mirrors of a store.

    Args:
        together: in batches; otherwise each entry by itself, however many at once.
        lag_s: how long one entry may wait for one mirror once it is on another.
    """

    def __init__(self, mirrors: Sequence[Mirror], *, together: bool, lag_s: float) -> None:
        self._mirrors = mirrors
        self._lines = [_Line(mirror, together=together) for mirror in mirrors]
        self._lag_s = lag_s

    async def publish(self, entries: Mapping[int, tuple[Dataset, Entry]]) -> dict[int, Outcome]:
        """Give an artifact its file on some mirrors; how that ended on each.

        The state of a mirror that failed has been moved. A file that comes too late, or after this
        was cancelled, has the artifact's bytes and is found by the reconciler.
        """
        begun = {i: self._lines[i].begin(entry, dataset) for i, (dataset, entry) in entries.items()}
        try:
            await _Landing(begun.values(), self._lag_s).wait()
        finally:
            late = [i for i, outcome in begun.items() if not outcome.done()]
            for index in late:
                begun[index].cancel()  # not begun with, if it still waits
        too_slow = OSError(errno.ETIMEDOUT, "the device is too slow for this write")
        for index in late:
            self._mirrors[index].failed(too_slow, entries[index][0])
        return {i: too_slow if i in late else outcome.result() for i, outcome in begun.items()}


class _Landing:
    """Some outcomes, waited for until all are there or those that are not are too late."""

    def __init__(self, outcomes: Collection[asyncio.Future[Outcome]], lag_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._lag_s = lag_s
        self._left = len(outcomes)
        for outcome in outcomes:
            outcome.add_done_callback(self._has_come)

    async def wait(self) -> None:
        try:
            if self._left:
                await self._over
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _has_come(self, outcome: asyncio.Future[Outcome]) -> None:
        self._left -= 1
        if not self._left:
            self._end()
        elif self._timer is None and _has_landed(outcome):
            # Where it is on no other, nobody is slowed down.
            self._timer = self._loop.call_later(self._lag_s, self._end)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


def _has_landed(outcome: asyncio.Future[Outcome]) -> bool:
    return (
        not outcome.cancelled()
        and outcome.exception() is None
        and isinstance(outcome.result(), Published)
    )


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: Entry
    dataset: Dataset
    outcome: asyncio.Future[Outcome]

    def settle(self, outcome: Outcome) -> None:
        if not self.outcome.done():  # or nobody waits any more
            self.outcome.set_result(outcome)

    def break_off(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class _Line:
    """What waits to be published on one mirror."""

    def __init__(self, mirror: Mirror, *, together: bool) -> None:
        self._mirror = mirror
        self._together = together
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, entry: Entry, dataset: Dataset) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(entry, dataset, loop.create_future())
        if self._together:
            self._queue.append(waiting)
        if not self._busy:
            self._busy = self._together
            work = self._work_off() if self._together else self._publish([waiting])
            task = loop.create_task(work)
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return waiting.outcome

    async def _work_off(self) -> None:
        while batch := self._next_batch():
            await self._publish(batch)
        self._busy = False

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._queue and len(batch) < MOST_ENTRIES:
            waiting = self._queue[0]
            size_bytes += 0 if waiting.outcome.done() else len(waiting.entry.content)
            if batch and size_bytes > MOST_BYTES:
                break
            self._queue.popleft()
            if not waiting.outcome.done():
                batch.append(waiting)
        return batch

    async def _publish(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._publish_those_here(batch)
        except Exception as error:  # a task root: whatever happened belongs to those who wait
            for waiting in batch:
                waiting.break_off(error)

    async def _publish_those_here(self, batch: Sequence[_Waiting]) -> None:
        here = [waiting for waiting in batch if self._is_here(waiting)]
        if not here:
            return
        dataset, entries = here[0].dataset, [waiting.entry for waiting in here]
        try:
            outcomes = await self._mirror.read(publish, entries)
        except (OSError, DatasetUnusable) as error:
            self._mirror.write_failed(error, dataset)
            self._fail(here, error)
            return
        for waiting, outcome in zip(here, outcomes, strict=True):
            # A directory under the artifact's name says nothing about the rest of the dataset.
            if isinstance(outcome, OSError) and not isinstance(outcome, IsADirectoryError):
                self._mirror.write_failed(outcome, dataset)
            waiting.settle(outcome)

    def _fail(self, batch: Sequence[_Waiting], error: OSError | DatasetUnusable) -> None:
        if not self._mirror.healthy:
            batch = (*batch, *self._queue)
            self._queue.clear()
        for waiting in batch:
            waiting.settle(error)

    def _is_here(self, waiting: _Waiting) -> bool:
        try:
            here = self._mirror.dataset is waiting.dataset
        except DatasetUnusable:
            here = False
        if not here:
            path = self._mirror.path
            waiting.settle(DatasetUnusable(f"{path} went away and came back during the write"))
        return here
