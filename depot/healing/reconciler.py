"""Deleting what no config wants any more, and noticing what changed behind our back.

Only a file named by a hash is ever looked at. Each one is first set aside, under the artifact's
commit lock, and then the fence is asked again, on the event loop and together with the entry in the
record: what came back into the config, got a pin or a writer while the disk was busy gets its name
back, however long that took (D1). Runs at start, after every config change and periodically; each
run starts from what is on the disk (at the start, from what attaching has just found there), so a
crash in the middle leaves nothing for ever (D3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from depot.artifact import ArtifactHash, in_order
from depot.concurrency.unhurried import unhurried
from depot.config import fencing
from depot.config.keeper import EventSink, LedgerKeeper
from depot.dataset.dataset import Dataset
from depot.dataset.found_files import FoundFiles
from depot.errors import DatasetUnusable
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.writing.put_desk import PutDesk


class Reconciler:
    """Brings the files on every dataset in line with the config."""

    def __init__(
        self, mirrors: MirrorSet, keeper: LedgerKeeper, desk: PutDesk, on_event: EventSink
    ) -> None:
        self._mirrors = mirrors
        self._keeper = keeper
        self._desk = desk
        self._emit = on_event
        self._running = asyncio.Lock()

    async def run_once(self, *, rescan: bool = True) -> int:
        """Look at every healthy dataset once; the number of artifacts deleted.

        Without `rescan`, it goes by what is known to be there: they were just attached.
        A dataset that fails moves its own state and is skipped (B4).
        """
        deleted: set[ArtifactHash] = set()
        async with self._running:
            for mirror in self._mirrors.healthy():
                with suppress(OSError, DatasetUnusable):
                    if rescan:
                        await self._rescan(mirror)
                    await self._delete_unwanted(mirror, deleted)
                    await self._discard_stray_digests(mirror)
        async for artifact in unhurried(in_order(deleted)):
            self._emit("deleted", {"sha256": str(artifact)})
        return len(deleted)

    def next_grace_end_s(self) -> float:
        """Unix time when a grace period that runs now ends; 0 when none does."""
        return self._keeper.deletions_held_until_s()

    async def _rescan(self, mirror: Mirror) -> None:
        await mirror.call(Dataset.bring_all_back)
        found = await mirror.call(Dataset.scan)
        # In a thread, which lets others run: they may be a hundred thousand.
        known = mirror.artifacts.rows
        for artifact in await asyncio.to_thread(_differences, found, known):
            async with self._desk.commits.hold(artifact):
                # Whoever held the lock may have settled the difference: look once more.
                size_bytes = await mirror.call(Dataset.artifact_size, artifact)
                copy = mirror.artifacts.get(artifact)
                if size_bytes is None:
                    mirror.gone(artifact)
                elif copy is None:
                    mirror.record(artifact, Copy(size_bytes))
                elif copy.size_bytes != size_bytes:
                    mirror.record(artifact, Copy(size_bytes, damaged=True))

    async def _delete_unwanted(self, mirror: Mirror, deleted: set[ArtifactHash]) -> None:
        config = self._keeper.resolved.config
        if config is None:
            return
        # In a thread, and only to know what to look at: each is asked about again.
        inventory = mirror.inventory.copy()
        unwanted = await asyncio.to_thread(inventory.outside, config.artifacts)
        for artifact in in_order(self._deletable(unwanted)):
            async with self._desk.commits.hold(artifact):
                copy = mirror.artifacts.get(artifact)
                if copy is None or not self._deletable((artifact,)):
                    continue
                await mirror.call(Dataset.set_aside, artifact)
                if self._deletable((artifact,)):
                    mirror.record(artifact, None)
                    await mirror.call(Dataset.remove_aside, artifact)
                    deleted.add(artifact)
                else:
                    await mirror.call(Dataset.bring_back, artifact)
                    mirror.record(artifact, copy)  # a reader may have missed it meanwhile

    async def _discard_stray_digests(self, mirror: Mirror) -> None:
        # A reader derived them while the artifact was being deleted. What is wanted keeps its own,
        # also while it has no good copy: they are what it can be put together by.
        kept = await mirror.call(Dataset.block_digests_kept)
        config = self._keeper.resolved.config
        for artifact in in_order(self._deletable(kept - (config.artifacts if config else kept))):
            async with self._desk.commits.hold(artifact):
                if artifact not in mirror.artifacts and self._deletable((artifact,)):
                    await mirror.call(Dataset.discard_block_digests, artifact)

    def _deletable(self, artifacts: Iterable[ArtifactHash]) -> list[ArtifactHash]:
        """Those of the artifacts that may be deleted, as of this step of the event loop."""
        keeper = self._keeper
        if keeper.deletions_held_until_s() or not keeper.pins_known:
            return []
        may_delete = partial(
            fencing.may_delete,
            keeper.resolved,
            pinned=keeper.book.artifacts,
            in_flight=self._desk.writers.rows,
            now_s=keeper.resolved.ledger.delete_not_before_s,  # over, by the keeper's clocks
        )
        return [artifact for artifact in artifacts if may_delete(artifact)]


def _differences(found: FoundFiles, known: Mapping[ArtifactHash, Copy]) -> Sequence[ArtifactHash]:
    """Artifacts of which there is another file than is known, in order."""
    left = dict(found.sizes())
    other = {a for a, copy in known.items() if left.pop(a, None) != copy.size_bytes}
    return in_order(other.union(left))
