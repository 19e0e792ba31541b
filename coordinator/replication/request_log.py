"""Every request to a sled, on its way to the ring, the counts and the log.

Rules kept here:
- A request is counted, and stands in the ring, when it is known how it ended: a copy when it has
  finished, not when it was accepted.
- What the database could not be told yet is kept for the next try, up to the size of the ring.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.values import MAX_HISTORY, RequestRecord, Sled
from depot.artifact import ArtifactHash, Generation

PUT_CONFIG: Final = "put_config"
LIST: Final = "list"
PUT: Final = "put"
COPY: Final = "copy"
RESET: Final = "reset"
DEFERRED: Final = "deferred"
STAGING: Final = "staging"
"""Source of what comes from the coordinator itself."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What a request is about."""

    sled: Sled
    operation: str
    generation: Generation
    artifact: ArtifactHash | None = None
    source: str | None = None


class RequestLog:
    """What was asked of sleds and how it ended.

    Attributes:
        run: counts since `begin_run`, by `<operation>_ok`, `<operation>_error` and `deferred`.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._records: deque[RequestRecord] = deque(maxlen=MAX_HISTORY)
        self._counts: Counter[str] = Counter()
        self.run: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many requests nobody has taken yet."""
        return len(self._records)

    def begin_run(self) -> None:
        """Count from zero."""
        self.run = Counter()

    def ended(self, request: Request, error: str | None = None, *, put_off: bool = False) -> None:
        """Note a request that ended.

        Args:
            request: what it was about.
            error: why it did not go well.
            put_off: it was only too early for it.
        """
        self._records.append(
            RequestRecord(
                time_s=self._clock(),
                sled_id=request.sled.id,
                operation=request.operation,
                generation=request.generation,
                artifact=request.artifact,
                source=request.source,
                error=error,
            )
        )
        name = f"{request.operation}_{'ok' if error is None else 'error'}"
        self._count(DEFERRED if put_off else name, 1)
        _log.info(
            "asked a sled",
            sled=request.sled.id,
            operation=request.operation,
            generation=int(request.generation),
            sha256=None if request.artifact is None else str(request.artifact),
            source=request.source,
            error=error,
        )

    def deferred(self, requests: int = 1) -> None:
        """Note requests that were put off."""
        self._count(DEFERRED, requests)

    def take(self) -> tuple[Sequence[RequestRecord], Mapping[str, int]]:
        """Hand over what was noted since the last time; `put_back` it if that leads nowhere."""
        taken = tuple(self._records), dict(self._counts)
        self._records.clear()
        self._counts.clear()
        return taken

    def put_back(self, records: Sequence[RequestRecord], counts: Mapping[str, int]) -> None:
        """Keep what was taken for another time; the oldest go when it is too much."""
        self._records = deque((*records, *self._records), maxlen=MAX_HISTORY)
        self._counts.update(counts)

    def _count(self, name: str, requests: int) -> None:
        if requests:
            self._counts[name] += requests
            self.run[name] += requests
