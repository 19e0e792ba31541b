"""Takes snapshots that the sleds are to hold: a body, proved, staged, into the catalogue.

Rules kept here:
- Nothing is recorded before what arrived was found to have the checksum that its publisher gave,
  after decompression: what is acknowledged can be downloaded.
- What is acknowledged is staged durably, and recorded in one transaction with where it is (F5); the
  claim on what is staged ends after that (F2).
- What is not wanted any more is dropped by sleds alone, as with releases.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final

import structlog

from agent.snapshots.errors import Malformed, Mismatch
from agent.snapshots.unpacking import unpacked
from agent.snapshots.values import Checksum, Metadata
from coordinator.database import snapshots, staged
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.staging.depot import StagingDepot
from coordinator.uploads.arriving import Arrived
from coordinator.uploads.desk import UploadDesk, go_on
from coordinator.uploads.errors import no_room
from coordinator.uploads.moved import Moved
from coordinator.uploads.threads import run_until_over
from coordinator.values import FleetSnapshot
from depot.artifact import ArtifactHash
from depot.errors import HashMismatch, InvalidRequest, LengthMismatch
from depot.streams.sources import Source

BLOCK_BYTES: Final = 1 << 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Announced:
    """What a publisher says that it sends.

    Attributes:
        name: of the snapshot.
        version: of this one.
        said: of it, as archives keep it.
        checksum, size_bytes: of the snapshot, after decompression.
    """

    name: str
    version: str
    said: Metadata
    checksum: Checksum
    size_bytes: int


class SnapshotDesk:
    """Takes snapshots, and lets go of them.

    Args:
        database: where they are recorded.
        staging: where their bytes go first.
        uploads: among which they have their place.
        on_changed: called when there is something new for the sleds.
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        staging: StagingDepot,
        uploads: UploadDesk,
        on_changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._staging = staging
        self._uploads = uploads
        self._on_changed = on_changed
        self._clock = clock

    async def take(self, source: Source, announced: Announced) -> FleetSnapshot:
        """Take a version from the body of a request, as the newest.

        Raises:
            TooLarge, BodyTimeout, LengthMismatch, ConnectionError: of the body.
            HashMismatch, LengthMismatch, InvalidRequest: it is not what was announced.
            SnapshotConflict, TooMany: of what is recorded.
            QuotaExceeded, NoDataset, Io: of the staging depot.
            DatabaseUnavailable.
        """
        uploads = self._uploads
        async with uploads.received(source) as (path, arrived):
            stop = threading.Event()
            prove = partial(require_intact, path, arrived, announced, uploads.moved, stop)
            await run_until_over(uploads.threads, prove, stop.set)
            recorded = await self._stage_and_record(path, self._snapshot(announced, arrived))
        _log.info(
            "snapshot uploaded",
            name=recorded.name,
            version=recorded.version,
            sha256=str(recorded.sha256),
            size_bytes=recorded.size_bytes,
        )
        self._on_changed()
        return recorded

    async def remove(self, name: str, version: str) -> None:
        """Let go of one version; one that is gone is fine.

        Raises:
            SnapshotConflict: it is the newest.
            DatabaseUnavailable.
        """
        if await self._database.run(snapshots.remove, name, version):
            _log.info("snapshot removed", name=name, version=version)
            self._on_changed()

    async def remove_every(self, name: str) -> None:
        """Let go of a snapshot with all its versions.

        Raises:
            SnapshotNotFound: there is none.
            DatabaseUnavailable.
        """
        for each in await self._database.run(snapshots.remove_every, name):
            _log.info("snapshot removed", name=name, version=each.version)
        self._on_changed()

    def _snapshot(self, announced: Announced, arrived: Arrived) -> FleetSnapshot:
        return FleetSnapshot(
            announced.name,
            announced.version,
            arrived.sha256,
            arrived.size_bytes,
            self._clock(),
            announced.said.items(),
        )

    async def _stage_and_record(self, path: Path, snapshot: FleetSnapshot) -> FleetSnapshot:
        threads = self._uploads.threads

        async def record(tx: Transaction) -> FleetSnapshot:
            recorded = await snapshots.record(tx, snapshot)
            await staged.add(tx, self._staging.id, [snapshot.sha256])
            return recorded

        async with self._staging.claim({snapshot.sha256: snapshot.size_bytes}) as claim:
            content = await run_until_over(threads, partial(FileIO, path), go_on)
            try:
                await claim.hold(snapshot.sha256, content)
            finally:
                await run_until_over(threads, content.close, go_on)
            return await self._database.run(record)


def require_intact(
    path: Path, arrived: Arrived, announced: Announced, moved: Moved, stop: threading.Event
) -> None:
    """Compare what arrived with what was announced. Blocks; it ends soon once `stop` is set.

    Raises:
        HashMismatch, LengthMismatch: it is something else.
        InvalidRequest: it cannot be decompressed.
        Io: it cannot be read.
    """
    found = arrived
    if announced.said.compression is not None:
        try:
            found = _unpacked(path, announced.size_bytes, moved, stop)
        except (Malformed, Mismatch) as error:
            raise InvalidRequest(f"what arrived is not what was announced: {error}") from error
        except OSError as error:
            raise no_room(error) from error
    if found.size_bytes != announced.size_bytes:
        raise LengthMismatch(announced.size_bytes, found.size_bytes)
    if (expected := ArtifactHash(announced.checksum.digest)) != found.sha256:
        raise HashMismatch(expected, found.sha256)


def _unpacked(path: Path, size_bytes: int, moved: Moved, stop: threading.Event) -> Arrived:
    hashed, found_bytes = hashlib.sha256(), 0
    for block in unpacked(_blocks(path, moved, stop), size_bytes):
        hashed.update(block)
        found_bytes += len(block)
    return Arrived(ArtifactHash(hashed.digest()), found_bytes)


def _blocks(path: Path, moved: Moved, stop: threading.Event) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            if stop.is_set():
                raise ConnectionAbortedError("the upload was given up")
            moved(len(block))
            yield block
