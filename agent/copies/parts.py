"""Which part of an artifact is read by whom, when several sources give it. Pure: no I/O, no clock.

What is still to come is handed out in parts, one after the other, each for one buffer. Parts ahead
of the reader are bounded by the buffers, so a source that is fast cannot run away from a slow one.
A slow source gets smaller parts, in proportion, so that all are done at about the same time.

A part whose reader gave up, or that was taken from a slow one, is cut where its bytes end; the rest
is handed out again before anything else. The last free buffer is kept for that: else buffers full
of later bytes could wait for earlier ones that there is no room for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

LEAST_PART_SHARE: Final = 2
"""The smallest part is the largest divided by this: each costs a request."""
PATIENCE_S: Final = 0.25
"""What nobody calls slow, and what it costs at most to ask again."""


@dataclass(slots=True, eq=False)
class Part:
    """Bytes `start` to `end` of the artifact, on their way through one buffer.

    Attributes:
        lane: who reads them.
        buffer: which buffer they go to.
        begun_s: when they were handed out.
        filled: how many are there; taken: how many of these have been read.
        lane_is_done: whether nobody writes to the buffer any more.
    """

    start: int
    end: int
    lane: int
    buffer: int
    begun_s: float
    filled: int = 0
    taken: int = 0
    lane_is_done: bool = False

    @property
    def missing_bytes(self) -> int:
        """What has not arrived yet."""
        return self.end - self.start - self.filled

    @property
    def ready_bytes(self) -> int:
        """What can be read now."""
        return self.filled - self.taken


class PartPlan:
    """The parts of the bytes `start` to `end`.

    Args:
        part_bytes: the size of a buffer.
        buffers: how many there are; at least two.
    """

    def __init__(self, start: int, end: int, *, part_bytes: int, buffers: int) -> None:
        self._frontier = start
        self._end = end
        self._part_bytes = part_bytes
        self._buffers = buffers
        self._free = list(range(buffers))
        self._parts: deque[Part] = deque()
        self._gaps: list[tuple[int, int]] = []
        self._left_behind: list[Part] = []
        self._rates: dict[int, float] = {}
        self.draining = False

    @property
    def head(self) -> Part | None:
        """The part with the next byte; None when that is not handed out."""
        if not self._parts or (self._gaps and self._gaps[0][0] < self._parts[0].start):
            return None
        return self._parts[0]

    @property
    def all_handed_out(self) -> bool:
        """Whether nothing is left to hand out."""
        return not self._gaps and (self.draining or self._frontier >= self._end)

    @property
    def finished(self) -> bool:
        """Whether everything that was to be handed out has been read."""
        return self.all_handed_out and not self._parts

    def add_buffer(self) -> None:
        """Have one more."""
        self._free.append(self._buffers)
        self._buffers += 1

    def take(self, lane: int, now_s: float) -> Part | None:
        """Hand out the next part to `lane`; None when there is no room or nothing is left."""
        if self._gaps and self._free:
            start, end = self._gaps.pop(0)
            return self._hand_out(start, end, lane, now_s)
        if self.draining or self._frontier >= self._end or len(self._free) < 2:
            return None
        start = self._frontier
        self._frontier = min(self._end, start + self._size_for(lane))
        return self._hand_out(start, self._frontier, lane, now_s)

    def rob(self, lane: int, now_s: float) -> tuple[Part, Part] | None:
        """Give `lane` the rest of the head, if its reader is too slow; the old part and the new.

        It is when `lane`, at the rate it has shown, would be done in half the time.
        """
        head, rate = self.head, self._rates.get(lane, 0.0)
        if head is None or not self._free or not rate or not self._is_slow(head, lane, now_s, rate):
            return None
        rest = (head.start + head.filled, head.end)
        self._cut(head)
        return head, self._hand_out(*rest, lane, now_s)

    def filled(self, part: Part, count: int, now_s: float) -> bool:
        """Count bytes that arrived; False when the part was taken away meanwhile."""
        if not part.missing_bytes:
            return False
        part.filled += count
        if not part.missing_bytes:
            part.lane_is_done = True
            self._rates[part.lane] = part.filled / max(now_s - part.begun_s, 1e-6)
        return True

    def give_up(self, part: Part) -> None:
        """Hand out the rest of a part again; its reader writes no more."""
        part.lane_is_done = True
        if part.missing_bytes:
            self._gaps = sorted([*self._gaps, (part.start + part.filled, part.end)])
            self._cut(part)
        self._reclaim()

    def taken(self, part: Part, count: int) -> None:
        """Count bytes that were read of the head."""
        part.taken += count
        if part.ready_bytes == part.missing_bytes == 0:
            self._leave(part)

    def _hand_out(self, start: int, end: int, lane: int, now_s: float) -> Part:
        part = Part(start, end, lane, self._free.pop(), now_s)
        place = sum(each.start < start for each in self._parts)
        self._parts.insert(place, part)
        return part

    def _is_slow(self, head: Part, lane: int, now_s: float, rate: float) -> bool:
        if head.lane == lane or not head.missing_bytes:
            return False
        elapsed_s = now_s - head.begun_s
        mine_s = head.missing_bytes / rate
        # As slow as it looks for some time already, and not only in the first moments.
        if elapsed_s < max(PATIENCE_S, 2 * self._part_bytes / rate):
            return False
        # Asking costs something as well: what is nearly done is left alone.
        left_s = head.missing_bytes * elapsed_s / max(head.filled, 1)
        return left_s > 2 * mine_s + PATIENCE_S

    def _cut(self, part: Part) -> None:
        part.end = part.start + part.filled
        if not part.ready_bytes:
            self._leave(part)

    def _leave(self, part: Part) -> None:
        if part in self._parts:
            self._parts.remove(part)
            self._left_behind.append(part)
        self._reclaim()

    def _reclaim(self) -> None:
        self._free += [part.buffer for part in self._left_behind if part.lane_is_done]
        self._left_behind = [part for part in self._left_behind if not part.lane_is_done]

    def _size_for(self, lane: int) -> int:
        fastest = max(self._rates.values(), default=0.0)
        least_bytes = self._part_bytes // LEAST_PART_SHARE
        if lane not in self._rates or not fastest:
            return least_bytes
        return max(least_bytes, int(self._part_bytes * self._rates[lane] / fastest))
