"""The commit of one write: from staged files, or a body in memory, to copies in the records.

The commit point is the entry in the mirrors' records, made on the event loop together with a last
look at the fence (G5): a file that got its name while the config moved on is unlinked again. All of
it is under the artifact's commit lock, so writers of the same artifact commit one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from depot.artifact import ArtifactHash, Generation
from depot.config import fencing
from depot.dataset.dataset import Dataset
from depot.dataset.publishing import Entry, Published
from depot.dataset.quarantine_names import Reason
from depot.errors import DepotError
from depot.mirrors.kept_digests import keep_digests
from depot.mirrors.mirror import Mirror
from depot.mirrors.records import Record
from depot.writing.group_commit import End, Outcome
from depot.writing.ingest import Ingested, StagedCopy
from depot.writing.landing import LateWrite, new_copy
from depot.writing.room import Room
from depot.writing.stored import Tally

if TYPE_CHECKING:
    from depot.writing.put_desk import PutDesk


class Commit:
    """The commit of one write: `run`, or its steps for whoever has the lock and publishes.

    The steps are `entries`, then `note_outcomes` and `confirm`; where that raises, `take_back`.
    """

    def __init__(
        self,
        desk: PutDesk,
        artifact: ArtifactHash,
        generation: Generation,
        room: Room,
        tally: Tally,
    ) -> None:
        self._desk = desk
        self._artifact = artifact
        self._generation = generation
        self._room = room
        self._tally = tally

    async def run(self, ingested: Ingested, content: bytes) -> set[int]:
        """Do all of it; the mirrors on which the artifact has landed.

        Raises:
            NoConfig, ArtifactGeneration, LedgerUnknown: nothing is left behind under its name.
        """
        async with self._desk.commits.hold(self._artifact):
            entries = self.entries(ingested, content)
            on_late = partial(self.leave, entries, ingested)
            outcomes = await self._desk.group_commit.publish(entries, on_late)
            published = self.note_outcomes(entries, outcomes)
            try:
                record = self.confirm(published, ingested)
            except DepotError:
                await self.take_back(published, ingested)
                raise
            self._desk.landings.record([record])
            landed = {mirror.index for mirror in record.mirrors}
            await self._keep_digests(ingested, landed)
        self._room.release()
        return landed

    def entries(self, ingested: Ingested, content: bytes) -> dict[int, tuple[Dataset, Entry]]:
        """What is to be published, by mirror; under the artifact's commit lock.

        Raises:
            NoConfig, ArtifactGeneration, LedgerUnknown.
        """
        self._check_fence()
        return {
            index: (file.dataset, self._entry(index, file.name, content))
            for index, file in ingested.staged.items()
        }

    def note_outcomes(
        self,
        entries: Mapping[int, tuple[Dataset, Entry]],
        outcomes: Mapping[int, Outcome],
    ) -> set[int]:
        """Take note of how publishing ended; the mirrors on which the artifact has its file."""
        published: set[int] = set()
        for index, outcome in outcomes.items():
            if isinstance(outcome, Published):
                mirror = self._desk.mirrors.all[index]
                self._desk.landings.note_aside(mirror, entries[index][1], outcome.aside_bytes)
                published.add(index)
            else:
                self._tally.note(index, outcome)
        return published

    def confirm(self, published: Collection[int], ingested: Ingested) -> Record:
        """What is to be recorded of the mirrors on which the artifact got its file.

        That is to be done in the same step of the event loop: the fence was asked last here (G5).

        Raises:
            NoConfig, ArtifactGeneration, LedgerUnknown: it is to be taken back.
        """
        self._check_fence()  # for the last time
        return self._record_of(published, ingested)

    async def take_back(self, published: Collection[int], ingested: Ingested) -> None:
        """Take the artifact's name away again where it got it; under its commit lock."""
        await self._desk.landings.take_back(self._record_of(published, ingested))

    def leave(
        self,
        entries: Mapping[int, tuple[Dataset, Entry]],
        ingested: Ingested,
        index: int,
        end: End,
    ) -> None:
        """Leave one mirror, which nobody waits for any more, to be settled when it has ended."""
        dataset, entry = entries[index]
        mirror, size_bytes = self._desk.mirrors.all[index], ingested.size_bytes
        reservation = self._room.reservations.pop(index)
        late = LateWrite(mirror, dataset, entry, self._generation, size_bytes, reservation)
        self._desk.landings.expect(late, end)

    def _check_fence(self) -> None:
        fencing.check_commit(self._desk.keeper.resolved, self._artifact, self._generation)

    def _entry(self, index: int, staged: str, content: bytes) -> Entry:
        mirror = self._desk.mirrors.all[index]
        copy = mirror.good_copy(self._artifact)
        verified = copy is not None and copy.verified_at_s is not None
        if verified or self._desk.landings.has_landed(mirror, self._artifact):
            return Entry(self._artifact, staged, content, aside=None)
        # Whatever stands there is not known to be good: it is set aside, not overwritten (B6).
        aside = self._desk.quarantine.new_name(self._artifact, Reason.REPLACED)
        return Entry(self._artifact, staged, content, aside)

    def _record_of(self, published: Collection[int], ingested: Ingested) -> Record:
        mirrors = self._still_there(published, ingested.staged)
        return Record(mirrors, self._artifact, new_copy(ingested.size_bytes))

    def _still_there(
        self, published: Collection[int], staged: Mapping[int, StagedCopy]
    ) -> list[Mirror]:
        """Leave out datasets that left while another one was waited for: nobody can read them."""
        mirrors = [self._desk.mirrors.all[index] for index in sorted(published)]
        there = [mirror for mirror in mirrors if mirror.has(staged[mirror.index].dataset)]
        for mirror in mirrors if len(there) < len(mirrors) else ():
            if mirror not in there:
                self._tally.failures.append(f"dataset {mirror.index + 1}: not there any more")
        return there

    async def _keep_digests(self, ingested: Ingested, landed: Collection[int]) -> None:
        # Where nothing landed the stream may have been given up before its last block was hashed.
        if landed and ingested.block_digests is not None:
            mirrors = (self._desk.mirrors.all[index] for index in landed)
            # The artifact is durable, and these can be derived: nobody waits long for them (B4).
            with suppress(TimeoutError):
                async with asyncio.timeout(self._desk.limits.mirror_lag_s):
                    await keep_digests(mirrors, ingested.block_digests)
