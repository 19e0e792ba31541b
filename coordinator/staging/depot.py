"""The staging depot: what was uploaded here and may not be on enough sleds yet.

An `ArtifactStore` of one dataset, in one directory (`place`), for one coordinator. One dataset,
because a staged artifact is here only until enough sleds hold it: what protects it is to be
replicated soon, not a second disk of the same machine.

Rules kept here:
- What `Claim.hold` returned for is durable (B3), whatever ends the process afterwards (F5).
- Nothing is dropped because an upload failed: whether its release was recorded is known by the
  database alone, and the outcome of a commit may be unknown. Only `drop` drops.
- Nothing is dropped that a running upload claims, or claimed after the decision to drop it was
  begun (F2): who decides takes `moment()` before looking at anything, and passes it to `drop`.
- A full disk, or quota, refuses what is new (Q2); it never costs what is here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from coordinator.staging.place import Place
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.config.keeper import EventSink
from depot.dataset.disk import DiskOf, system_disk
from depot.errors import ConfigNotFound, DatasetUnusable, NotFound, QuotaExceeded
from depot.options import StoreOptions
from depot.store import ArtifactStore
from depot.store_status import DatasetStatus

MAX_CONCURRENT_HOLDS: Final = 8


class Readable(Protocol):
    """Bytes of an artifact: a binary file, a member of a zip, or the like. Read in a thread."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; the number of bytes, 0 at the end."""


@dataclass(frozen=True, slots=True)
class StagedArtifact:
    """A staged artifact to be sent. `path` may be gone by the time it is opened."""

    sha256: ArtifactHash
    path: Path
    size_bytes: int


def _ignore_event(_kind: str, _fields: Mapping[str, object]) -> None:
    """Nobody listens."""


class StagingDepot:
    """The artifacts that this coordinator holds. Make one with `open`.

    Attributes:
        id: a UUID that the directory keeps: whose staging it is, in the database.
        incoming: a directory for uploads that are still being received or judged.
    """

    def __init__(self, place: Place, store: ArtifactStore) -> None:
        sled_id = store.status().sled_id
        assert sled_id is not None
        self.id = sled_id
        self.incoming = place.incoming
        self._store = store
        self._changing = asyncio.Lock()
        self._holds = asyncio.Semaphore(MAX_CONCURRENT_HOLDS)
        self._claimed: Counter[ArtifactHash] = Counter()
        self._let_go: dict[ArtifactHash, int] = {}
        self._moment = 0

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        quota_bytes: int,
        on_event: EventSink = _ignore_event,
        disk_of: DiskOf = system_disk,
    ) -> Self:
        """Open the depot at `path`, which is made when it is not there.

        Raises:
            DatasetBusy: another coordinator has it.
            DatasetUnusable: the directory cannot be a depot, or has lost the one that was in it.
            FormatTooNew: a newer program wrote it.
            OSError: the directory cannot be used.
        """
        place = Place(path)
        await asyncio.to_thread(place.prepare)
        store = await ArtifactStore.open(
            [place.dataset],
            state_dir=place.state,
            options=_options(quota_bytes),
            on_event=on_event,
            disk_of=disk_of,
        )
        try:
            _require_attached(store)
            await asyncio.to_thread(place.clear_incoming)
            depot = cls(place, store)
            await depot._begin()
        except BaseException:
            await store.close()
            raise
        return depot

    async def close(self) -> None:
        """Release the directory. Running holds must have ended."""
        await self._store.close()

    async def __aenter__(self) -> Self:
        """Return the open depot."""
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def run_duties(self) -> None:
        """Watch the disk, verify what is held; until cancelled."""
        await self._store.run_duties()

    def held(self) -> frozenset[ArtifactHash]:
        """Every artifact that is here whole.

        Raises:
            NoDataset: the disk cannot be read, so nobody knows.
        """
        return frozenset(self._store.list_artifacts().copies)

    def status(self) -> DatasetStatus:
        """Quota, use and state of the disk, from memory."""
        return self._store.status().datasets[0]

    def warnings(self) -> tuple[str, ...]:
        """Sentences for an operator."""
        return self._store.status().warnings

    @asynccontextmanager
    async def claim(self, sizes: Mapping[ArtifactHash, int]) -> AsyncIterator[Claim]:
        """Keep these artifacts, of so many bytes each, from being dropped within the block.

        It ends after the transaction that records why they are wanted, never before.

        Raises:
            QuotaExceeded: those that are not here have no room.
            NoDataset, LedgerUnknown, Io.
        """
        self._claimed.update(sizes.keys())
        try:
            await self._check_room(sizes)
            await self._configure(adding=sizes)
            yield Claim(self, sizes)
        finally:
            self._release(sizes)

    async def locate(self, artifact: ArtifactHash) -> StagedArtifact:
        """Say which file has the artifact, to send it.

        Raises:
            NoDataset.
            NotFound: it is not here, or not whole.
        """
        copy = (await self._store.describe(artifact)).copies[0]
        if copy.path is None or copy.size_bytes is None:
            raise NotFound(f"{artifact} is not staged whole", damaged=1)
        return StagedArtifact(artifact, Path(copy.path), copy.size_bytes)

    async def verify(self, artifact: ArtifactHash) -> bool:
        """Read an artifact that a sled found to be wrong; whether it is here whole.

        One that is not is set aside, and no longer held.

        Raises:
            NoDataset, LedgerUnknown.
        """
        config = self._store.config()
        if artifact in config.artifacts:
            with suppress(QuotaExceeded):  # it was set aside, and there is no room for a new one
                async with self._store.begin_put(artifact, config.generation, 0, counted=False):
                    pass
        return artifact in self.held()

    def moment(self) -> int:
        """When it is now, for `drop`: taken before looking at what the decision rests on."""
        return self._moment

    async def drop(self, artifacts: Collection[ArtifactHash], *, since: int) -> list[ArtifactHash]:
        """Delete artifacts, unless they were claimed at some time after the moment `since`.

        Returns those that are no longer held, sorted.

        Raises:
            NoDataset, LedgerUnknown, QuotaExceeded, Io.
        """
        dropped = await self._configure(dropping=artifacts, since=since)
        await self._store.reconcile()
        return dropped

    async def _begin(self) -> None:
        try:
            self._store.config()
        except ConfigNotFound:
            await self._store.put_config(ArtifactConfig.make(0, ()))
        await self._configure()

    async def _check_room(self, sizes: Mapping[ArtifactHash, int]) -> None:
        """Refuse at once what would be refused later; another upload may still take the room."""
        await self._store.check_datasets()  # how much is free was seen seconds ago
        held = self.held()
        new_bytes = sum(size for artifact, size in sizes.items() if artifact not in held)
        available_bytes = self.status().available_bytes
        if new_bytes > available_bytes:
            raise QuotaExceeded(
                f"there are {new_bytes} bytes to be staged, the staging depot has room for "
                f"{available_bytes} now"
            )

    def _release(self, artifacts: Collection[ArtifactHash]) -> None:
        self._moment += 1
        self._claimed.subtract(dict.fromkeys(artifacts, 1))
        self._claimed = +self._claimed
        self._let_go.update(dict.fromkeys(artifacts, self._moment))

    def _droppable(self, artifacts: Iterable[ArtifactHash], since: int) -> frozenset[ArtifactHash]:
        return frozenset(
            artifact
            for artifact in artifacts
            if artifact not in self._claimed and self._let_go.get(artifact, 0) <= since
        )

    async def _configure(
        self,
        *,
        adding: Collection[ArtifactHash] = (),
        dropping: Collection[ArtifactHash] = (),
        since: int = 0,
    ) -> list[ArtifactHash]:
        """Change what the store is to hold; what was dropped of it."""
        async with self._changing:
            config = self._store.config()
            forgotten = await self._without_bytes(config)
            # Claims come and go while the disk is asked, but not between here and the next line.
            dropped = self._droppable(dropping, since) & config.artifacts
            wanted = (config.artifacts - dropped - self._droppable(forgotten, self._moment)).union(
                adding
            )
            self._let_go = {a: at for a, at in self._let_go.items() if a in wanted}
            if wanted != config.artifacts:
                await self._store.put_config(ArtifactConfig.make(config.generation + 1, wanted))
            return sorted(dropped)

    async def _without_bytes(self, config: ArtifactConfig) -> list[ArtifactHash]:
        """List what was claimed once and never came: not even a damaged copy is here."""
        missing = []
        for artifact in sorted(config.artifacts - self.held()):
            try:
                await self._store.describe(artifact)
            except NotFound:
                missing.append(artifact)
        return missing

    async def _hold(self, artifact: ArtifactHash, size_bytes: int, content: Readable) -> bool:
        async with self._holds:
            generation: Generation = self._store.config().generation
            async with self._store.begin_put(artifact, generation, size_bytes) as put:
                if put.held:
                    return False
                await put.receive(_Reading(content))
                return True


class Claim:
    """Artifacts that are wanted here, of known sizes. Made by `StagingDepot.claim`."""

    def __init__(self, depot: StagingDepot, sizes: Mapping[ArtifactHash, int]) -> None:
        self._depot = depot
        self._sizes = sizes

    async def hold(self, artifact: ArtifactHash, content: Readable) -> bool:
        """Make an artifact durable; False when it was here, verified, and nothing was read.

        Several may run at once. The caller closes `content`; whatever its `readinto` raises ends
        the hold, and is raised here.

        Raises:
            HashMismatch, LengthMismatch: nothing is left behind.
            QuotaExceeded, TooLarge: the disk, or the quota, is full.
            NoDataset, TooFewCopies, Io.
        """
        return await self._depot._hold(artifact, self._sizes[artifact], content)


class _Reading:
    """What is read from a `Readable`, as a source that can be given up."""

    def __init__(self, content: Readable) -> None:
        self._content = content
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        if self._aborted:
            raise ConnectionAbortedError("the upload was given up")
        return self._content.readinto(buffer)

    def abort(self) -> None:
        self._aborted = True


def _options(quota_bytes: int) -> StoreOptions:
    return StoreOptions(
        quota_bytes=quota_bytes,
        max_artifact_size_bytes=quota_bytes,
        max_concurrent_puts=MAX_CONCURRENT_HOLDS,
        delete_grace_s=0.0,  # everything is dropped sooner or later: that is no mistake here (D4)
        relay=False,
    )


def _require_attached(store: ArtifactStore) -> None:
    status = store.status().datasets[0]
    if not status.mounted:
        raise DatasetUnusable(f"{status.path}: {status.last_error}")
