"""Several sources read side by side, given on as one stream in the artifact's order.

Each source has a lane: a thread that reads one part after the other into buffers, as `parts` hands
them out. The ingest's thread takes the bytes from there, in order, so that they pass through the
same hash as every other byte. A lane whose source breaks, or is too slow beside the others, ends,
and the rest of its part is read by another. The braid is over when everything has been read, when
it was told to drain, or when no lane is left: whoever reads it then goes on with one source.

What the lanes and the reader share is guarded by one condition; nothing is read, copied or waited
for on the network while it is held.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import mmap
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from agent.copies.lane import BraidRoom, Lane
from agent.copies.part_feed import NoPart, PartFeed
from agent.copies.parts import Part, PartPlan
from agent.copies.source_url import SourceUrl
from agent.copies.testimony import MAX_SPANS, Span
from depot.concurrency.threads import waiting_for
from depot.errors import BodyTimeout, LengthMismatch

LOOK_EVERY_S: Final = 0.1
"""How often a lane that waits for room looks whether another has become slow."""
SPARE_BUFFERS: Final = 2
T = TypeVar("T")
Broken = (BodyTimeout, LengthMismatch, OSError)


class Braid:
    """The bytes from `start` on, out of several sources. Made on the event loop's behalf.

    Args:
        room: has been asked for `first_buffers(...)` buffers; `close` gives all of them back.

    Attributes:
        spans: who gave what.
    """

    def __init__(
        self,
        feed: PartFeed,
        room: BraidRoom,
        span: tuple[int, int],
        sources: Sequence[SourceUrl],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed = feed
        self._room = room
        self._loop = loop
        self._clock = clock
        self._total_bytes = span[1]
        count = first_buffers(len(sources))
        self._plan = PartPlan(*span, part_bytes=room.part_bytes, buffers=count)
        self._buffers = [_buffer(room.part_bytes) for _ in range(count)]
        self._changed = threading.Condition()
        self._lanes: list[Lane] = []
        self._aborted = False
        self.spans: list[Span] = []
        for source in sources:
            self._begin(source)

    @property
    def sources(self) -> tuple[SourceUrl, ...]:
        """Those that are read from now, the one that gave the most first."""
        with self._changed:
            alive = [lane for lane in self._lanes if not lane.over and lane.dropped is None]
        return tuple(lane.source for lane in sorted(alive, key=lambda lane: -lane.gave_bytes))

    @property
    def best(self) -> SourceUrl | None:
        """Of those that nothing was wrong with, the one that gave the most."""
        with self._changed:
            well = [lane for lane in self._lanes if lane.well]
        return max(well, key=lambda lane: lane.gave_bytes).source if well else None

    @property
    def waited_s(self) -> float:
        """How long a lane has waited for its source, on average."""
        with self._changed:
            return sum(lane.waited_s for lane in self._lanes) / len(self._lanes)

    def add(self, source: SourceUrl) -> bool:
        """Read from one more; False when there is no room."""
        if not self._room.take(1):
            return False
        with self._changed:
            self._buffers.append(_buffer(self._room.part_bytes))
            self._plan.add_buffer()
        self._begin(source)
        return True

    def leave_out_slowest(self) -> None:
        """Read from one source less."""
        with self._changed:
            alive = [lane for lane in self._lanes if not lane.over and lane.dropped is None]
            if len(alive) > 1:
                min(alive, key=lambda lane: lane.gave_bytes).drop("")
            self._changed.notify_all()

    def drop_silent(self, patience_s: float, may_drop: Callable[[SourceUrl], bool]) -> None:
        """Drop the last source that is left, if it is silent: there is no other to rob it."""
        with self._changed:
            alive = [lane for lane in self._lanes if not lane.over and lane.dropped is None]
            if len(alive) == 1 and may_drop(alive[0].source):
                silent_s = alive[0].silent_s(self._clock())
                if silent_s >= patience_s:
                    alive[0].drop(f"it has been silent for {silent_s:.1f} s")

    def drain(self) -> None:
        """Hand out no more parts: the braid is over once what is under way has been read."""
        with self._changed:
            self._plan.draining = True
            self._changed.notify_all()

    def readinto(self, buffer: memoryview, /) -> int:
        """Take the next bytes; 0 when the braid is over.

        Raises:
            ConnectionAbortedError: `abort` was called.
        """
        head = self._next_head()
        if head is None:
            return 0
        part, count = head
        count = min(count, len(buffer))
        # Only the reader lets go of the head, so its buffer is nobody else's meanwhile.
        buffer[:count] = self._buffers[part.buffer][part.taken : part.taken + count]
        with self._changed:
            self._plan.taken(part, count)
            self._changed.notify_all()
        return count

    def abort(self) -> None:
        """End every lane soon; from any thread."""
        with self._changed:
            self._aborted = True
            for lane in self._lanes:
                lane.drop("the copy was given up")
            self._changed.notify_all()

    @property
    def quiet(self) -> bool:
        """Whether nothing of it runs any more."""
        return all(lane.running.done() for lane in self._lanes)

    async def close(self) -> None:
        """Wait until nothing of it runs any more, then let go of all it has; idempotent."""
        self.abort()
        await asyncio.wait([waiting_for(lane.running) for lane in self._lanes])
        buffers, self._buffers = self._buffers, []
        self._room.give_back(len(buffers))

    # The lanes

    def _begin(self, source: SourceUrl) -> None:
        lane = Lane(len(self._lanes), source)
        with self._changed:
            self._lanes.append(lane)
        lane.running = self._room.threads.submit(self._run, lane)

    def _run(self, lane: Lane) -> None:
        why = None
        try:
            while (part := self._next_part(lane)) is not None:
                self._fetch(lane, part)
        except NoPart:
            lane.well = False  # the lineup knows why
        except Broken as error:
            why = str(error) or type(error).__name__
        finally:
            with self._changed:
                lane.over = True
                why = why if lane.dropped is None else lane.dropped
                lane.well &= not why
                self._changed.notify_all()
            self._take_leave(lane, why)

    def _take_leave(self, lane: Lane, why: str | None) -> None:
        """Say why the lane has ended, if anything was wrong, and let go of its connection."""
        if why and not self._aborted:
            step = self._feed.broke(lane.source, why, lane.at_byte, lane.gave_bytes)
            asyncio.run_coroutine_threadsafe(step, self._loop).result()
        asyncio.run_coroutine_threadsafe(self._feed.close(lane), self._loop).result()

    def _next_part(self, lane: Lane) -> Part | None:
        """Wait for a part to read; None when there is none any more."""
        with self._changed:
            while lane.dropped is None:
                now_s = self._clock()
                part = self._plan.take(lane.number, now_s)
                if part is None and (robbed := self._plan.rob(lane.number, now_s)):
                    slow, part = robbed
                    self._lanes[slow.lane].drop("it is too slow beside the others")
                if part is not None:
                    return part
                if self._plan.finished:
                    return None
                self._changed.wait(LOOK_EVERY_S)
        return None

    def _fetch(self, lane: Lane, part: Part) -> None:
        """Read one part.

        Raises:
            NoPart: the source does not give it.
            BodyTimeout, LengthMismatch, OSError: not all of it came.
        """
        try:
            self._open(lane, part)
            while part.missing_bytes:
                self._receive(lane, part)
        finally:
            with self._changed:
                lane.at_byte = part.start + part.filled
                self._remember(lane, part)
                self._plan.give_up(part)
                self._changed.notify_all()

    def _open(self, lane: Lane, part: Part) -> None:
        begun_s = lane.asking_since_s = self._clock()
        lane.said = hashlib.sha256()
        with self._changed:  # whoever drops the lane looks at it
            lane.body = None
        span = (part.start, part.end)
        step = self._feed.open(lane, lane.source, span, self._total_bytes)
        body = self._on_loop(lane, step)
        with self._changed:
            lane.body, lane.asking_since_s = body, None
            lane.waited_s += self._clock() - begun_s
            if lane.dropped is not None:
                body.content.abort()

    def _receive(self, lane: Lane, part: Part) -> None:
        body, end = lane.body, part.end - part.start
        assert body is not None
        assert body.meter is not None
        waited_s = body.meter.waited_s
        view = self._buffers[part.buffer][part.filled : end]
        count = body.content.readinto(view)
        if count == 0:
            raise LengthMismatch(end, part.filled)
        said = lane.said.copy()
        said.update(view[:count])  # afterwards the buffer may be somebody else's
        with self._changed:
            lane.waited_s += body.meter.waited_s - waited_s
            if self._plan.filled(part, count, self._clock()):
                lane.gave_bytes += count
                lane.said = said
            # The reader waits for nothing else, and who waits for room waits for the reader.
            if self._plan.head is part:
                self._changed.notify_all()

    def _remember(self, lane: Lane, part: Part) -> None:
        if part.filled and len(self.spans) < MAX_SPANS:
            digest = lane.said.digest()
            self.spans.append(Span(part.start, part.start + part.filled, lane.source, digest))

    def _on_loop(self, lane: Lane, step: Coroutine[Any, Any, T]) -> T:
        """Run `step` on the event loop and wait for it here; dropping the lane ends the wait."""
        pending = asyncio.run_coroutine_threadsafe(step, self._loop)
        with self._changed:
            lane.pending = pending
            if lane.dropped is not None:
                pending.cancel()
        try:
            return pending.result()
        except concurrent.futures.CancelledError:
            raise ConnectionAbortedError("the lane was given up") from None
        finally:
            lane.pending = None

    # The reader

    def _next_head(self) -> tuple[Part, int] | None:
        """Wait for bytes to read: the part, and how many of it are ready."""
        with self._changed:
            while not self._aborted:
                head = self._plan.head
                if head is not None and head.ready_bytes:
                    return head, head.ready_bytes
                if self._plan.finished or all(lane.over for lane in self._lanes):
                    return None
                self._changed.wait()
        raise ConnectionAbortedError("the copy was given up")


def first_buffers(lanes: int) -> int:
    """How many buffers a braid begins with."""
    return lanes + SPARE_BUFFERS


def _buffer(size_bytes: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size_bytes))
