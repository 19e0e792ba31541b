"""Takes releases: from a body or a URL, through verification and staging, into the database.

Rules kept here:
- What is acknowledged is staged durably, and recorded in one transaction with where it is (F5).
- A refused release leaves no file, and nothing in the database; what was staged of one that is
  refused late is wanted by nothing, and goes with the next pass.
- The claim on what is staged ends after that transaction, so that no pass drops it before (F2).
- Uploads are bounded in number, size and time (S1, S2).
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from agent.copies.networks import AllowedNetworks
from coordinator.database import releases, staged, trust
from coordinator.database.database import Database
from coordinator.database.releases import Recorded
from coordinator.database.transaction import Transaction
from coordinator.errors import Quiescing, TooManyUploads, Untrusted
from coordinator.releases.http_repository import HttpRepository
from coordinator.releases.release import ReleaseFacts, ReleaseTarget, VerifiedRelease
from coordinator.releases.repository import ReleaseLimits
from coordinator.releases.zip_repository import ZipRepository
from coordinator.staging.depot import Claim, StagingDepot
from coordinator.uploads.arriving import Arrived, check_size, receive
from coordinator.uploads.moved import Moved
from coordinator.uploads.threads import run_until_over
from coordinator.uploads.verifying import Wanted, verified
from coordinator.values import Release, ReleaseState
from depot.artifact import ArtifactHash
from depot.concurrency.threads import DaemonThreads
from depot.streams.sources import Source

# One waits for the body or verifies, one closes what was verified.
_THREADS_EACH: Final = 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """What uploads may take.

    Attributes:
        max_size_bytes: of one, as it arrives and of all its targets.
        max_concurrent: that run at once.
        networks: that releases may be fetched from.
    """

    max_size_bytes: int
    max_concurrent: int
    networks: AllowedNetworks


class UploadDesk:
    """Takes uploads.

    Args:
        database: where releases are recorded.
        staging: where their artifacts go first.
        limits: what they may take.
        on_recorded: called when there is something new for the sleds.
        clock: Unix seconds, by which expiry is judged, too.

    Attributes:
        quiescing: why no more are taken; None while they are.
        running: how many there are now.
        moved: how much they have moved, all since the start.
        threads: for what blocks of those that run.
    """

    def __init__(
        self,
        database: Database,
        staging: StagingDepot,
        limits: UploadLimits,
        on_recorded: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._staging = staging
        self._limits = limits
        self._on_recorded = on_recorded
        self._clock = clock
        self.threads = DaemonThreads("upload", _THREADS_EACH * limits.max_concurrent)
        self._release_limits = ReleaseLimits(total_bytes=limits.max_size_bytes)
        self.quiescing: str | None = None
        self.running = 0
        self.moved = Moved()

    def close(self) -> None:
        """Let the threads end."""
        self.threads.close()

    @asynccontextmanager
    async def admitted(self, length_bytes: int | None = None) -> AsyncIterator[tuple[bytes, ...]]:
        """Give an upload a place for the block, and the roots that it is to be verified by.

        Every refusal that needs no body comes here.

        Raises:
            Quiescing, TooManyUploads, TooLarge: as `placed`.
            Untrusted: nothing could verify it.
            DatabaseUnavailable.
        """
        async with self.placed(length_bytes):
            yield await self._roots()

    @asynccontextmanager
    async def placed(self, length_bytes: int | None = None) -> AsyncIterator[None]:
        """Give whatever is uploaded a place for the block.

        Raises:
            Quiescing: no more uploads are taken.
            TooManyUploads: as many as may be are running.
            TooLarge: it is longer than any may be.
        """
        if self.quiescing is not None:
            raise Quiescing(self.quiescing)
        if self.running >= self._limits.max_concurrent:
            raise TooManyUploads(f"{self.running} uploads are running already")
        check_size(length_bytes or 0, self._limits.max_size_bytes)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def upload(self, source: Source, wanted: Wanted, roots: tuple[bytes, ...]) -> Recorded:
        """Take a release from the body of a request: a zip.

        Raises:
            TooLarge, BodyTimeout, LengthMismatch, ConnectionError: of the body.
            BadRelease, Untrusted, Expired, TargetMismatch, InvalidRequest: of the release.
            ReleaseConflict: of what is recorded.
            QuotaExceeded, NoDataset, Io: of the staging depot.
            DatabaseUnavailable.
        """
        async with self.received(source) as (path, arrived):

            def open_zip(_stop: threading.Event) -> ZipRepository:
                return ZipRepository(path, sha256=arrived.sha256)

            async with self._verified(open_zip, roots, wanted) as release:
                return await self._stage_and_record(release)

    async def fetch(self, url: str, wanted: Wanted, roots: tuple[bytes, ...]) -> Recorded:
        """Take a release from a TUF repository at a URL.

        Raises:
            BadSource: it may not be fetched from there.
            Unreachable, Refused: it cannot be.
            as `upload`.
        """

        def open_url(stop: threading.Event) -> HttpRepository:
            networks, spool = self._limits.networks, self._staging.incoming
            return HttpRepository(url, networks, spool, stop=stop, on_fetched=self.moved)

        async with self._verified(open_url, roots, wanted) as release:
            return await self._stage_and_record(release)

    @asynccontextmanager
    async def received(self, source: Source) -> AsyncIterator[tuple[Path, Arrived]]:
        """Receive the body of a request into a file, which is there for the block.

        After a crash it goes with the next start.

        Raises:
            TooLarge, BodyTimeout, LengthMismatch, ConnectionError: of the body.
            QuotaExceeded, Io: of the staging directory.
        """
        path = self._staging.incoming / uuid4().hex
        take = partial(receive, source, path, self._limits.max_size_bytes, self.moved)
        try:
            yield path, await run_until_over(self.threads, take, source.abort)
        finally:
            await run_until_over(self.threads, partial(path.unlink, missing_ok=True), go_on)

    def _verified(
        self,
        repository: Callable[[threading.Event], ZipRepository | HttpRepository],
        roots: tuple[bytes, ...],
        wanted: Wanted,
    ) -> AbstractAsyncContextManager[VerifiedRelease]:
        return verified(
            repository,
            roots,
            wanted,
            now_s=self._clock(),
            limits=self._release_limits,
            threads=self.threads,
            moved=self.moved,
        )

    async def _roots(self) -> tuple[bytes, ...]:
        roots = await self._database.run(trust.every)
        if not roots:
            raise Untrusted(
                "no root of trust was added, so nothing verifies the release: add the root.json "
                "of whoever signs releases first"
            )
        return tuple(root.content for root in roots)

    async def _stage_and_record(self, verified: VerifiedRelease) -> Recorded:
        release = _release(verified.release, self._clock())
        sizes = {sha256: target.size_bytes for sha256, target in verified.targets.items()}
        # Before anything is staged: a conflict is to leave nothing behind.
        await self._rehearse(release)
        async with self._staging.claim(sizes) as claim:
            for target in verified.targets.values():
                await self._hold(claim, target)
            recorded = await self._database.run(partial(self._record, release, sizes))
        self._tell(recorded, sizes)
        return recorded

    async def _hold(self, claim: Claim, target: ReleaseTarget) -> None:
        content = await run_until_over(self.threads, target.open, go_on)
        try:
            await claim.hold(target.sha256, content)
        finally:
            await run_until_over(self.threads, content.close, go_on)

    async def _rehearse(self, release: Release) -> None:
        async def record_nothing(tx: Transaction) -> None:
            await releases.record(tx, release)
            raise _Rehearsed

        with suppress(_Rehearsed):
            await self._database.run(record_nothing)

    async def _record(
        self, release: Release, sizes: Mapping[ArtifactHash, int], tx: Transaction
    ) -> Recorded:
        recorded = await releases.record(tx, release)
        await staged.add(tx, self._staging.id, sizes)
        return recorded

    def _tell(self, recorded: Recorded, sizes: Mapping[ArtifactHash, int]) -> None:
        _log.info(
            "release uploaded",
            version=recorded.release.version,
            inserted=recorded.inserted,
            artifacts=len(sizes),
            size_bytes=sum(sizes.values()),
            allowed_expired=recorded.release.allowed_expired,
        )
        self._on_recorded()


def go_on() -> None:
    """Stop nothing: what it is about is over in a moment."""


class _Rehearsed(Exception):
    """Rolls a transaction back that would have gone well."""


def _release(facts: ReleaseFacts, now_s: float) -> Release:
    return Release(
        version=facts.version,
        sha256=facts.sha256,
        file_name=facts.file_name,
        time_created_s=now_s,
        allowed_expired=facts.allowed_expired,
        state=ReleaseState.COMPLETE,
        artifacts=facts.artifacts,
    )
