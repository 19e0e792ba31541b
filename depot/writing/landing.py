"""What becomes of an artifact's file once it has its name: recorded, or taken back.

A put does that itself, under the artifact's commit lock, while somebody waits for it. What lands
when nobody does any more, since the put was cancelled or the dataset too slow for it, is asked the
same question then: does the config want it (G5)? Its space stays reserved until that is settled, so
that no byte on the disk goes uncounted (Q1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.keyed_lock import KeyedLock
from depot.config import fencing
from depot.config.keeper import LedgerKeeper
from depot.dataset.dataset import Dataset
from depot.dataset.publishing import Entry, Published
from depot.errors import DatasetUnusable, DepotError
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.quota import Reservation
from depot.mirrors.records import Record, record_all
from depot.quarantine.keeper import QuarantineKeeper
from depot.writing.group_commit import End


@dataclass(frozen=True, slots=True)
class LateWrite:
    """A write on one dataset that its put does not wait for any more."""

    mirror: Mirror
    dataset: Dataset
    entry: Entry
    generation: Generation
    size_bytes: int
    reservation: Reservation


def new_copy(size_bytes: int) -> Copy:
    """Make the record of a copy that has its name; what is named later counts as changed since."""
    return Copy(size_bytes, verified_at_s=time.time())


class Landings:
    """Settles what has landed on the mirrors of a store."""

    def __init__(
        self, keeper: LedgerKeeper, quarantine: QuarantineKeeper, commits: KeyedLock[ArtifactHash]
    ) -> None:
        self._keeper = keeper
        self._quarantine = quarantine
        self._commits = commits
        self._late: dict[asyncio.Task[None], tuple[LateWrite, End]] = {}

    def record(self, records: Sequence[Record]) -> None:
        """Enter copies in the records, in one step: nobody sees any on one dataset only."""
        for mirrors, artifact, copy in records:
            for mirror in mirrors:
                if mirror.doubtful and copy:  # it failed beside this write: nothing is believed
                    mirror.doubt(artifact, copy)
        record_all(records)

    def note_aside(self, mirror: Mirror, entry: Entry, size_bytes: int | None) -> None:
        """Take note of what had the name, and how large it is, if anything was set aside."""
        if entry.aside is not None and size_bytes is not None:
            mirror.record(entry.artifact, None)
            self._quarantine.note(mirror, entry.aside, size_bytes)

    async def take_back(self, record: Record) -> None:
        """Remove files that the fence does not let land; the caller holds the commit lock.

        Where another writer's was there before, its end is the reconciler's business, which knows
        of grace periods (D4) and deletes nothing without a config.
        """
        artifact, copy = record.artifact, record.copy
        new = {m: m.dataset for m in record.mirrors if artifact not in m.artifacts}
        self.record([Record([m for m in record.mirrors if m not in new], artifact, copy)])
        gone: set[Mirror] = set()
        try:
            for mirror in new:
                with suppress(OSError, DatasetUnusable):
                    # In two steps: what ends late takes no name from a later writer for good.
                    await mirror.call(Dataset.set_aside, artifact)
                    await mirror.call(Dataset.remove_aside, artifact)
                    gone.add(mirror)
        finally:
            # Not before: nobody is to count on what goes. The rest is the reconciler's too (Q1).
            left = [m for m, dataset in new.items() if m not in gone and m.has(dataset)]
            self.record([Record(left, artifact, copy)])

    def expect(self, late: LateWrite, end: End) -> None:
        """Settle a write when it ends, however long that takes."""
        task = asyncio.get_running_loop().create_task(self._settle(late, end))
        self._late[task] = (late, end)
        task.add_done_callback(self._late.pop)

    def has_landed(self, mirror: Mirror, artifact: ArtifactHash) -> bool:
        """Tell whether a good file has the name by a late write that is about to be settled."""
        return bool(self._late) and any(
            late.mirror is mirror
            and late.entry.artifact == artifact
            and end.done()
            and not end.cancelled()
            and isinstance(end.result(), Published)
            and mirror.has(late.dataset)
            for late, end in self._late.values()
        )

    async def _settle(self, late: LateWrite, end: End) -> None:
        try:
            outcome = await end
            if isinstance(outcome, Published):
                async with self._commits.hold(late.entry.artifact):
                    await self._settle_landed(late, outcome)
        finally:
            late.reservation.release()

    async def _settle_landed(self, late: LateWrite, published: Published) -> None:
        mirror, artifact = late.mirror, late.entry.artifact
        if not mirror.has(late.dataset):
            return  # found when it is attached again
        known = mirror.good_copy(artifact)
        if known is not None and known.verified_at_s is not None:  # of a writer that was faster
            if late.entry.aside is not None and published.aside_bytes is not None:
                self._quarantine.note(mirror, late.entry.aside, published.aside_bytes)
            return
        self.note_aside(mirror, late.entry, published.aside_bytes)
        record = Record([mirror], artifact, new_copy(late.size_bytes))
        try:
            fencing.check_commit(self._keeper.resolved, artifact, late.generation)
        except DepotError:
            await self.take_back(record)
        else:
            self.record([record])
