"""One write of an artifact: its reservation, the stream, and the commit.

`PutDesk` admits it. The commit point is the entry in the mirrors' records, made on the event loop
together with a last look at the fence (G5): a file that got its name while the config moved on is
unlinked again. Writers of the same artifact stream side by side and commit one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.threads import waiting_for
from depot.config import fencing
from depot.dataset.dataset import Dataset
from depot.dataset.publishing import Entry, Published
from depot.dataset.quarantine_names import Reason
from depot.errors import (
    DatasetUnusable,
    DepotError,
    HashMismatch,
    Io,
    LengthMismatch,
    QuotaExceeded,
    TooFewCopies,
    TooLarge,
)
from depot.mirrors.kept_digests import keep_digests
from depot.mirrors.mirror import Mirror, Record
from depot.mirrors.quota import Reservation
from depot.mirrors.verify import verify_copy
from depot.os_errors import describe_error, full_disk
from depot.streams.sources import Source
from depot.writing.arriving import Arrival
from depot.writing.group_commit import End, Outcome
from depot.writing.ingest import Ingested, Observer, StagedCopy
from depot.writing.landing import LateWrite, new_copy
from depot.writing.lanes import Target

if TYPE_CHECKING:
    from depot.writing.put_desk import PutDesk


WHOLE_BYTES: Final = 64 << 10
"""A body up to this is in memory before it is written, together with others."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of a write.

    Attributes:
        datasets: how many datasets could be written when it began.
        copies: how many hold the artifact durably now.
        failures: why the others do not, for people.
    """

    datasets: int
    copies: int
    failures: tuple[str, ...] = ()


@dataclass
class _Targets:
    """Where a write goes: mirrors with a reservation; what was ruled out, and why.

    `datasets` are those it streams to: by the end, a path may lead to another one.
    """

    datasets: Mapping[int, Dataset] = field(default_factory=dict)
    reservations: dict[int, Reservation] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Put:
    """An admitted write.

    Attributes:
        held: every healthy dataset that has room already holds a copy that was verified just now;
            nothing needs to be sent.
    """

    def __init__(
        self,
        desk: PutDesk,
        artifact: ArtifactHash,
        generation: Generation,
        length_bytes: int | None,
        event: str | None,
    ) -> None:
        self.held: Stored | None = None
        self._desk = desk
        self._artifact = artifact
        self._generation = generation
        self._length_bytes = length_bytes
        self._event = event
        self._targets = _Targets()
        self._healthy = desk.mirrors.healthy()
        self._good: list[Mirror] = []
        self._commit_errors: list[OSError | DatasetUnusable] = []

    async def look_for_copies(self) -> None:
        """Verify the copies that are there; with one on every healthy dataset the put is held.

        A bad one is set aside: what is put replaces it (B5), and its bytes leave the quota.

        Raises:
            TooFewCopies: it would be held, but by fewer datasets than `min_copies`.
        """
        found = self._found()
        if not found:
            return
        verified = await asyncio.gather(*map(self._verify, found))
        self._good = [m for m, good in zip(found, verified, strict=True) if good]
        if self._good and len(self._good) == len(self._healthy):
            self.held = self._held()

    def _found(self) -> list[Mirror]:
        return [mirror for mirror in self._healthy if self._artifact in mirror.artifacts]

    def reserve_at_once(self) -> bool:
        """Reserve space; False where a dataset has to be looked at, or may have to, before that.

        Raises:
            as `reserve`.
        """
        size_bytes, in_the_way = self._length_bytes, self._desk.quarantine.is_in_the_way
        if size_bytes is None or self._found():
            return False
        if any(in_the_way(mirror, size_bytes) for mirror in self._lacking()):
            return False
        self.reserve()
        return True

    async def _verify(self, mirror: Mirror) -> bool:
        if await verify_copy(mirror, self._artifact):
            return True
        return await self._desk.quarantine.settle(mirror, self._artifact)

    async def make_room(self) -> None:
        """Have the quarantine yield where the disk has no room for what may come."""
        unknown_bytes = self._desk.limits.max_artifact_size_bytes
        for mirror in self._lacking():
            size_bytes = self._length_bytes
            if size_bytes is None:  # it may be small: what lies there yields only to a full disk
                size_bytes = unknown_bytes if mirror.full else 0
            await self._desk.quarantine.make_room(mirror, size_bytes)

    def reserve(self) -> None:
        """Reserve space on every healthy dataset without a good copy.

        Raises:
            TooLarge, QuotaExceeded, TooFewCopies.
        """
        size_bytes = self._length_bytes or 0
        self._check_size(size_bytes)
        for mirror in self._lacking():
            reservation = mirror.quota.reserve(size_bytes) if mirror.room_for(size_bytes) else None
            if reservation is None:
                self._targets.failures.append(f"dataset {mirror.index + 1} is full")
            else:
                self._targets.reservations[mirror.index] = reservation
        if self._targets.reservations:
            return
        if not self._good:
            self._desk.mirrors.require_healthy()  # they may have gone while they were looked at
            raise QuotaExceeded(f"no dataset has room for the {size_bytes} bytes now")
        self.held = self._held()

    def release(self) -> None:
        """Give back what is still reserved."""
        for reservation in self._targets.reservations.values():
            reservation.release()

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
        return await self._store(content, self._choose_targets())

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
        targets = self._choose_targets()
        if self.wants_whole:
            return await self._store(await self._read_whole(source), targets)
        names = {index: target.name for index, target in targets.items()}
        offered = self._desk.arrivals.arriving(self._artifact, self._length_bytes, names, depth)
        with offered as arrival:
            return await self._land(await self._ingest(source, targets, arrival), arrival=arrival)

    def _lacking(self) -> list[Mirror]:
        return [m for m in self._healthy if m.healthy and m not in self._good]

    def _check_size(self, size_bytes: int) -> None:
        most_bytes = min(
            self._desk.limits.max_artifact_size_bytes,
            max((_capacity_bytes(mirror) for mirror in self._healthy), default=0),
        )
        if size_bytes > most_bytes:
            raise TooLarge(f"{size_bytes} bytes can never fit; at most {most_bytes} do")

    def _choose_targets(self) -> Mapping[int, Target]:
        mirrors = self._desk.mirrors.all
        reservations = self._targets.reservations
        targets = {
            i: Target(mirrors[i].dataset, mirrors[i].host)
            for i in reservations
            if mirrors[i].healthy
        }
        for index in reservations.keys() - targets.keys():
            reservations.pop(index).release()
        self._targets.datasets = {i: target.dataset for i, target in targets.items()}
        return targets

    async def _ingest(
        self, source: Source, targets: Mapping[int, Target], observer: Observer | None
    ) -> Ingested:
        running = self._desk.ingestor.start(
            source, targets, self._length_bytes, self._admit, observer
        )
        outcome = asyncio.wrap_future(running)
        try:
            await asyncio.wait((outcome,))
        except asyncio.CancelledError:
            source.abort()
            outcome.cancel()  # nobody waits for it; the thread ends by itself
            # Until it has, its bytes are on the disk: the space stays reserved (Q1), and a stream
            # of unknown length gets no more of it.
            held, self._targets, self._good = self._targets.reservations, _Targets(), []
            running.add_done_callback(partial(_discard_late, targets, held))
            raise
        return outcome.result()

    async def _read_whole(self, source: Source) -> bytes:
        assert self._length_bytes is not None
        reading = self._desk.ingestor.read_whole(source, self._length_bytes)
        try:
            return await asyncio.wrap_future(reading)
        except asyncio.CancelledError:
            source.abort()  # the thread ends by itself, and has written nothing
            raise

    async def _store(self, content: bytes, targets: Mapping[int, Target]) -> Stored:
        return await self._land(_whole(content, targets), content)

    def take_whole(self, content: bytes) -> Ingested:
        """Choose where a body goes that was read whole, and look at it.

        Raises:
            HashMismatch, LengthMismatch.
        """
        ingested = _whole(content, self._choose_targets())
        self._check_content(ingested)
        return ingested

    async def _land(
        self, ingested: Ingested, content: bytes = b"", *, arrival: Arrival | None = None
    ) -> Stored:
        self._note_failures(ingested.failures)
        landed: set[int] = set()
        try:
            self._check_content(ingested)
            landed = await self._commit(ingested, content)
            if arrival is not None and landed:
                arrival.end(landed=True)
        finally:
            left = {i: file for i, file in ingested.staged.items() if i not in landed}
            await self._discard_all({i: file for i, file in left.items() if file.name})
        return self.outcome(ingested, landed)

    def _admit(self, size_bytes: int) -> Collection[int]:
        # Runs in the filler's thread; reservations and quotas are made for that.
        if self._length_bytes is not None:
            if size_bytes > self._length_bytes:
                raise LengthMismatch(self._length_bytes, size_bytes)
            return ()
        self._check_size(size_bytes)
        reservations = self._targets.reservations
        grown = {i: r.grow(size_bytes - r.size_bytes) for i, r in reservations.items()}
        if not any(grown.values()) and not self._good:
            raise QuotaExceeded(f"no dataset has room for more than {size_bytes} bytes now")
        return [index for index, fits in grown.items() if not fits]

    def _note_failures(self, failures: Mapping[int, OSError | DatasetUnusable]) -> None:
        for index, error in failures.items():
            self._desk.mirrors.all[index].write_failed(error, self._targets.datasets[index])
            self._targets.failures.append(f"dataset {index + 1}: {_reason(error)}")

    def _check_content(self, ingested: Ingested) -> None:
        if not ingested.staged:
            return  # reading ended early; the outcome tells why
        if self._length_bytes not in (None, ingested.size_bytes):
            raise LengthMismatch(self._length_bytes or 0, ingested.size_bytes)
        if ingested.digest != self._artifact:
            raise HashMismatch(self._artifact, ingested.digest)

    async def _commit(self, ingested: Ingested, content: bytes) -> set[int]:
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
        self.release()
        return landed

    def confirm(self, published: Collection[int], ingested: Ingested) -> Record:
        """What is to be recorded of the mirrors on which the artifact got its file.

        That is to be done in the same step of the event loop: the fence was asked last here (G5).

        Raises:
            NoConfig, ArtifactGeneration, LedgerUnknown: it is to be taken back.
        """
        self._check_fence()  # for the last time
        return self._record_of(published, ingested)

    def _record_of(self, published: Collection[int], ingested: Ingested) -> Record:
        mirrors = self._still_there(published, ingested.staged)
        return Record(mirrors, self._artifact, new_copy(ingested.size_bytes))

    def _still_there(
        self, published: Collection[int], staged: Mapping[int, StagedCopy]
    ) -> list[Mirror]:
        """Leave out datasets that left while another one was waited for: nobody can read them."""
        mirrors = [self._desk.mirrors.all[index] for index in sorted(published)]
        there = [mirror for mirror in mirrors if mirror.has(staged[mirror.index].dataset)]
        for mirror in mirrors:
            if mirror not in there:
                self._targets.failures.append(f"dataset {mirror.index + 1}: not there any more")
        return there

    async def _keep_digests(self, ingested: Ingested, landed: Collection[int]) -> None:
        # Where nothing landed the stream may have been given up before its last block was hashed.
        if landed and ingested.block_digests is not None:
            mirrors = (self._desk.mirrors.all[index] for index in landed)
            # The artifact is durable, and these can be derived: nobody waits long for them (B4).
            with suppress(TimeoutError):
                async with asyncio.timeout(self._desk.limits.mirror_lag_s):
                    await keep_digests(mirrors, ingested.block_digests)

    def _check_fence(self) -> None:
        fencing.check_commit(self._desk.keeper.resolved, self._artifact, self._generation)

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
                self._commit_errors.append(outcome)
                self._targets.failures.append(f"dataset {index + 1}: {_reason(outcome)}")
        return published

    def _entry(self, index: int, staged: str, content: bytes) -> Entry:
        mirror = self._desk.mirrors.all[index]
        copy = mirror.good_copy(self._artifact)
        verified = copy is not None and copy.verified_at_s is not None
        if verified or self._desk.landings.has_landed(mirror, self._artifact):
            return Entry(self._artifact, staged, content, aside=None)
        # Whatever stands there is not known to be good: it is set aside, not overwritten (B6).
        aside = self._desk.quarantine.new_name(self._artifact, Reason.REPLACED)
        return Entry(self._artifact, staged, content, aside)

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
        reservation = self._targets.reservations.pop(index)
        late = LateWrite(mirror, dataset, entry, self._generation, size_bytes, reservation)
        self._desk.landings.expect(late, end)

    async def take_back(self, published: Collection[int], ingested: Ingested) -> None:
        """Take the artifact's name away again where it got it; under its commit lock."""
        await self._desk.landings.take_back(self._record_of(published, ingested))

    async def _discard_all(self, files: Mapping[int, StagedCopy]) -> None:
        if files:
            await asyncio.gather(*(self._discard(index, file) for index, file in files.items()))

    async def _discard(self, index: int, file: StagedCopy) -> None:
        mirror = self._desk.mirrors.all[index]
        if not mirror.has(file.dataset):
            return  # the next attach clears the staging directory
        discarding = mirror.begin(Dataset.discard, file.dataset, file.name)
        if reservation := self._targets.reservations.pop(index, None):
            _release_after(discarding, reservation)
        if mirror.healthy:  # or it may hang, and has been waited for already (B4)
            # It goes on when it takes too long, and when the put is cancelled.
            await asyncio.wait((waiting_for(discarding),), timeout=mirror.timeout_s)

    def outcome(self, ingested: Ingested, landed: Collection[int]) -> Stored:
        """How it ended, which is told to whoever has to know.

        Raises:
            QuotaExceeded, Io, TooFewCopies.
        """
        stored = self._stored(landed)
        if not stored.copies:
            raise self._no_copy(ingested)
        if stored.copies < len(self._desk.mirrors.all):
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
        self._check_copies(stored)
        return stored

    def _held(self) -> Stored:
        stored = self._stored(())
        self._check_copies(stored)
        return stored

    def _check_copies(self, stored: Stored) -> None:
        if stored.copies < self._desk.limits.min_copies:
            raise TooFewCopies(
                f"{stored.copies} durable copies, at least {self._desk.limits.min_copies} are "
                "expected; what was written stays"
            )

    def _no_copy(self, ingested: Ingested) -> QuotaExceeded | Io:
        errors = [*ingested.failures.values(), *self._commit_errors]
        if errors and all(isinstance(e, OSError) and full_disk(e) for e in errors):
            return QuotaExceeded("every dataset ran full during the write")
        return Io(f"no dataset could store it: {'; '.join(self._targets.failures)}")

    def _stored(self, landed: Collection[int]) -> Stored:
        # What was verified when it began, or has landed, may have left or be in doubt by now.
        holders = [*self._good, *(self._desk.mirrors.all[index] for index in sorted(landed))]
        for mirror in holders:
            if self._artifact in mirror.doubts:
                self._targets.failures.append(f"dataset {mirror.index + 1}: in doubt")
        copies = sum(mirror.certain_copy(self._artifact) is not None for mirror in holders)
        return Stored(len(self._healthy), copies, tuple(self._targets.failures))


def _whole(content: bytes, targets: Mapping[int, Target]) -> Ingested:
    staged = {index: StagedCopy(target.dataset, "") for index, target in targets.items()}
    return Ingested(ArtifactHash.of(content), len(content), None, staged, {})


def _capacity_bytes(mirror: Mirror) -> int:
    total_bytes = mirror.space.total_bytes if mirror.space else mirror.quota.limit_bytes
    return min(mirror.quota.limit_bytes, total_bytes)


def _reason(error: OSError | DatasetUnusable) -> str:
    # Not the message of a DatasetUnusable: it names a local path, and this goes on the wire (S4).
    return describe_error(error) if isinstance(error, OSError) else "not there any more"


def _discard_late(
    targets: Mapping[int, Target], held: Mapping[int, Reservation], running: Future[Ingested]
) -> None:
    # What it staged has no owner any more; a dataset that left is cleared when it is attached.
    known = not running.cancelled() and running.exception() is None
    staged = running.result().staged if known else {}
    for index, reservation in held.items():
        if file := staged.get(index):
            discarding = targets[index].host.submit(Dataset.discard, file.dataset, file.name)
            _release_after(discarding, reservation)
        else:
            reservation.release()


def _release_after(discarding: Future[None], reservation: Reservation) -> None:
    # Until then the bytes are on the disk (Q1).
    discarding.add_done_callback(lambda _: reservation.release())
