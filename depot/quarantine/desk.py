"""What an operator asks of the quarantine: give a copy its name back, or let one go.

A copy gets its name back only when its bytes hash to it, were read past the page cache, and no good
copy stands there (B1). The last copy of an artifact goes only by force.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Final

from depot.artifact import ArtifactHash
from depot.concurrency.keyed_lock import KeyedLock
from depot.config.keeper import LedgerKeeper
from depot.dataset import quarantine_files
from depot.errors import (
    DatasetUnusable,
    Io,
    KeptInQuarantine,
    NoDataset,
    NotFound,
    QuotaExceeded,
)
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.os_errors import describe_error
from depot.quarantine.keeper import Quarantined, QuarantineKeeper
from depot.quarantine.wanted import wanted_by

PART_BYTES: Final = 4 << 20


class QuarantineDesk:
    """The verbs."""

    def __init__(
        self,
        mirrors: MirrorSet,
        keeper: LedgerKeeper,
        quarantine: QuarantineKeeper,
        commits: KeyedLock[ArtifactHash],
    ) -> None:
        self._mirrors = mirrors
        self._keeper = keeper
        self._quarantine = quarantine
        self._commits = commits

    async def restore(self, id_: str) -> None:
        """Give a copy its name back; see `ArtifactStore.restore_quarantined`."""
        found, mirror = self._find(id_)
        artifact = found.file.artifact
        async with self._commits.hold(artifact):
            self._find(id_)  # it may have gone while the lock was waited for
            if not wanted_by(self._keeper)(artifact):
                raise KeptInQuarantine(f"no config and no pin names {artifact}")
            if mirror.good_copy(artifact):
                raise KeptInQuarantine(f"a good copy of {artifact} stands on that dataset")
            try:
                await self._verify(mirror, found)
                await self._give_back(mirror, found)
            except (OSError, DatasetUnusable) as error:
                why = describe_error(error) if isinstance(error, OSError) else "it went away"
                raise Io(f"dataset {mirror.index + 1}: {why}") from error

    async def purge(self, id_: str, *, force: bool) -> None:
        """Delete a copy; see `ArtifactStore.purge_quarantined`."""
        found, mirror = self._find(id_)
        async with self._commits.hold(found.file.artifact):
            found, mirror = self._find(id_)
            if found.last_copy and not force:
                raise KeptInQuarantine(
                    f"it is the last copy of {found.file.artifact} on that dataset, and no "
                    "verified copy exists: only force deletes it"
                )
            try:
                await self._quarantine.purge(mirror, found.file, "asked")
            except (OSError, DatasetUnusable) as error:
                why = describe_error(error) if isinstance(error, OSError) else "it went away"
                raise Io(f"dataset {mirror.index + 1}: {why}") from error

    def _find(self, id_: str) -> tuple[Quarantined, Mirror]:
        self._mirrors.require_readable()
        found = self._quarantine.find(id_)
        if found is None:
            raise NotFound(f"nothing in quarantine has the id {id_[:140]!r}")
        mirror = self._mirrors.all[found.index]
        if not mirror.healthy:
            raise NoDataset(f"dataset {found.index + 1} is {mirror.state}, not writable")
        return found, mirror

    async def _verify(self, mirror: Mirror, found: Quarantined) -> None:
        file, digest, offset_bytes = found.file, hashlib.sha256(), 0
        while part := await mirror.read(
            quarantine_files.read_part, file.path, offset_bytes, PART_BYTES
        ):
            await asyncio.to_thread(digest.update, part)
            offset_bytes += len(part)
        if digest.digest() != file.artifact.digest:
            raise KeptInQuarantine(
                f"its {offset_bytes} bytes hash to {digest.hexdigest()}, not to {file.artifact}: "
                "it cannot have that name; the listing says where it lies"
            )

    async def _give_back(self, mirror: Mirror, found: Quarantined) -> None:
        file = found.file
        reservation = mirror.quota.reserve(file.size_bytes)
        if reservation is None:
            raise QuotaExceeded(f"no room within the quota for {file.size_bytes} bytes")
        try:
            standing = mirror.artifacts.get(file.artifact)
            if standing is not None and not await self._quarantine.clear_name(
                mirror, file.artifact
            ):
                raise KeptInQuarantine(f"a good copy of {file.artifact} stands on that dataset")
            await mirror.call(quarantine_files.restore, file)
            self._quarantine.forget(mirror, file)
            mirror.record(file.artifact, Copy(file.size_bytes, verified_at_s=time.time()))
        finally:
            reservation.release()
        self._quarantine.tell("restored", mirror, file, {})
