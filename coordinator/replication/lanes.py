"""Jobs that could begin, by the sled that they are for: the sleds take turns.

A sled has so many jobs under way at once, and none begins on one that is paused.
"""

from __future__ import annotations

from collections import Counter, deque

from coordinator.replication.values import Copy, Put
from depot.artifact import ArtifactHash

Key = tuple[ArtifactHash, str]
Job = Put | Copy


def key_of(job: Job) -> Key:
    """What names a job within a plan, and what it brings in whichever plan."""
    return job.artifact, job.target


class Lanes:
    """The jobs of one kind, put or copy.

    Args:
        each: how many a sled may have under way at once.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._ready: dict[str, deque[Job]] = {}
        self._active: Counter[str] = Counter()
        self._turns: deque[str] = deque()
        self._in_line: set[str] = set()
        self._paused: set[str] = set()

    def add(self, job: Job) -> None:
        """Have a job wait for its turn."""
        if job.target not in self._ready:
            self._ready[job.target] = deque()
            self._line_up(job.target)
        self._ready[job.target].append(job)

    def next(self) -> Job | None:
        """A job whose turn it is, from now on under way."""
        while self._turns:
            target = self._turns.popleft()
            self._in_line.discard(target)
            if target not in self._ready or self._active[target] >= self._each:
                continue  # it gets a turn again with a new job, or when one of its own ends
            if target in self._paused:
                continue  # it gets one when it is resumed
            job = self._ready[target].popleft()
            self._active[target] += 1
            if self._ready[target]:
                self._line_up(target)
            else:
                del self._ready[target]
            return job
        return None

    def ended(self, target: str) -> None:
        """A job of that sled is not under way any more."""
        self._active[target] -= 1
        if target in self._ready:
            self._line_up(target)

    def pause(self, target: str) -> None:
        """Begin nothing on that sled until it is resumed."""
        self._paused.add(target)

    def resume(self, target: str) -> None:
        """Let what waits for that sled have its turns again."""
        self._paused.discard(target)
        if target in self._ready:
            self._line_up(target)

    def drop(self, target: str) -> list[Job]:
        """Give up what waits for that sled."""
        return list(self._ready.pop(target, ()))

    def _line_up(self, target: str) -> None:
        if target not in self._in_line:
            self._in_line.add(target)
            self._turns.append(target)
