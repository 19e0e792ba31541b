"""Deleting what no config wants any more, and noticing what changed behind our back.

Only a file named by a hash is ever looked at. Each unlink asks the fence again, on the event loop
and under the artifact's commit lock, so a file that came back into the config, got a pin or a
writer in between stays (D1). Runs at start, after every config change and periodically; each run
starts from what is on the disk, so a crash in the middle leaves nothing for ever (D3).
"""

from __future__ import annotations

import time

from depot import fencing
from depot.artifact import ArtifactHash
from depot.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.ledger_keeper import EventSink, LedgerKeeper
from depot.mirror import Copy, Mirror
from depot.mirrors import MirrorSet
from depot.put import PutDesk


class Reconciler:
    """Brings the files on every dataset in line with the config."""

    def __init__(
        self, mirrors: MirrorSet, keeper: LedgerKeeper, desk: PutDesk, on_event: EventSink
    ) -> None:
        self._mirrors = mirrors
        self._keeper = keeper
        self._desk = desk
        self._emit = on_event

    async def run_once(self) -> int:
        """Look at every healthy dataset once; the number of artifacts deleted.

        A dataset that fails moves its own state and is skipped (B4).
        """
        deleted: set[ArtifactHash] = set()
        for mirror in self._mirrors.healthy():
            try:
                await self._rescan(mirror)
                deleted |= await self._delete_unwanted(mirror)
            except (OSError, DatasetUnusable):
                continue
        for artifact in sorted(deleted):
            self._emit("deleted", {"sha256": str(artifact)})
        return len(deleted)

    def next_grace_end_s(self) -> float:
        """Unix time when a grace period that runs now ends; 0 when none does."""
        return self._keeper.resolved.ledger.delete_not_before_s

    async def _rescan(self, mirror: Mirror) -> None:
        found = await mirror.call(Dataset.scan)
        known = mirror.artifacts
        for artifact in sorted(found.keys() ^ known.keys()):
            async with self._desk.commits.hold(artifact):
                # Whoever held the lock may have settled the difference: look once more.
                size_bytes = await mirror.call(Dataset.artifact_size, artifact)
                if size_bytes is None:
                    mirror.record(artifact, None)
                elif artifact not in mirror.artifacts:
                    mirror.record(artifact, Copy(size_bytes))

    async def _delete_unwanted(self, mirror: Mirror) -> set[ArtifactHash]:
        deleted = set()
        for artifact in sorted(a for a in mirror.artifacts if self._may_delete(a)):
            async with self._desk.commits.hold(artifact):
                if self._may_delete(artifact):
                    await mirror.call(Dataset.unlink, artifact)
                    mirror.record(artifact, None)
                    deleted.add(artifact)
        return deleted

    def _may_delete(self, artifact: ArtifactHash) -> bool:
        return fencing.may_delete(
            self._keeper.resolved,
            artifact,
            pinned=self._keeper.book.artifacts,
            in_flight=self._desk.in_flight,
            now_s=time.time(),
        )
