"""Commits, many at once: of what waits while one batch is made durable the next is made.

Nothing waits for company: a put that comes alone is a batch of one. A mirror has one batch under
way, and no mirror waits for another. Where a batch is quick, the next leaves half of what is under
way for the one after it: with all of it in one batch, everybody would be answered and come back
while the mirror has nothing to do. Where it is not, half would take as long as all.

When the dataset fails with a batch, those behind it fail with it, without a call that would only
fail, or hang, again.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from depot.dataset.dataset import Dataset
from depot.dataset.publishing import Batch, Entry, Published, publish
from depot.errors import DatasetUnusable
from depot.mirrors.mirror import Mirror

MOST_ENTRIES: Final = 256
MOST_BYTES: Final = 4 << 20
"""Contents of one batch, which are copied to the process that writes them."""
FEW: Final = 16
"""Up to so many are one batch in any case."""
_OWN_WORK_S: Final = 0.0004
"""What this process does for one put, about. A batch is quick that takes less than that for all."""

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
        self._deadlines = Deadlines(lag_s)

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
        publication = Publication(self._mirrors, len(entries), self._deadlines, tell)
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

    __slots__ = ("_broken", "_deadlines", "_left", "_mirrors", "_outcomes", "_tell", "waiting")

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        entries: int,
        deadlines: Deadlines,
        tell: Callable[[Publication], None],
    ) -> None:
        self.waiting: dict[int, _Waiting] = {}
        self._mirrors = mirrors
        self._outcomes: dict[int, Outcome] = {}
        self._broken: Exception | None = None
        self._left = entries
        self._deadlines = deadlines
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
        self._left = 0
        self._deadlines.drop(self)
        for index, waiting in self.waiting.items():
            waiting.give_up()
            on_late(index, waiting.end())

    def has_come(self, index: int, outcome: Outcome | Exception) -> None:
        """Take note of how it ended on one mirror."""
        if isinstance(outcome, (Published, OSError, DatasetUnusable)):
            self._outcomes[index] = outcome
        else:
            self._broken = outcome
        self._left -= 1
        if not self._left:
            self._end()
        elif isinstance(outcome, Published):
            # Where it is on no other, nobody is slowed down.
            self._deadlines.begin(self)

    def too_late(self) -> None:
        """Wait for none of the others: their datasets are too slow."""
        if not self._left:  # it ended in the meantime
            return
        too_slow = OSError(errno.ETIMEDOUT, "the device is too slow for this write")
        for index, waiting in self.waiting.items():
            if not waiting.told:
                waiting.give_up()
                self._outcomes[index] = too_slow
                self._mirrors[index].failed(too_slow, waiting.dataset)
        self._end()

    def _end(self) -> None:
        self._deadlines.drop(self)
        self._tell(self)


class Deadlines:
    """Ends the patience of publications, all of which have the same; one timer for all."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._due_s: dict[Publication, float] = {}  # as they began, so the first is due first
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, publication: Publication) -> None:
        """Call `too_late` once its patience is over; a second call changes nothing."""
        if publication in self._due_s:
            return
        loop = asyncio.get_running_loop()
        self._due_s[publication] = loop.time() + self._patience_s
        if self._timer is None:
            self._timer = loop.call_later(self._patience_s, self._look)

    def drop(self, publication: Publication) -> None:
        """It is over."""
        self._due_s.pop(publication, None)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._due_s:
            publication, due_s = next(iter(self._due_s.items()))
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._look)
                return
            del self._due_s[publication]
            loop.call_soon(publication.too_late)


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
        self._took_s = math.inf  # the last batch; before the first, nobody knows
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
        clock = asyncio.get_running_loop().time
        batch: list[_Waiting] = []
        while batch := self._next_batch(len(batch)):
            began_s = clock()
            await self._publish(batch)
            self._took_s = clock() - began_s
        self._busy = False

    def _next_batch(self, ended: int) -> list[_Waiting]:
        """Take what is to be published next, behind so many that have just been."""
        most = most_of_a_batch(len(self._queue) + ended, self._took_s)
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._queue and len(batch) < most:
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
        dataset, entries = here[0].dataset, Batch(waiting.entry for waiting in here)
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


def most_of_a_batch(under_way: int, took_s: float) -> int:
    """How many entries the next batch may have.

    Args:
        under_way: entries that wait, or were published with the batch before.
        took_s: what that batch took.
    """
    quick = took_s < under_way * _OWN_WORK_S
    return min(MOST_ENTRIES, max(FEW, (under_way + 1) // 2) if quick else under_way)


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
