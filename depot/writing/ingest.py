"""One stream, hashed once, into staged files on every mirror.

A filler thread reads the source into the blocks of a ring; a hash lane or two (`stream_hash`) and
one writer per mirror consume each block by reference. One mirror's error ends its own writer
only (B4). A mirror that keeps blocks for longer than the stall timeout, or that the write has
waited for alone for longer than the lag, is dropped from this write, and cannot hold the others.
Staged files are synced, not yet named: `Put` decides whether they get their name.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from depot.artifact import ArtifactHash
from depot.concurrency.threads import DaemonThreads
from depot.dataset.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.streams.arena import Arena
from depot.streams.block_digests import BlockDigests
from depot.streams.blocks import Block, BlockPool, Ring
from depot.streams.sources import Source
from depot.streams.stream_hash import Told, stream_hash
from depot.writing.lag import Lag
from depot.writing.lanes import Consumer, Hasher, LocalWriter, RemoteWriter, Target, Writer, Written

DIRECT_FROM_BYTES: Final = 4 << 20

Admit = Callable[[int], Collection[int]]
"""Called with the total so far before its last bytes are handed on: the mirrors that have no room
for it. Raises to refuse the stream."""


class Observer(Protocol):
    """Is told how far a stream is, in threads of the ingest."""

    def received(self, block: memoryview, start: int, filled: int) -> None:
        """So much is there of the block of the stream that begins at `start`."""

    def hashed_block(self, digest: bytes, *, chained: bool) -> None:
        """One more block of the stream has this digest; not told when there is only one."""

    def written(self, index: int, size_bytes: int) -> None:
        """So much of the stream is in the file of that mirror."""

    def hashed(self, digest: ArtifactHash, size_bytes: int) -> None:
        """All of it has this digest; it is not synced yet."""


@dataclass(frozen=True, slots=True)
class StagedCopy:
    """A synced file that has no name of its own yet; `name` is for `Dataset.commit`."""

    dataset: Dataset
    name: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of one stream.

    Attributes:
        block_digests: None when there is only one block, or not every block was hashed.
        staged: by mirror, the synced file.
        failures: by mirror, why it has none.
    """

    digest: ArtifactHash
    size_bytes: int
    block_digests: BlockDigests | None
    staged: Mapping[int, StagedCopy]
    failures: Mapping[int, OSError | DatasetUnusable]


class Ingestor:
    """Runs ingests in threads of its own.

    Args:
        max_ingests: how many run at once; each takes three threads and one per mirror.
        stall_timeout_s: longest time a mirror may keep a block, or take for its final sync.
        lag_s: how long, in all, one write may wait for one mirror alone.
        arena: the shared memory of worker processes; None: the datasets are in this process.
        direct_io: whether large files of known length are written past the page cache.
        chained: whether to take block digests in the same pass as the hash, where that is possible.
    """

    def __init__(
        self,
        *,
        max_ingests: int,
        mirrors: int,
        stall_timeout_s: float,
        lag_s: float = math.inf,
        arena: Arena | None = None,
        direct_io: bool = True,
        chained: bool = True,
    ) -> None:
        self._threads = DaemonThreads("ingest", max_ingests * (3 + mirrors))
        self._pool = BlockPool(arena=arena)
        self._stall_timeout_s = stall_timeout_s
        self._lag_s = lag_s
        self._direct_io = direct_io
        self._chained = chained

    def start(
        self,
        source: Source,
        targets: Mapping[int, Target],
        length_bytes: int | None,
        admit: Admit,
        observer: Observer | None = None,
    ) -> Future[Ingested]:
        """Begin reading `source`; the future has the outcome or what the source raised."""
        return self._threads.submit(self._ingest, source, targets, length_bytes, admit, observer)

    def read_whole(self, source: Source, length_bytes: int) -> Future[bytes]:
        """Begin reading a short body of that length into memory; one byte more is too long."""
        return self._threads.submit(_read_whole, source, length_bytes)

    def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()

    def _ingest(
        self,
        source: Source,
        targets: Mapping[int, Target],
        length_bytes: int | None,
        admit: Admit,
        observer: Observer | None,
    ) -> Ingested:
        ring, blocks = self._pool.lend(length_bytes)
        hashing = stream_hash(length_bytes, _told(observer), chained=self._chained)
        direct = self._direct_io and (length_bytes or 0) >= DIRECT_FROM_BYTES
        writers = {
            i: self._writer(target, ring, _written_on(i, observer), direct=direct)
            for i, target in targets.items()
        }
        hashers = [Hasher(update, ring) for update in hashing.updates]
        consumers: list[Consumer] = [*hashers, *writers.values()]
        threads = [self._threads.submit(consumer.run) for consumer in consumers]
        lag = Lag(list(writers.values()), self._lag_s, self._stall_timeout_s)
        size_bytes = None
        try:
            check = _drop_full(writers, admit)
            alive = list(writers.values())
            size_bytes = self._pump(source, ring, hashers, alive, lag, check, observer)
        except BaseException:
            for consumer in consumers:
                consumer.cancelled = True
            raise
        finally:
            for consumer in consumers:
                consumer.end()
            ended = self._await_hashers(hashers, threads)
            if ended and observer is not None and size_bytes is not None:
                observer.hashed(hashing.digest(), size_bytes)
            ended &= lag.await_writers(threads[len(hashers) :])
            self._pool.give_back(blocks, reusable=ended)
        failures = {i: writer.error for i, writer in writers.items() if writer.error}
        staged = {
            i: StagedCopy(targets[i].dataset, writer.name)
            for i, writer in writers.items()
            if i not in failures
        }
        complete = all(hasher.error is None for hasher in hashers)
        kept = hashing.block_digests(size_bytes) if complete else None
        return Ingested(hashing.digest(), size_bytes, kept, staged, failures)

    def _writer(self, target: Target, ring: Ring, on_written: Written, *, direct: bool) -> Writer:
        if not target.host.remote:
            return LocalWriter(target, ring, on_written, direct=direct)
        return RemoteWriter(target, ring, on_written, self._stall_timeout_s, direct=direct)

    def _pump(
        self,
        source: Source,
        ring: Ring,
        hashers: Sequence[Consumer],
        writers: Sequence[Writer],
        lag: Lag,
        admit: Callable[[int], None],
        observer: Observer | None,
    ) -> int:
        size_bytes = 0
        while True:
            block = self._free_block(ring, [*hashers, *writers], lag)
            block.filled = fill(source, block.view, _received(observer, block, size_bytes))
            if not block.filled:
                return size_bytes
            size_bytes += block.filled
            admit(size_bytes)
            live = [writer for writer in writers if writer.error is None]
            if not live:
                return size_bytes  # no mirror is left: the outcome is known
            takers: list[Consumer] = [*(h for h in hashers if h.error is None), *live]
            block.holders = len(takers)
            for taker in takers:
                taker.put(block)

    def _free_block(self, ring: Ring, consumers: Sequence[Consumer], lag: Lag) -> Block:
        while (block := lag.take(ring, consumers)) is None:
            live = [consumer for consumer in consumers if consumer.error is None]
            if not live:
                raise OSError(errno.ETIMEDOUT, "no consumer of the transfer is making progress")
            max(live, key=lambda consumer: consumer.waiting_blocks).abandon()
        return block

    def _await_hashers(self, hashers: Sequence[Consumer], threads: Sequence[Future[None]]) -> bool:
        for hasher, thread in zip(hashers, threads, strict=False):
            try:
                thread.result(timeout=self._stall_timeout_s)
            except TimeoutError:
                hasher.abandon()
                return False
        return True


def _received(observer: Observer | None, block: Block, start: int) -> Callable[[int], None]:
    return _nobody_asks if observer is None else partial(observer.received, block.view, start)


def _told(observer: Observer | None) -> Told:
    return _nobody_is_told if observer is None else observer.hashed_block


def _nobody_is_told(digest: bytes, *, chained: bool) -> None:
    """Nobody observes the stream."""


def _written_on(index: int, observer: Observer | None) -> Written:
    return _nobody_asks if observer is None else partial(observer.written, index)


def _nobody_asks(_size_bytes: int) -> None:
    """Nobody observes the stream."""


def _drop_full(writers: Mapping[int, Writer], admit: Admit) -> Callable[[int], None]:
    def check(size_bytes: int) -> None:
        for index in admit(size_bytes):
            writers[index].fail(OSError(errno.ENOSPC, "no room within the quota"))

    return check


def _read_whole(source: Source, length_bytes: int) -> bytes:
    content = bytearray(length_bytes + 1)
    filled_bytes = fill(source, memoryview(content))
    return bytes(content[:filled_bytes])


def fill(source: Source, buffer: memoryview, received: Callable[[int], None] = _nobody_asks) -> int:
    """Read until the buffer is full or the source ends; the number of bytes, told as it grows."""
    filled = 0
    while filled < len(buffer) and (count := source.readinto(buffer[filled:])):
        filled += count
        received(filled)
    return filled
