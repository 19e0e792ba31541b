"""What is told about a copy, and how many finished ones are remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from depot.artifact import ArtifactHash, Generation

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


class CopyBook:
    """Records of running and recent copies, oldest first. Running ones are never dropped.

    Args:
        max_finished: how many finished ones are kept.
    """

    def __init__(self, max_finished: int) -> None:
        self._max_finished = max_finished
        # In the order of their start; a running one is asked for its record when it is needed.
        self._entries: dict[str, CopyRecord | Callable[[], CopyRecord]] = {}
        self._finished: deque[str] = deque()

    def add_running(self, copy_id: str, record: Callable[[], CopyRecord]) -> None:
        """List a copy that runs; `record` tells how it is now."""
        self._entries[copy_id] = record

    def finish(self, record: CopyRecord) -> None:
        """Keep what came of a copy, in its place; forget those that finished longest ago."""
        self._entries[record.copy_id] = record
        self._finished.append(record.copy_id)
        while len(self._finished) > self._max_finished:
            del self._entries[self._finished.popleft()]

    def records(self) -> Mapping[str, CopyRecord]:
        """Every record by copy id, oldest first."""
        return {key: _now(entry) for key, entry in self._entries.items()}

    def get(self, copy_id: str) -> CopyRecord | None:
        """One record; None when it was never there or is forgotten."""
        entry = self._entries.get(copy_id)
        return None if entry is None else _now(entry)


def _now(entry: CopyRecord | Callable[[], CopyRecord]) -> CopyRecord:
    return entry if isinstance(entry, CopyRecord) else entry()
