"""Artifacts that can be read while they are still being received.

Rules kept here:
- What may leave is in the file of the dataset that it is read from, and in the hash of its block:
  whoever reads it back can be made to see that it is what was received. What came just now may
  leave from memory (`arriving_tail`).
- Nothing of the block in which an answer ends may leave from a file, and nothing of the piece in
  which it ends from memory, before the whole hash is known to be the artifact's: so no answer that
  completes has a wrong byte in it (B2).
- Only what is in the config of the moment is offered. A write that fails, is refused at its commit
  or is no longer wanted takes its readers with it.
- The writer never waits for a reader.
- A relay's depth is larger than that of the relay it reads from, as long as either runs: no circle
  of depots can come about in which each waits for the next (see `agent.copies.feed`).

Threads of the ingest tell how far a write is; everything else is on the event loop.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from depot.artifact import ArtifactHash
from depot.errors import DatasetUnusable
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.open_artifact import OpenArtifact
from depot.reading.reader import VerifyReads
from depot.streams.block_digests import BlockDigests, block_count
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.verified_read import VerifiedRead
from depot.writing.arriving_tail import MAX_TAILS, PIECE_BYTES, Tail

MAX_DEPTH: Final = 1000
"""What is said of a relay that does not say how deep it is; nothing deeper is offered."""
MAX_TAIL_READERS: Final = 8
"""More readers of one arrival than this are served from the files, by threads."""


def _leave_alone() -> None:
    """Let a reader find out by itself."""


class Arrival:
    """One artifact that is being received. An `ingest.Observer`.

    Args:
        names: by mirror, what its file is called until it is committed.
        depth: how many relays the bytes have come through, with this one.
        tail: the last bytes, in memory; None: they are read from the files alone.

    Attributes:
        readers: how many answers are sent from it now.
        landed: it is committed, and a copy like any other.
        over: it is not going to be the artifact, or is no longer wanted.
    """

    def __init__(
        self,
        sha256: ArtifactHash,
        size_bytes: int,
        names: Mapping[int, str],
        depth: int,
        tail: Tail | None,
    ) -> None:
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.names = names
        self.depth = depth
        self.readers = 0
        self._loop = asyncio.get_running_loop()
        self.landed = False
        self.over = False
        self._verified = False
        self._written: dict[int, int] = dict.fromkeys(names, 0)
        self._digests: list[bytes] = []
        self._chained = False
        self._tail = tail
        self._cuts: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    # In threads of the ingest

    def received(self, block: memoryview, start: int, filled: int) -> None:
        """See `ingest.Observer`."""
        if self._tail and self._tail.fill(block, start, filled, keep=self.readers > 0):
            self._tell()

    def hashed_block(self, digest: bytes, *, chained: bool) -> None:
        """See `ingest.Observer`."""
        self._chained = chained
        self._digests.append(digest)
        self._tell()

    def written(self, index: int, size_bytes: int) -> None:
        """See `ingest.Observer`."""
        self._written[index] = size_bytes
        self._tell()

    def hashed(self, digest: ArtifactHash, size_bytes: int) -> None:
        """See `ingest.Observer`."""
        if (digest, size_bytes) == (self.sha256, self.size_bytes):
            self._verified = True
            self._tell()

    # On the event loop

    def end(self, *, landed: bool) -> None:
        """Say how the write has ended; the first to say so counts."""
        if not self.landed and not self.over:
            self.landed, self.over = landed, not landed
            self._tell()
            for cut in self._cuts if self.over else ():
                cut()

    def limit(self, index: int, end: int) -> int:
        """How far an answer that ends before byte `end` may be sent now from that dataset."""
        hashed_bytes = min(len(self._digests) * BLOCK_SIZE_BYTES, self.size_bytes)
        there_bytes = min(self._written[index], hashed_bytes)
        if not self._verified:
            end = (end - 1) // BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES
        return min(there_bytes, end)

    def in_memory(self, offset: int, end: int) -> memoryview:
        """The next bytes of an answer that ends before byte `end`, if they came just now."""
        if self._tail is None or self.readers > MAX_TAIL_READERS:
            return memoryview(b"")
        if not self._verified:
            end = (end - 1) // PIECE_BYTES * PIECE_BYTES
        return self._tail.read(offset, end)

    def furthest(self, end: int, exclude: Collection[int] = ()) -> int | None:
        """The dataset that has the most of such an answer; None when all are excluded."""
        usable = [index for index in self.names if index not in exclude]
        return max(usable, key=lambda index: self.limit(index, end), default=None)

    def digests(self) -> BlockDigests:
        """What the blocks that are there hash to, as if they were all there is."""
        digests = self._digests[: block_count(self.size_bytes)]
        size_bytes = min(len(digests) * BLOCK_SIZE_BYTES, self.size_bytes)
        return BlockDigests(self.sha256, size_bytes, b"".join(digests), self._chained)

    async def changes(self, timeout_s: float) -> bool:
        """Wait until it is further than at the call; False when the time is over before."""
        changed = self._changed
        try:
            async with asyncio.timeout(timeout_s):
                return await changed.wait()
        except TimeoutError:
            return False

    @contextmanager
    def reading(self, cut: Callable[[], None] = _leave_alone) -> Iterator[None]:
        """Count a reader for a block; only then is `changes` told.

        Whatever it is at, `cut` ends it when there is no use in going on.
        """
        self.readers += 1
        self._cuts.append(cut)
        try:
            yield
        finally:
            self._cuts.remove(cut)
            self.readers -= 1

    def _tell(self) -> None:
        if self.readers:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What is read while it arrives.

    Attributes:
        arriving: how many artifacts can be read so now.
        readers: how many answers are sent from them now.
        sent_bytes: sent from such since the start.
    """

    arriving: int = 0
    readers: int = 0
    sent_bytes: int = 0


class Arrivals:
    """Every artifact of a store that is being received and may be read.

    Args:
        is_wanted: tells of an artifact whether the config of the moment has it.
        verify_reads: whether what is read is compared with what was received.
        offered: False: none ever is.

    Attributes:
        relayed_bytes: sent from arrivals since the start.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        *,
        is_wanted: Callable[[ArtifactHash], bool],
        verify_reads: VerifyReads,
        offered: bool,
    ) -> None:
        self.relayed_bytes = 0
        self._mirrors = mirrors
        self._is_wanted = is_wanted
        self._verify_reads = verify_reads
        self._offered = offered
        self._tails = 0
        self._running: dict[ArtifactHash, list[Arrival]] = {}

    def status(self) -> RelayStatus:
        """How much is read of what arrives."""
        return RelayStatus(len(self._running), self.readers, self.relayed_bytes)

    @property
    def readers(self) -> int:
        """How many answers are sent from what arrives now."""
        return sum(arrival.readers for each in self._running.values() for arrival in each)

    @contextmanager
    def arriving(
        self,
        artifact: ArtifactHash,
        size_bytes: int | None,
        names: Mapping[int, str],
        depth: int,
    ) -> Iterator[Arrival | None]:
        """Offer a write to readers for the block; None when it is none to be offered.

        A single block would be withheld until the end, and then it can be had like any other.
        """
        offered = self._offered and depth <= MAX_DEPTH
        if not offered or size_bytes is None or size_bytes <= BLOCK_SIZE_BYTES:
            yield None
            return
        tail = Tail(size_bytes) if self._tails < MAX_TAILS else None
        arrival = Arrival(artifact, size_bytes, names, depth, tail)
        self._running.setdefault(artifact, []).append(arrival)
        self._tails += tail is not None
        try:
            yield arrival
        finally:
            arrival.end(landed=False)
            self._tails -= tail is not None
            self._running[artifact].remove(arrival)
            if not self._running[artifact]:
                del self._running[artifact]

    def find(self, artifact: ArtifactHash) -> Arrival | None:
        """The arrival that is furthest; None when there is none, or a dataset knows better.

        That is one with a good copy; and without any dataset, nothing is served.
        """
        found = [each for each in self._running.get(artifact, ()) if self.may_go_on(each)]
        readable = self._mirrors.readable()
        if not (found and readable) or any(mirror.good_copy(artifact) for mirror in readable):
            return None
        return max(found, key=_progress)

    def may_go_on(self, arrival: Arrival) -> bool:
        """Tell whether it may still be read from."""
        if not arrival.landed and not self._is_wanted(arrival.sha256):
            arrival.end(landed=False)
        return not arrival.over

    async def open(self, arrival: Arrival, index: int) -> OpenArtifact:
        """Open the file of an arrival on one dataset; it may have been committed by now.

        Raises:
            OSError: it cannot be opened.
        """
        mirror = self._mirrors.all[index]
        try:
            return await mirror.open_staged(arrival.sha256, arrival.names[index])
        except DatasetUnusable as error:
            raise OSError(errno.ENODEV, str(error)) from error

    def check_reads(self, arrival: Arrival, opened: OpenArtifact) -> None:
        """Have the next bytes that are read compared with what was received, if that is due."""
        mirror = self._mirrors.all[opened.dataset]
        trusted = mirror.healthy and mirror.dataset.checksums_data and not opened.exempt
        # None again where a dataset is trusted by now: the last digests end before the next bytes.
        due = self._verify_reads.is_due(trusted)
        opened.read = VerifiedRead(arrival.digests()) if due else None


def _progress(arrival: Arrival) -> int:
    return max((arrival.limit(index, arrival.size_bytes) for index in arrival.names), default=0)
