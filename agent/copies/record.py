"""What is told about a copy, and how many finished ones are remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import Literal

from depot.artifact import ArtifactHash, Generation
from depot.state.tables import StateStore, Table

CopyState = Literal["running", "succeeded", "failed", "superseded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRecord:
    """A copy as of one moment.

    Attributes:
        generation: the one that the first request named.
        sources: base URLs in the order of the requests.
        bytes_done: taken in so far; falls back to 0 when the copy starts over.
        bytes_total: what the source announces; None when it does not.
        started_at, finished_at: Unix time, seconds.
        error: why it did not succeed.
        datasets, successful_writes: how many datasets there are, how many hold the artifact.
    """

    copy_id: str
    sha256: ArtifactHash
    generation: Generation
    sources: tuple[str, ...]
    state: CopyState
    bytes_done: int
    bytes_total: int | None
    started_at: float
    finished_at: float | None = None
    error: str | None = None
    datasets: int | None = None
    successful_writes: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in its place.

    Attributes:
        place: in the order of the copies' starts.
        record: of a copy that runs, as it was when it started.
    """

    place: int
    record: CopyRecord


class CopyBook:
    """Records of running and recent copies, oldest first. Running ones are never dropped.

    Args:
        state: where they are kept.
        max_finished: how many finished ones are kept.
    """

    def __init__(self, state: StateStore, max_finished: int) -> None:
        self._store = state
        self._entries: Table[str, Entry] = state.table("copies from peers")
        self._max_finished = max_finished
        self._places = count()
        # Progress changes with every block: a running copy is asked for it when it is needed.
        self._running: dict[str, Callable[[], CopyRecord]] = {}
        self._finished: deque[str] = deque()

    def add_running(self, copy_id: str, record: Callable[[], CopyRecord]) -> None:
        """List a copy that runs; `record` tells how it is now."""
        self._running[copy_id] = record
        with self._store.transaction() as change:
            change.put(self._entries, copy_id, Entry(next(self._places), record()))

    def finish(self, record: CopyRecord) -> None:
        """Keep what came of a copy, in its place; forget those that finished longest ago."""
        known = self._entries.get(record.copy_id)
        place = next(self._places) if known is None else known.place
        self._running.pop(record.copy_id, None)
        self._finished.append(record.copy_id)
        with self._store.transaction() as change:
            change.put(self._entries, record.copy_id, Entry(place, record))
            while len(self._finished) > self._max_finished:
                change.delete(self._entries, self._finished.popleft())

    def records(self) -> Mapping[str, CopyRecord]:
        """Every record by copy id, oldest first."""
        entries = sorted(self._entries.values(), key=attrgetter("place"))
        return {entry.record.copy_id: self._now(entry) for entry in entries}

    def get(self, copy_id: str) -> CopyRecord | None:
        """One record; None when it was never there or is forgotten."""
        entry = self._entries.get(copy_id)
        return None if entry is None else self._now(entry)

    def _now(self, entry: Entry) -> CopyRecord:
        running = self._running.get(entry.record.copy_id)
        return entry.record if running is None else running()
