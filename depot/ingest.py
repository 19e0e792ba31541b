"""One stream, hashed once, into staged files on every mirror.

A filler thread reads the source into the blocks of a ring; a hash lane, one for the block digests
and one per mirror consume each block by reference. One mirror's error ends its own lane only (B4).
A mirror that keeps blocks for longer than the stall timeout is dropped from this write, so that it
cannot hold the others. Staged files are synced, not yet named: `Put` decides whether they get their
name. Whatever fails, no staged file is left behind by a lane that can still run (Q3).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from depot.artifact import ArtifactHash
from depot.blocks import BLOCK_SIZE_BYTES, Block, BlockPool, Ring
from depot.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.sources import Source
from depot.worker import DaemonThreads

DIRECT_FROM_BYTES: Final = 4 << 20
ALIGNMENT_BYTES: Final = 4096
SYNC_EVERY_BYTES: Final = 64 << 20

Admit = Callable[[int], Collection[int]]
"""Called with the total so far before its last bytes are handed on: the mirrors that have no room
for it. Raises to refuse the stream."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of one stream.

    Attributes:
        block_digests: SHA-256 of each block; empty when there is only one.
        staged: by mirror, the synced file.
        failures: by mirror, why it has none.
    """

    digest: ArtifactHash
    size_bytes: int
    block_digests: bytes
    staged: Mapping[int, StagedFile]
    failures: Mapping[int, OSError | DatasetUnusable]


class StagedFile:
    """A file being written on one dataset, without a name of its own yet."""

    def __init__(self, dataset: Dataset, length_bytes: int | None) -> None:
        self.dataset = dataset
        self.name = ""
        self._direct = length_bytes is not None and length_bytes >= DIRECT_FROM_BYTES
        self._fd = -1
        self._unsynced_bytes = 0

    def begin(self) -> None:
        """Create the file."""
        self._fd, self.name = self.dataset.stage()
        if self._direct:
            self._set_direct(True)

    def write(self, content: memoryview) -> None:
        """Append; only the last block may be shorter than the others."""
        self._flush_in_steps(len(content))
        while content:
            if self._direct and len(content) % ALIGNMENT_BYTES:
                self._set_direct(False)
            content = content[self._write_some(content) :]

    def finish(self) -> None:
        """Make the contents durable. After a failed fsync the file is worthless: no second try."""
        fd, self._fd = self._fd, -1
        try:
            os.fchmod(fd, 0o444)
            self.dataset.sync(fd)
        finally:
            os.close(fd)

    def discard(self) -> None:
        """Remove the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.name:
            self.dataset.discard(self.name)

    def _write_some(self, content: memoryview) -> int:
        try:
            return self.dataset.disk.write(self._fd, content)
        except OSError as error:
            if not (self._direct and error.errno == errno.EINVAL):
                raise
        # The filesystem takes the flag but not the write.
        self._set_direct(False)
        return self.dataset.disk.write(self._fd, content)

    def _set_direct(self, on: bool) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(
                self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT
            )
            self._direct = on
        except OSError:  # a filesystem without direct I/O
            self._direct = False

    def _flush_in_steps(self, size_bytes: int) -> None:
        # Without direct I/O, dirty pages pile up into one long fsync at the end.
        self._unsynced_bytes += size_bytes
        if not self._direct and self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self.dataset.sync(self._fd)
            self._unsynced_bytes = 0


class _Sink(Protocol):
    def begin(self) -> None: ...
    def write(self, content: memoryview, /) -> None: ...
    def finish(self) -> None: ...
    def discard(self) -> None: ...


class _HashSink:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.write = self._hash.update

    def begin(self) -> None: ...
    def finish(self) -> None: ...
    def discard(self) -> None: ...

    def digest(self) -> ArtifactHash:
        return ArtifactHash(self._hash.digest())


class _BlockDigestSink:
    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def begin(self) -> None: ...
    def finish(self) -> None: ...
    def discard(self) -> None: ...

    def write(self, content: memoryview) -> None:
        self._digests.append(hashlib.sha256(content).digest())

    def joined(self) -> bytes:
        return b"".join(self._digests) if len(self._digests) > 1 else b""


class _Lane:
    """One consumer of blocks, in a thread of its own."""

    def __init__(self, sink: _Sink, ring: Ring) -> None:
        self.sink = sink
        self.error: OSError | DatasetUnusable | None = None
        self.cancelled = False
        self.abandoned = False
        self._ring = ring
        self._blocks: SimpleQueue[Block | None] = SimpleQueue()

    @property
    def waiting_blocks(self) -> int:
        return self._blocks.qsize()

    def put(self, block: Block) -> None:
        self._blocks.put(block)

    def end(self) -> None:
        self._blocks.put(None)

    def fail(self, error: OSError | DatasetUnusable) -> None:
        """Write no more; the first reason is the one that counts."""
        self.error = self.error or error

    def abandon(self) -> None:
        """Give up on a stuck thread: free the blocks it has not begun with."""
        self.abandoned = True
        self.fail(OSError(errno.ETIMEDOUT, "the device is too slow for this write"))
        with suppress(Empty):
            while block := self._blocks.get_nowait():
                self._ring.release(block)
        self.end()

    def run(self) -> None:
        self._attempt(self.sink.begin)
        while (block := self._blocks.get()) is not None:
            self._attempt(self.sink.write, block.content)
            self._ring.release(block)
        if not self.cancelled:
            self._attempt(self.sink.finish)
        if self.cancelled or self.error:
            with suppress(OSError):
                self.sink.discard()

    def _attempt(self, step: Callable[..., None], *arguments: memoryview) -> None:
        if self.error is None:
            try:
                step(*arguments)
            except (OSError, DatasetUnusable) as error:
                self.fail(error)


class Ingestor:
    """Runs ingests in threads of its own.

    Args:
        max_ingests: how many run at once; each takes three threads and one per mirror.
        stall_timeout_s: longest time a mirror may keep a block, or take for its final sync.
    """

    def __init__(self, *, max_ingests: int, mirrors: int, stall_timeout_s: float) -> None:
        self._threads = DaemonThreads("ingest", max_ingests * (3 + mirrors))
        self._pool = BlockPool()
        self._stall_timeout_s = stall_timeout_s

    def start(
        self,
        source: Source,
        datasets: Mapping[int, Dataset],
        length_bytes: int | None,
        admit: Admit,
    ) -> Future[Ingested]:
        """Begin reading `source`; the future has the outcome or what the source raised."""
        return self._threads.submit(self._ingest, source, datasets, length_bytes, admit)

    def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()

    def _ingest(
        self,
        source: Source,
        datasets: Mapping[int, Dataset],
        length_bytes: int | None,
        admit: Admit,
    ) -> Ingested:
        ring, blocks = self._pool.lend(length_bytes)
        digest, block_digests = _HashSink(), _BlockDigestSink()
        files = {i: StagedFile(dataset, length_bytes) for i, dataset in datasets.items()}
        writers = {i: _Lane(file, ring) for i, file in files.items()}
        hashes = [_Lane(digest, ring)]
        if length_bytes is None or length_bytes > BLOCK_SIZE_BYTES:
            hashes.append(_Lane(block_digests, ring))
        lanes = [*hashes, *writers.values()]
        threads = [self._threads.submit(lane.run) for lane in lanes]
        try:
            size_bytes = self._pump(source, ring, lanes, _drop_full(writers, admit))
        except BaseException:
            for lane in lanes:
                lane.cancelled = True
            raise
        finally:
            for lane in lanes:
                lane.end()
            ended = self._await_lanes(lanes, threads)
            self._pool.give_back(blocks, reusable=ended)
        failures = {i: lane.error for i, lane in writers.items() if lane.error}
        staged = {i: file for i, file in files.items() if i not in failures}
        complete = all(lane.error is None for lane in hashes)
        kept = block_digests.joined() if complete else b""
        return Ingested(digest.digest(), size_bytes, kept, staged, failures)

    def _pump(
        self, source: Source, ring: Ring, lanes: Sequence[_Lane], admit: Callable[[int], None]
    ) -> int:
        size_bytes = 0
        while True:
            block = self._free_block(ring, lanes)
            block.filled = fill(source, block.view)
            if not block.filled:
                return size_bytes
            size_bytes += block.filled
            admit(size_bytes)
            live = [lane for lane in lanes if lane.error is None]
            if all(isinstance(lane.sink, _HashSink | _BlockDigestSink) for lane in live):
                return size_bytes  # no mirror is left: the outcome is known
            block.holders = len(live)
            for lane in live:
                lane.put(block)

    def _free_block(self, ring: Ring, lanes: Sequence[_Lane]) -> Block:
        while (block := ring.take(self._stall_timeout_s)) is None:
            live = [lane for lane in lanes if lane.error is None]
            if not live:
                raise OSError(errno.ETIMEDOUT, "no consumer of the transfer is making progress")
            max(live, key=lambda lane: lane.waiting_blocks).abandon()
        return block

    def _await_lanes(self, lanes: Sequence[_Lane], threads: Sequence[Future[None]]) -> bool:
        ended = True
        for lane, thread in zip(lanes, threads, strict=True):
            try:
                # What was given up had its time already.
                thread.result(timeout=0 if lane.abandoned else self._stall_timeout_s)
            except TimeoutError:
                lane.abandon()
                ended = False
        return ended


def _drop_full(writers: Mapping[int, _Lane], admit: Admit) -> Callable[[int], None]:
    def check(size_bytes: int) -> None:
        for index in admit(size_bytes):
            writers[index].fail(OSError(errno.ENOSPC, "no room within the quota"))

    return check


def fill(source: Source, buffer: memoryview) -> int:
    """Read until the buffer is full or the source ends; the number of bytes."""
    filled = 0
    while filled < len(buffer) and (count := source.readinto(buffer[filled:])):
        filled += count
    return filled
