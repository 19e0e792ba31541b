"""The event log: what happened on this sled, numbered, across restarts.

Rules kept here:
- A sequence number is never used twice in an epoch, also across SIGKILL: an event becomes visible,
  and its number with it, only once its transaction is on stable storage.
- `emit` never blocks and never fails. It is called on the event loop; one thread commits in
  batches, and is woken once for what a turn of the loop has told. Events that do not fit in the
  queue are counted, and the count becomes an event.
- The log is bounded in events and in bytes per event. The newest are in memory too, so that whoever
  follows the log never waits for a disk; what is older is read from the database, in a thread.
- Trouble with the database costs persistence, never events: the log goes on in memory, under a new
  epoch because its numbers are no longer protected, and says so in its health.

On disk: `<state_dir>/events.sqlite3` and what `agent.event_journal` keeps beside it.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from agent.event_journal import (
    RECENT,
    Draft,
    Event,
    Opened,
    new_epoch,
    open_journal,
    read_events,
)

FILE_NAME: Final = "events.sqlite3"
MAX_FIELDS_BYTES: Final = 16 * 1024
_ENOUGH: Final = 256
"""Events of one transaction from which it does not wait for more."""
_STREAM: Final = 8
"""Events of one transaction behind which more are to be expected."""
_PAUSE_S: Final = 0.05
"""Behind such a transaction, unless enough wait before: each is a sync, which whoever shares the
disk has to wait for."""
_CLOSE_TIMEOUT_S: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events in order, and the bounds of what is kept; the bounds are 0 when nothing is."""

    epoch: str
    oldest: int
    latest: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class EventLogHealth:
    """Whether events survive a restart, and how many were lost since start."""

    epoch: str
    oldest: int
    latest: int
    persistent: bool
    dropped: int
    last_error: str | None


class EventLog:
    """Numbers, keeps and hands out events. Lives on one event loop; closed with `async with`."""

    def __init__(
        self,
        opened: Opened,
        *,
        path: Path | None = None,
        max_entries: int = 10_000,
        max_queued: int = 1_000,
        recent: int = RECENT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = opened.journal
        self._problem = opened.problem
        self._max_queued = max_queued
        self._clock = clock
        self._epoch = opened.journal.epoch if opened.journal else new_epoch()
        kept = opened.journal.recovered if opened.journal else []
        self._events: deque[Event] = deque(kept, maxlen=min(max_entries, recent))
        self._path = path
        self._max_entries = max_entries
        self._first = opened.journal.oldest if opened.journal else 0
        self._counts: Counter[str] = Counter()
        self._dropped = self._unreported = 0
        self._unsent: list[Draft] = []
        self._unwritten = 0
        self._queue: queue.SimpleQueue[list[Draft] | None] = queue.SimpleQueue()
        self._published = asyncio.Event()
        self._waiting_is_over = self._closed = False
        self._hurry = threading.Event()
        self._writer = threading.Thread(target=self._write, name="event-log", daemon=True)

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        *,
        max_entries: int = 10_000,
        max_queued: int = 1_000,
        recent: int = RECENT,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the log kept in `state_dir`; never fails, see `health().last_error`."""
        path = state_dir / FILE_NAME
        opened = await asyncio.to_thread(open_journal, path, max_entries, recent)
        if opened.problem:
            _log.warning("event log", problem=opened.problem)
        log = cls(
            opened,
            path=path,
            max_entries=max_entries,
            max_queued=max_queued,
            recent=recent,
            clock=clock,
        )
        if log._journal is not None:
            log._writer.start()
        return log

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Commit what is queued and close the database. Waits for a stuck disk only so long."""
        self.stop_waiting()
        self._closed = True
        self._hurry.set()
        if self._writer.is_alive():
            self._send()
            self._queue.put(None)
            await asyncio.to_thread(self._writer.join, _CLOSE_TIMEOUT_S)
            if self._writer.is_alive():
                _log.error("event log did not close", timeout_s=_CLOSE_TIMEOUT_S)

    # ---- writing

    def emit(self, kind: str, fields: Mapping[str, object] | None = None) -> None:
        """Record that something happened. Call it on the event loop; it returns at once."""
        if self._closed or self._unwritten >= self._max_queued:
            self._dropped += 1
            self._unreported += 1
            return
        draft = Draft(self._clock(), kind, _encode(fields or {}))
        if self._journal is None:
            self._publish([self._numbered(draft)])
        else:
            if not self._unsent:
                self._loop.call_soon(self._send)
            self._unsent.append(draft)
            self._unwritten += 1
            if self._unwritten == _ENOUGH:
                self._hurry.set()

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._queue.put(unsent)

    def _write(self) -> None:
        """Commit batches until told to stop or the database fails. Runs in the writer thread."""
        journal = self._journal
        assert journal is not None
        try:
            while batch := self._next_batch():
                try:
                    self._on_loop(self._written, journal.append(batch))
                except sqlite3.Error as error:
                    self._on_loop(self._go_on_in_memory, str(error), batch)
                    return
                if _STREAM <= len(batch) < _ENOUGH:
                    self._hurry.wait(_PAUSE_S)
        finally:
            journal.close()

    def _next_batch(self) -> list[Draft]:
        """Wait for an event and take what else is queued; empty when the log closes."""
        batch: list[Draft] = []
        while (drafts := self._queue.get()) is not None:
            batch += drafts
            if len(batch) >= _ENOUGH or self._queue.empty():
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _on_loop(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # The loop ended before a stuck disk let go: nobody reads any more.
            _log.error("event log outlived its event loop")

    def _numbered(self, draft: Draft) -> Event:
        """Number an event without a database."""
        return Event(self._latest + 1, draft.time, draft.kind, draft.fields)

    def _go_on_in_memory(self, problem: str, lost: Sequence[Draft]) -> None:
        """Leave the database behind; what is known so far opens the new epoch."""
        _log.error("event log is in memory only", problem=problem)
        self._journal, self._problem, self._epoch = None, problem, new_epoch()
        renumbered = [replace(event, sequence=n) for n, event in enumerate(self._events, start=1)]
        self._events.clear()
        self._events.extend(renumbered)
        self._first = 0
        left, self._unwritten = self._drain(), 0
        for draft in (*lost, *left):
            self._publish([self._numbered(draft)])

    def _drain(self) -> list[Draft]:
        """Take over what the writer thread, which has ended, left in the queue."""
        self._send()
        left: list[Draft] = []
        while not self._queue.empty():
            left += self._queue.get() or ()
        return left

    def _written(self, events: Sequence[Event]) -> None:
        self._unwritten -= len(events)
        if self._unwritten < _ENOUGH and not self._closed:
            self._hurry.clear()
        self._publish(events)

    def _publish(self, events: Sequence[Event]) -> None:
        """Make committed events visible and wake those who wait for them."""
        self._first = self._first or events[0].sequence
        self._events.extend(events)
        self._counts.update(event.kind for event in events)
        self._wake()
        if self._unreported:
            count, self._unreported = self._unreported, 0
            self.emit("events_dropped", {"count": count})

    # ---- reading

    @property
    def _latest(self) -> int:
        return self._events[-1].sequence if self._events else 0

    @property
    def _oldest(self) -> int:
        # The numbers of kept events have no gap: one transaction hands them out and stores them.
        if self._journal is None or not self._events:
            return self._events[0].sequence if self._events else 0
        return max(self._first, self._latest - self._max_entries + 1)

    async def page(self, after: int, limit: int) -> EventPage:
        """The first `limit` kept events numbered above `after`."""
        recent = self._events[0].sequence if self._events else 0
        if self._path is None or self._journal is None or after + 1 >= recent:
            return self.read(after, limit)
        epoch = self._epoch
        try:
            found = await asyncio.to_thread(read_events, self._path, after, limit)
        except (sqlite3.Error, TypeError, ValueError) as error:
            _log.warning("older events cannot be read", problem=str(error))
            return self.read(after, limit)
        if epoch != self._epoch:  # what was read is of numbers that count no more
            return self.read(after, limit)
        events = tuple(event for event in found if event.sequence >= self._oldest)
        return EventPage(self._epoch, self._oldest, self._latest, events)

    def read(self, after: int, limit: int) -> EventPage:
        """The first `limit` events above `after` among the newest; the log begins with these."""
        recent = self._events[0].sequence if self._events else 0
        first = max(0, after - recent + 1)
        events = tuple(islice(self._events, first, first + limit))
        return EventPage(self._epoch, recent, self._latest, events)

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return once there is an event above `after`, or after `timeout_s`, or at shutdown.

        At once as well when `after` is above every number: the reader knows another epoch.
        """
        if self._latest != after or self._waiting_is_over:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._published.wait()
        except TimeoutError:
            return

    def stop_waiting(self) -> None:
        """End every `wait`, now and from now on, so that none holds up a shutdown."""
        self._waiting_is_over = True
        self._wake()

    def _wake(self) -> None:
        self._published.set()
        self._published = asyncio.Event()

    def health(self) -> EventLogHealth:
        """How the log itself is."""
        return EventLogHealth(
            epoch=self._epoch,
            oldest=self._oldest,
            latest=self._latest,
            persistent=self._journal is not None,
            dropped=self._dropped,
            last_error=self._problem,
        )

    def counts(self) -> Mapping[str, int]:
        """Events by kind since start."""
        return self._counts


_JSON: Final = json.JSONEncoder(default=str, ensure_ascii=False)


def _encode(fields: Mapping[str, object]) -> str:
    """JSON of `fields`, or of their size when that is too much for one event."""
    text = _JSON.encode(dict(fields))
    # A file name that is not UTF-8 comes as lone surrogates, which no later encoder would take.
    content = text.encode(errors="replace")
    if len(content) > MAX_FIELDS_BYTES:
        return json.dumps({"omitted_bytes": len(content)})
    return content.decode()
