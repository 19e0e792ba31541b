"""Commits, as many at once as there are: what waits while one batch is made durable is the next.

Nothing waits for company: a put that comes alone is a batch of one. A mirror has one batch under
way, so that those behind it become one, and no mirror waits for another. When the dataset fails
with a batch, those behind it fail with it, without a call that would only fail, or hang, again.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from depot.dataset.dataset import Dataset
from depot.dataset.publishing import Entry, Published, publish
from depot.errors import DatasetUnusable
from depot.mirrors.mirror import Mirror

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
    ) -> Mapping[int, Outcome]:
        """Give an artifact its file on some mirrors; how that ended on each.

        The state of a mirror that failed has been moved. What is not over on one when this returns,
        or whose outcome nobody learns because this was cancelled, goes to `on_late`.
        """
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(_: Publication) -> None:
            if not told.done():
                told.set_result(None)

        publication = self.begin(entries, tell)
        try:
            await told
        except asyncio.CancelledError:
            publication.give_up(on_late)
            raise
        return publication.result(on_late)

    def begin(
        self, entries: Mapping[int, tuple[Dataset, Entry]], tell: Callable[[Publication], None]
    ) -> Publication:
        """Begin to do what `publish` does; `tell` is called once there is a result."""
        publication = Publication(self._mirrors, self._lag_s, tell)
        for index, (dataset, entry) in entries.items():
            publication.waiting[index] = _Waiting(publication, index, entry, dataset)
        for index, waiting in publication.waiting.items():
            self._lines[index].add(waiting)
        if not entries:
            tell(publication)
        return publication


class Publication:
    """An artifact's entries, until it is known of each how it ended or those left are too late.

    Attributes:
        waiting: each of them, by mirror.
    """

    __slots__ = ("_broken", "_lag_s", "_mirrors", "_outcomes", "_tell", "_timer", "waiting")

    def __init__(
        self, mirrors: Sequence[Mirror], lag_s: float, tell: Callable[[Publication], None]
    ) -> None:
        self.waiting: dict[int, _Waiting] = {}
        self._mirrors = mirrors
        self._outcomes: dict[int, Outcome] = {}
        self._broken: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lag_s = lag_s
        self._tell = tell

    def result(self, on_late: OnLate) -> Mapping[int, Outcome]:
        """How it ended on each mirror, once; raises what no mirror is to blame for."""
        for index, waiting in self.waiting.items():
            if waiting.may_land_yet(self._outcomes.get(index)):
                on_late(index, waiting.end())
        if self._broken is not None:
            raise self._broken
        return self._outcomes

    def give_up(self, on_late: OnLate) -> None:
        """Wait for nothing more: nobody learns the outcomes, not even those that are known."""
        self._stop_timer()
        for index, waiting in self.waiting.items():
            waiting.give_up()
            on_late(index, waiting.end())

    def has_come(self, index: int, outcome: Outcome | Exception) -> None:
        """Take note of how it ended on one mirror."""
        if isinstance(outcome, (Published, OSError, DatasetUnusable)):
            self._outcomes[index] = outcome
        else:
            self._broken = outcome
        if all(waiting.told for waiting in self.waiting.values()):
            self._end()
        elif self._timer is None and isinstance(outcome, Published):
            # Where it is on no other, nobody is slowed down.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._lag_s, self._too_late)

    def _too_late(self) -> None:
        too_slow = OSError(errno.ETIMEDOUT, "the device is too slow for this write")
        for index, waiting in self.waiting.items():
            if not waiting.told:
                waiting.give_up()
                self._outcomes[index] = too_slow
                self._mirrors[index].failed(too_slow, waiting.dataset)
        self._end()

    def _end(self) -> None:
        self._stop_timer()
        self._tell(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@dataclass(slots=True, eq=False)
class _Waiting:
    """One entry.

    Attributes:
        begun: it was given to the dataset.
        told: its publication knows how it ended, or does not wait for it any more.
        over: nothing is done for it any more.
        landed: what became of it, as far as that is known.
    """

    publication: Publication
    index: int
    entry: Entry
    dataset: Dataset
    begun: bool = False
    told: bool = False
    over: bool = False
    landed: Outcome | None = None
    _end: End | None = None

    def tell(self, outcome: Outcome | Exception) -> None:
        if not self.told:  # or nobody waits any more
            self.told = True
            self.publication.has_come(self.index, outcome)

    def settle(self, outcome: Outcome) -> None:
        self.end_with(outcome)
        self.tell(outcome)

    def break_off(self, error: Exception) -> None:
        self.end_with(None)
        self.tell(error)

    def fail(self, error: OSError | DatasetUnusable) -> None:
        """Say so, though what was begun with may still land."""
        if not self.begun:
            self.end_with(None)
        self.tell(error)

    def give_up(self) -> None:
        self.told = True
        if not self.begun:  # and never will be
            self.end_with(None)

    def end_with(self, outcome: Outcome | None) -> None:
        if not self.over:
            self.over, self.landed = True, outcome
            if self._end is not None:
                self._end.set_result(outcome)

    def end(self) -> End:
        """What is told when it is over."""
        if self._end is None:
            self._end = asyncio.get_running_loop().create_future()
            if self.over:
                self._end.set_result(self.landed)
        return self._end

    def may_land_yet(self, told: Outcome | None) -> bool:
        """Tell whether it may have a file of which its publication does not know."""
        return not self.over or (isinstance(self.landed, Published) and self.landed is not told)


class _Line:
    """What waits to be published on one mirror."""

    def __init__(self, mirror: Mirror, *, together: bool) -> None:
        self._mirror = mirror
        self._together = together
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._running: set[asyncio.Task[None]] = set()

    def add(self, waiting: _Waiting) -> None:
        if self._together:
            self._queue.append(waiting)
        if not self._busy:
            self._busy = self._together
            work = self._work_off() if self._together else self._publish([waiting])
            task = asyncio.get_running_loop().create_task(work)
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _work_off(self) -> None:
        while batch := self._next_batch():
            await self._publish(batch)
        self._busy = False

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._queue and len(batch) < MOST_ENTRIES:
            waiting = self._queue[0]
            size_bytes += 0 if waiting.told else len(waiting.entry.content)
            if batch and size_bytes > MOST_BYTES:
                break
            self._queue.popleft()
            if not waiting.told:
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
            if call.done():
                _settle_late(here, call)
            else:  # it goes on, and may succeed
                call.add_done_callback(partial(_ended, asyncio.get_running_loop(), here))
            self._fail(here, error)
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
            waiting.fail(error)

    def _spare_late(
        self, batch: Sequence[_Waiting], outcomes: Sequence[Published | OSError]
    ) -> None:
        """Have the next writer of what landed too late replace it, and not set it aside as bad."""
        landed = {
            waiting.entry.artifact
            for waiting, outcome in zip(batch, outcomes, strict=True)
            if waiting.told and isinstance(outcome, Published)
        }
        for waiting in self._queue if landed else ():
            if waiting.entry.artifact in landed:
                waiting.entry = waiting.entry._replace(aside=None)

    def _is_here(self, waiting: _Waiting) -> bool:
        if waiting.told:  # given up before it was begun with
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
