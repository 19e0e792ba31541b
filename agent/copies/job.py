"""One copy: attempts until the artifact is stored, no source is left, or the copy is given up.

Each attempt reserves space for what its first source announces, and lets it go again before the
next, so an announcement that is a lie costs nothing but time. Bytes of an attempt that failed are
never part of the next. Once the copy was accepted, a config that moved on does not end it as long
as the artifact is still wanted (G5); the store's fence has the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agent.copies.budgets import CopyShare
from agent.copies.combined import CombinedSource
from agent.copies.failover import FailoverSource
from agent.copies.feed import Fetcher, Hedge, SourceFeed
from agent.copies.lane import BraidRoom
from agent.copies.lineup import Lineup, RetryPolicy
from agent.copies.part_feed import PartFeed
from agent.copies.peers import PeerBody
from agent.copies.record import CopyRecord
from agent.copies.source_url import SourceUrl
from agent.copies.testimony import Account, Hearing
from agent.copies.widening import WideningPolicy
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import BadSource, DepotCopy, HashMismatch, QuotaExceeded, TooLarge
from depot.state.tables import StateStore
from depot.streams.sources import Source
from depot.writing.stored import Stored

_SOURCES_FAILED = (BadSource, DepotCopy)
_SIZE_REFUSED = (TooLarge, QuotaExceeded)


class AdmittedPut(Protocol):
    """A write that the store admitted; see `depot.writing.put.Put`."""

    @property
    def held(self) -> Stored | None:
        """Not None: every dataset has the artifact already."""

    async def receive(self, source: Source, *, depth: int) -> Stored:
        """Store what `source` gives; meanwhile it can be read, as a relay of that depth."""


class CopyStore(Protocol):
    """What a copy needs of `depot.store.ArtifactStore`."""

    @property
    def state(self) -> StateStore:
        """Where records are kept."""

    def config(self) -> ArtifactConfig:
        """The config in force."""

    def begin_put(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int | None,
        *,
        counted: bool = True,
    ) -> AbstractAsyncContextManager[AdmittedPut]:
        """Admit a write for a block."""


class CopyJob:
    """A copy that runs.

    Attributes:
        settled: set once a source has answered and space is reserved, or the copy has ended.
        accepted: whether it was the former.
        share: what it may take in.
    """

    def __init__(
        self,
        copy_id: str,
        sha256: ArtifactHash,
        generation: Generation,
        *,
        store: CopyStore,
        fetcher: Fetcher,
        policy: RetryPolicy,
        share: CopyShare,
        hedge: Hedge,
        widening: WideningPolicy,
        room: BraidRoom,
        started_at: float,
    ) -> None:
        self.copy_id = copy_id
        self.sha256 = sha256
        self.settled = asyncio.Event()
        self.accepted = False
        self.share = share
        self._generation = generation
        self._started_at = started_at
        self._store = store
        self._lineup = Lineup(sha256, policy)
        self._feed = SourceFeed(fetcher, self._lineup, share, hedge)
        self._part_feed = PartFeed(fetcher, self._lineup, share)
        self._widening = widening
        self._room = room
        self._testimony: Account | None = None
        self._announced_bytes: int | None = None
        self._progress: CombinedSource | None = None
        self._reading: CombinedSource | None = None

    @property
    def liars(self) -> tuple[SourceUrl, ...]:
        """Sources of which it is known that they gave wrong bytes."""
        return self._lineup.liars

    def distrust(self, sources: Iterable[SourceUrl]) -> None:
        """Ask these last, those that were added before."""
        self._lineup.distrust(sources)

    def add_sources(self, sources: Iterable[SourceUrl]) -> None:
        """Fall back to these too, after those that were named before."""
        self._lineup.add(sources)

    async def run(self) -> Stored:
        """Copy the artifact.

        Raises:
            DepotError: why it could not be had, or why the store refuses it.
            OSError: `abort` was called.
        """
        while self._lineup.begin_attempt():
            body = await self._feed.first(untried_only=not self.accepted)
            try:
                stored = await self._attempt(body) if body else None
            finally:
                await self._feed.close()
            if stored is not None:
                return stored
        raise self._lineup.failure()

    def abort(self) -> bool:
        """End the running transfer soon; False when none runs and cancelling `run` is safe."""
        if self._reading is None:
            return False
        self._reading.abort()
        return True

    @property
    def served_by(self) -> SourceUrl | None:
        """The source whose bytes were taken last; None before any were."""
        return self._progress.served_by if self._progress else None

    def record(self) -> CopyRecord:
        """The copy as it is now."""
        progress = self._progress
        return CopyRecord(
            copy_id=self.copy_id,
            sha256=self.sha256,
            generation=self._generation,
            sources=tuple(map(str, self._lineup.sources)),
            state="running",
            bytes_done=progress.position_bytes if progress else 0,
            bytes_total=progress.total_bytes if progress else self._announced_bytes,
            started_at=self._started_at,
        )

    async def _attempt(self, body: PeerBody) -> Stored | None:
        """Store what `body` and its successors give; None when they were not the artifact."""
        single = FailoverSource(self._feed, body)
        self._announced_bytes = single.total_bytes
        try:
            async with self._store.begin_put(
                self.sha256, self._current_generation(), single.total_bytes, counted=False
            ) as put:
                self._accept()
                return put.held or await self._receive(put, single)
        except HashMismatch as error:
            self._testimony = self._testimony or self._said()
            self._lineup.wrong_bytes(single.body.url, error)
        except _SIZE_REFUSED as error:
            # Another source may announce less; if none does, this is what the copy fails with.
            self._lineup.refused(single.body.url, error, at_byte=0)
        except _SOURCES_FAILED:
            pass  # the lineup knows why already
        return None

    async def _receive(self, put: AdmittedPut, single: FailoverSource) -> Stored:
        hearing = Hearing(self._testimony) if self._testimony else None
        source = CombinedSource(
            single, self._lineup, self._part_feed, self._room, self._widening, hearing
        )
        self._progress = self._reading = source
        try:
            stored = await put.receive(source, depth=self._feed.depth)
        finally:
            self._reading = None
            await source.close()
        if hearing is not None:
            self._lineup.convict(hearing.guilty())
        return stored

    def _said(self) -> Account | None:
        return self._progress.testimony() if self._progress else None

    def _current_generation(self) -> Generation:
        # Before it is accepted the request's own generation counts, as for a PUT.
        return self._store.config().generation if self.accepted else self._generation

    def _accept(self) -> None:
        self.accepted = True
        self.settled.set()
