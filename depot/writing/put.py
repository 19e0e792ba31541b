"""One write of an artifact: its stream or body, looked at and handed to the commit.

`PutDesk` admits it. Writers of the same artifact stream side by side and commit one after the
other. What is not the artifact gets no name, and whatever way the write ends, cancelled too, what
it staged and got no name is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from depot.artifact import ArtifactHash, Generation
from depot.errors import DatasetUnusable, HashMismatch, LengthMismatch
from depot.mirrors.mirror import Mirror
from depot.streams.sources import Source
from depot.writing.arriving import Arrival
from depot.writing.commit import Commit
from depot.writing.ingest import Ingested, Observer, StagedCopy
from depot.writing.lanes import Target
from depot.writing.leftovers import discard, discard_late
from depot.writing.room import Room
from depot.writing.stored import Stored, Tally

if TYPE_CHECKING:
    from depot.writing.put_desk import PutDesk


WHOLE_BYTES: Final = 64 << 10
"""A body up to this is in memory before it is written, together with others."""


class Put:
    """An admitted write.

    Args:
        healthy: the datasets that can be written.

    Attributes:
        room: where it goes.
        commit: the steps of its commit, for `ShortPuts`.
    """

    def __init__(
        self,
        desk: PutDesk,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int | None,
        event: str | None,
        healthy: Sequence[Mirror],
    ) -> None:
        self._desk = desk
        self._artifact = artifact
        self._generation = generation
        self._length_bytes = length_bytes
        self._event = event
        self._tally = Tally(artifact, healthy, desk.limits.min_copies)
        self.room = Room(
            artifact,
            length_bytes,
            desk.mirrors,
            healthy,
            desk.quarantine,
            desk.limits.max_artifact_size_bytes,
            self._tally,
        )
        self.commit = Commit(desk, artifact, generation, self.room, self._tally)

    @property
    def held(self) -> Stored | None:
        """The outcome where nothing needs to be sent; see `Room.held`."""
        return self.room.held

    @property
    def wants_whole(self) -> bool:
        """It is short enough to be handed over at once, with `store`."""
        length_bytes, limits = self._length_bytes, self._desk.limits
        return limits.group_commit and length_bytes is not None and length_bytes <= WHOLE_BYTES

    async def store(self, content: bytes) -> Stored:
        """Store a body that was read whole.

        Raises:
            as `receive`.
        """
        return await self._store(content, self.room.choose_targets())

    async def receive(self, source: Source, *, depth: int = 1) -> Stored:
        """Read the stream and store it on every mirror that can take it.

        While it runs it can be read from `PutDesk.arrivals`, as a relay of that depth, unless it is
        short.

        Raises:
            HashMismatch, LengthMismatch, BodyTimeout, TooLarge, QuotaExceeded, Io, TooFewCopies,
            ArtifactGeneration, LedgerUnknown, NoConfig: nothing is left behind, except that after
                TooFewCopies what was written stays.
            OSError: the source's connection was lost.
        """
        targets = self.room.choose_targets()
        if self.wants_whole:
            return await self._store(await self._read_whole(source), targets)
        names = {index: target.name for index, target in targets.items()}
        offered = self._desk.arrivals.arriving(self._artifact, self._length_bytes, names, depth)
        with offered as arrival:
            ingested = await self._ingest(source, targets, arrival)
            self._note_failures(ingested.failures, targets)
            return await self._land(ingested, arrival=arrival)

    def take_whole(self, content: bytes, unstaged: Mapping[int, StagedCopy]) -> Ingested:
        """Look at a body that was read whole and goes there.

        Raises:
            HashMismatch, LengthMismatch.
        """
        ingested = _whole(content, unstaged)
        self._check_content(ingested)
        return ingested

    def outcome(self, ingested: Ingested, landed: Collection[int]) -> Stored:
        """How it ended, which is told to whoever has to know.

        Raises:
            QuotaExceeded, Io, TooFewCopies.
        """
        mirrors = self._desk.mirrors.all
        stored = self._tally.stored(
            [*self.room.good, *(mirrors[index] for index in sorted(landed))]
        )
        if not stored.copies:
            raise self._tally.no_copy()
        if stored.copies < len(mirrors):
            self._desk.on_shortfall()
        if landed and self._event:
            self._desk.emit(
                self._event,
                {
                    "sha256": str(self._artifact),
                    "generation": int(self._generation),
                    "size_bytes": ingested.size_bytes,
                    "copies": stored.copies,
                    "datasets": stored.datasets,
                },
            )
        return self._tally.check(stored)

    async def _ingest(
        self, source: Source, targets: Mapping[int, Target], observer: Observer | None
    ) -> Ingested:
        running = self._desk.ingestor.start(
            source, targets, self._length_bytes, self.room.admit, observer
        )
        outcome = asyncio.wrap_future(running)
        try:
            await asyncio.wait((outcome,))
        except asyncio.CancelledError:
            source.abort()
            outcome.cancel()  # nobody waits for it; the thread ends by itself
            # Until it has, its bytes are on the disk: the space stays reserved (Q1), and a stream
            # of unknown length gets no more of it.
            running.add_done_callback(partial(discard_late, targets, self.room.abandon()))
            raise
        try:
            return outcome.result()
        finally:
            del running, outcome  # an error would hold this frame, and these the error

    async def _read_whole(self, source: Source) -> bytes:
        assert self._length_bytes is not None
        reading = self._desk.ingestor.read_whole(source, self._length_bytes)
        try:
            return await asyncio.wrap_future(reading)
        except asyncio.CancelledError:
            source.abort()  # the thread ends by itself, and has written nothing
            raise

    async def _store(self, content: bytes, targets: Mapping[int, Target]) -> Stored:
        unstaged = {index: StagedCopy(target.dataset, "") for index, target in targets.items()}
        return await self._land(_whole(content, unstaged), content)

    async def _land(
        self, ingested: Ingested, content: bytes = b"", *, arrival: Arrival | None = None
    ) -> Stored:
        landed: set[int] = set()
        try:
            self._check_content(ingested)
            landed = await self.commit.run(ingested, content)
            if arrival is not None and landed:
                arrival.end(landed=True)
        finally:
            left = {i: file for i, file in ingested.staged.items() if i not in landed}
            await self._discard_all({i: file for i, file in left.items() if file.name})
        return self.outcome(ingested, landed)

    def _note_failures(
        self, failures: Mapping[int, OSError | DatasetUnusable], targets: Mapping[int, Target]
    ) -> None:
        for index, error in failures.items():
            # That dataset's failure: by now, the path may lead to another one.
            self._desk.mirrors.all[index].write_failed(error, targets[index].dataset)
            self._tally.note(index, error)

    def _check_content(self, ingested: Ingested) -> None:
        if not ingested.staged:
            return  # reading ended early; the outcome tells why
        if self._length_bytes not in (None, ingested.size_bytes):
            raise LengthMismatch(self._length_bytes or 0, ingested.size_bytes)
        if ingested.digest != self._artifact:
            raise HashMismatch(self._artifact, ingested.digest)

    async def _discard_all(self, files: Mapping[int, StagedCopy]) -> None:
        if files:
            mirrors, reservations = self._desk.mirrors.all, self.room.reservations
            await asyncio.gather(
                *(discard(mirrors[index], file, reservations) for index, file in files.items())
            )


def _whole(content: bytes, unstaged: Mapping[int, StagedCopy]) -> Ingested:
    return Ingested(ArtifactHash.of(content), len(content), None, unstaged, {})
