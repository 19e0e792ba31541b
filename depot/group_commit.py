"""Commits, as many at once as there are: what waits while one batch is made durable is the next.

Nothing waits for company: a put that comes alone is a batch of one. A mirror has one batch under
way, so that those behind it become one, and no mirror waits for another. When the dataset fails
with a batch, those behind it fail with it, without a call that would only fail, or hang, again.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from depot.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.mirror import Mirror
from depot.publishing import Entry, Published, publish

MOST_ENTRIES: Final = 256
MOST_BYTES: Final = 4 << 20
"""Contents of one batch, which are copied to the process that writes them."""

Outcome = Published | OSError | DatasetUnusable
End = asyncio.Future[Outcome | None]
"""Told when nothing is done for an entry any more; None: nothing was, or nobody knows."""
OnLate = Callable[[int, End], None]


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

    async def publish(
        self, entries: Mapping[int, tuple[Dataset, Entry]], on_late: OnLate
    ) -> dict[int, Outcome]:
        """Give an artifact its file on some mirrors; how that ended on each.

        The state of a mirror that failed has been moved. What is not over on one when this returns,
        or whose outcome nobody learns because this was cancelled, goes to `on_late`.
        """
        begun = {i: self._lines[i].begin(entry, dataset) for i, (dataset, entry) in entries.items()}
        try:
            await _Landing([each.outcome for each in begun.values()], self._lag_s).wait()
        except asyncio.CancelledError:
            for index, waiting in begun.items():
                waiting.give_up()
                on_late(index, waiting.end)
            raise
        too_slow = OSError(errno.ETIMEDOUT, "the device is too slow for this write")
        late = [i for i, waiting in begun.items() if not waiting.outcome.done()]
        for index in late:
            begun[index].give_up()
            self._mirrors[index].failed(too_slow, entries[index][0])
        for index, waiting in begun.items():
            if not waiting.end.done():
                on_late(index, waiting.end)
        return {i: too_slow if i in late else each.outcome.result() for i, each in begun.items()}


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


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    dataset: Dataset
    outcome: asyncio.Future[Outcome] = field(default_factory=_future)
    end: End = field(default_factory=_future)
    begun: bool = False

    def tell(self, outcome: Outcome) -> None:
        if not self.outcome.done():  # or nobody waits any more
            self.outcome.set_result(outcome)

    def settle(self, outcome: Outcome) -> None:
        self.tell(outcome)
        self.end_with(outcome)

    def break_off(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
        self.end_with(None)

    def give_up(self) -> None:
        self.outcome.cancel()
        if not self.begun:  # and never will be
            self.end_with(None)

    def end_with(self, outcome: Outcome | None) -> None:
        if not self.end.done():
            self.end.set_result(outcome)


class _Line:
    """What waits to be published on one mirror."""

    def __init__(self, mirror: Mirror, *, together: bool) -> None:
        self._mirror = mirror
        self._together = together
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, entry: Entry, dataset: Dataset) -> _Waiting:
        waiting = _Waiting(entry, dataset)
        if self._together:
            self._queue.append(waiting)
        if not self._busy:
            self._busy = self._together
            work = self._work_off() if self._together else self._publish([waiting])
            task = asyncio.get_running_loop().create_task(work)
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return waiting

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
        for waiting in here:
            waiting.begun = True
        call = self._mirror.begin(publish, dataset, entries)
        try:
            outcomes = await self._mirror.wait(call)
        except (OSError, DatasetUnusable) as error:
            self._mirror.write_failed(error, dataset)
            self._fail(here, error)
            if call.done():
                _settle_late(here, call)
            else:  # it goes on, and may succeed
                call.add_done_callback(partial(_ended, asyncio.get_running_loop(), here))
            return
        self._spare_late(here, outcomes)
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
            waiting.tell(error)
            waiting.give_up()

    def _spare_late(
        self, batch: Sequence[_Waiting], outcomes: Sequence[Published | OSError]
    ) -> None:
        """Have the next writer of what landed too late replace it, and not set it aside as bad."""
        landed = {
            waiting.entry.artifact
            for waiting, outcome in zip(batch, outcomes, strict=True)
            if waiting.outcome.done() and isinstance(outcome, Published)
        }
        for waiting in self._queue if landed else ():
            if waiting.entry.artifact in landed:
                waiting.entry = waiting.entry._replace(aside=None)

    def _is_here(self, waiting: _Waiting) -> bool:
        if waiting.outcome.done():  # given up before it was begun with
            return False
        try:
            here = self._mirror.dataset is waiting.dataset
        except DatasetUnusable:
            here = False
        if not here:
            path = self._mirror.path
            waiting.settle(DatasetUnusable(f"{path} went away and came back during the write"))
        return here


def _ended(
    loop: asyncio.AbstractEventLoop,
    batch: Sequence[_Waiting],
    call: Future[list[Published | OSError]],
) -> None:
    # In whatever thread the call ended.
    with suppress(RuntimeError):  # the loop is closed: nobody asks any more
        loop.call_soon_threadsafe(_settle_late, batch, call)


def _settle_late(batch: Sequence[_Waiting], call: Future[list[Published | OSError]]) -> None:
    known = not call.cancelled() and call.exception() is None
    outcomes = call.result() if known else [None] * len(batch)
    for waiting, outcome in zip(batch, outcomes, strict=True):
        waiting.end_with(outcome)
