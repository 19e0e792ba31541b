"""Copies from peers: admitted, coalesced, bounded, owned and remembered.

`start` refuses in this order: what a PUT is refused for before its body (NoDataset, NoConfig,
ArtifactGeneration, NotInConfig), BadSource, TooManyCopies, and then what only the network can tell:
DepotCopy, BadSource for a name that resolves to an address outside the allowed networks, TooLarge
and QuotaExceeded for the announced size. A source whose URL shows that it may not be asked refuses
the whole request; one that turns out so when it is resolved is passed over for the others.

An artifact has at most one copy running: a further request joins it and adds its sources. Every
copy that got as far as asking a source is listed, and ends in an event, a log line and a record
(S5). Copies run in the task group of `run`; none outlives it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import structlog

from agent.copies.budgets import CopyBudgets, CopyShare
from agent.copies.feed import Fetcher, Hedge
from agent.copies.job import CopyJob, CopyStore
from agent.copies.lane import BraidRoom
from agent.copies.lineup import RetryPolicy
from agent.copies.record import CopyBook, CopyRecord, CopyState
from agent.copies.source_url import SourceUrl
from agent.copies.widening import WideningPolicy
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import (
    ArtifactGeneration,
    BadSource,
    DepotError,
    Io,
    NoConfig,
    NotFound,
    NotInConfig,
    ShuttingDown,
    TooManyCopies,
)
from depot.streams.budget import Budget
from depot.writing.stored import Stored

__all__ = ["CopyManager", "CopyOptions", "CopyRecord", "CopyState"]

EventSink = Callable[[str, Mapping[str, object]], None]
_SUPERSEDED = (ArtifactGeneration, NotInConfig, NoConfig)
MAX_LIARS: Final = 256
"""Sources that are remembered for having sent wrong bytes; they are asked last."""
_STOPPING = "the sled agent is stopping"
_log = structlog.get_logger(__name__)


class CopyFetcher(Fetcher, Protocol):
    """What a copy needs of `agent.copies.peers.PeerFetcher`."""

    def check(self, source: SourceUrl) -> None:
        """Raise BadSource for an address that may not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Bounds of copies.

    Attributes:
        max_concurrent: copies that run at once (`copy.max_concurrent`).
        max_finished: finished copies that are remembered.
        max_sources: sources that one copy uses at once (`copy.max_sources`); 1: one at a time.
        hedge_after_s: how long a source has to answer before another is asked as well.
        widening: when several are used.
        part_bytes: how much is asked of each of several sources at once.
        max_bytes_per_s: of all copies that somebody asked for (`copy.max_bytes_per_s`); 0: no
            limit.
        max_bytes_per_s_per_source: of all copies from one host; 0: no limit.
    """

    max_concurrent: int = 8
    max_finished: int = 1000
    max_sources: int = 4
    hedge_after_s: float = 0.5
    max_bytes_per_s: int = 0
    max_bytes_per_s_per_source: int = 0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    widening: WideningPolicy = field(default_factory=WideningPolicy)
    part_bytes: int = 2 << 20


@dataclass(slots=True)
class _Running:
    """A copy, the task that runs it, and why it failed or was given up, if it did or was."""

    job: CopyJob
    task: asyncio.Task[None] | None = None
    refusal: BaseException | None = None
    error: BaseException | None = None
    given_up: tuple[CopyState, str] | None = None

    def give_up(self, state: CopyState, why: str) -> None:
        if self.given_up is None and self.task is not None:
            self.given_up = (state, why)
            if not self.job.abort():
                self.task.cancel()


class CopyManager:
    """Every copy of this sled. `run` must be running for `start` to work.

    Args:
        heal_budget: what copies may take in that healing asked for; None: no limit.
    """

    def __init__(
        self,
        store: CopyStore,
        fetcher: CopyFetcher,
        options: CopyOptions,
        *,
        on_event: EventSink,
        heal_budget: Budget | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._options = options
        self._on_event = on_event
        self._clock = clock
        self._budgets = CopyBudgets(
            Budget(options.max_bytes_per_s),
            heal_budget or Budget(),
            options.max_bytes_per_s_per_source,
        )
        self._room = BraidRoom(part_bytes=options.part_bytes)
        self._book = CopyBook(store.state, options.max_finished)
        self._running: dict[str, _Running] = {}
        # Until the agent ends, and bounded: a source may have been repaired.
        self._liars: dict[SourceUrl, None] = {}
        self._group: asyncio.TaskGroup | None = None
        self._draining = False
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Own the copies until `stop` is done; cancelling it gives them up first."""
        self._room = BraidRoom(part_bytes=self._options.part_bytes)
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._stopped.wait()
            finally:
                self._group = None
                await self._end_all(0)
                self._room.close()

    async def stop(self, drain_timeout_s: float) -> None:
        """Take no new copies; give up those that have not ended by `drain_timeout_s`."""
        self._draining = True
        await self._end_all(drain_timeout_s)
        self._stopped.set()

    async def start(
        self,
        sha256: ArtifactHash,
        generation: Generation,
        urls: Sequence[str],
        *,
        healing: bool = False,
    ) -> str:
        """Begin, or join, a copy; return its id once a source has answered.

        `urls` are base URLs of depots, to be tried in this order. The copy goes on when the caller
        does not wait for it.

        Raises:
            DepotError: see the module.
        """
        async with self._store.begin_put(sha256, generation, 0, counted=False) as put:
            held = put.held
        sources = self._parse(urls)
        if held is not None:
            return self._record_held(sha256, generation, sources, held)
        running = self._find(sha256) or self._begin(sha256, generation)
        running.job.share.healing &= healing
        running.job.add_sources(sources)
        running.job.distrust(self._liars.keys() & set(sources))
        await running.job.settled.wait()
        if running.refusal is not None:
            raise running.refusal
        return running.job.copy_id

    async def fetch(
        self, sha256: ArtifactHash, generation: Generation, urls: Sequence[str]
    ) -> CopyRecord:
        """Begin, or join, a copy that healing needs, and wait until it has succeeded.

        Raises:
            DepotError: see the module.
        """
        copy_id = await self.start(sha256, generation, urls, healing=True)
        running = self._running.get(copy_id)
        if running is not None and running.task is not None:
            await asyncio.wait((running.task,))
            if self._draining:
                raise ShuttingDown(_STOPPING)
            if isinstance(running.error, DepotError):
                raise running.error
        record = self.get(copy_id)
        if record.state != "succeeded":
            raise Io(record.error or f"the copy is {record.state}")
        return record

    def may_ask(self, url: str) -> bool:
        """Tell whether a depot may be asked at all, as far as its URL shows."""
        try:
            self._parse((url,))
        except BadSource:
            return False
        return True

    def list(self) -> tuple[CopyRecord, ...]:
        """Running and recent copies, oldest first."""
        return tuple(self._book.records().values())

    def get(self, copy_id: str) -> CopyRecord:
        """One copy.

        Raises:
            NotFound: never there, or so long ago that it is forgotten.
        """
        record = self._book.get(copy_id)
        if record is None:
            raise NotFound(f"no copy {copy_id[:80]!r} is running or remembered")
        return record

    def config_changed(self, config: ArtifactConfig) -> None:
        """Give up copies of what is no longer wanted; the store would refuse them at the end."""
        for running in list(self._running.values()):
            if running.job.accepted and running.job.sha256 not in config.artifacts:
                running.give_up("superseded", f"generation {config.generation} does not have it")

    async def _end_all(self, timeout_s: float) -> None:
        tasks = {running.task for running in self._running.values() if running.task}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for running in list(self._running.values()):
            running.give_up("failed", _STOPPING)
        if late:
            # An aborted transfer ends in order: its threads are done with the store's files.
            await asyncio.wait(late)

    def _parse(self, urls: Sequence[str]) -> tuple[SourceUrl, ...]:
        sources = tuple(map(SourceUrl.parse, urls))
        for source in sources:
            self._fetcher.check(source)
        return sources

    def _find(self, sha256: ArtifactHash) -> _Running | None:
        """The copy to join; one that was given up cannot be."""
        for running in self._running.values():
            if running.job.sha256 == sha256 and running.given_up is None:
                return running
        return None

    def _begin(self, sha256: ArtifactHash, generation: Generation) -> _Running:
        if self._group is None or self._draining:
            raise ShuttingDown(f"{_STOPPING}; it takes no new copies")
        if len(self._running) >= self._options.max_concurrent:
            raise TooManyCopies(f"{len(self._running)} copies are running, the limit of this sled")
        job = CopyJob(
            str(uuid.uuid4()),
            sha256,
            generation,
            store=self._store,
            fetcher=self._fetcher,
            policy=self._options.retry,
            share=CopyShare(self._budgets, healing=True),
            widening=replace(self._options.widening, max_sources=self._options.max_sources),
            room=self._room,
            hedge=Hedge(max_sources=self._options.max_sources, after_s=self._options.hedge_after_s),
            started_at=self._clock(),
        )
        running = self._running[job.copy_id] = _Running(job)
        self._book.add_running(job.copy_id, job.record)
        running.task = self._group.create_task(self._run(running), name=f"copy {sha256}")
        return running

    async def _run(self, running: _Running) -> None:
        """One copy's task, from its start to its record."""
        job = running.job
        try:
            stored = await job.run()
        except asyncio.CancelledError:
            self._end_badly(running, ShuttingDown(_STOPPING))
            raise
        except (DepotError, OSError) as error:
            self._end_badly(running, error)
        except Exception as error:  # a task root: nothing is lost on the way (S5)
            _log.exception("copy crashed", copy_id=job.copy_id, sha256=str(job.sha256))
            self._end_badly(running, error)
        else:
            self._end_well(running, stored)

    def _end_well(self, running: _Running, stored: Stored) -> None:
        record = replace(
            running.job.record(),
            state="succeeded",
            datasets=stored.datasets,
            successful_writes=stored.copies,
        )
        self._end(running, record)
        fields = _fields(record) | {
            "size_bytes": record.bytes_done,
            "copies": stored.copies,
            "datasets": stored.datasets,
        }
        if liars := running.job.liars:
            fields["wrong_bytes_from"] = [str(source) for source in liars]
        if served_by := running.job.served_by:
            fields["served_by"] = str(served_by)
            if served_by not in running.job.liars:
                self._liars.pop(served_by, None)
        self._on_event("copied", fields)
        _log.info("copy succeeded", **fields)

    def _end_badly(self, running: _Running, error: BaseException) -> None:
        state, why = running.given_up or (_state_after(error), _message(error))
        running.error = error
        if not running.job.accepted:
            running.refusal = error
        record = replace(running.job.record(), state=state, error=why)
        self._end(running, record)
        fields = _fields(record) | {"state": state, "error": why}
        self._on_event("copy_failed", fields)
        _log.warning("copy failed", **fields)

    def _end(self, running: _Running, record: CopyRecord) -> None:
        for source in running.job.liars:
            _log.warning("source sent wrong bytes", peer=str(source), sha256=str(record.sha256))
            self._liars[source] = None
            if len(self._liars) > MAX_LIARS:
                del self._liars[next(iter(self._liars))]
        del self._running[record.copy_id]
        self._book.finish(replace(record, finished_at=self._clock()))
        running.job.settled.set()

    def _record_held(
        self,
        sha256: ArtifactHash,
        generation: Generation,
        sources: Sequence[SourceUrl],
        held: Stored,
    ) -> str:
        now = self._clock()
        record = CopyRecord(
            copy_id=str(uuid.uuid4()),
            sha256=sha256,
            generation=generation,
            sources=tuple(map(str, sources)),
            state="succeeded",
            bytes_done=0,
            bytes_total=None,
            started_at=now,
            finished_at=now,
            datasets=held.datasets,
            successful_writes=held.copies,
        )
        self._book.finish(record)
        return record.copy_id


def _state_after(error: BaseException) -> CopyState:
    return "superseded" if isinstance(error, _SUPERSEDED) else "failed"


def _message(error: BaseException) -> str:
    if isinstance(error, DepotError):
        return str(error)
    # What an unexpected error says may name local paths, and records go on the wire (S4).
    return f"an internal error ({type(error).__name__}); the agent's log has it"


def _fields(record: CopyRecord) -> dict[str, object]:
    return {
        "copy_id": record.copy_id,
        "sha256": str(record.sha256),
        "generation": int(record.generation),
        "sources": list(record.sources),
    }
