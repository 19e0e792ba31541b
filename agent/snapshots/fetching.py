"""One version of an archive into the file beside a target: in parts side by side, hashed meanwhile.

Memory: `BUFFERS` parts of PART_BYTES, used again and again. They are page-aligned, so that they can
go to the disk past the page cache: the copy into it took as long as the hash, of the same cores.
They are of huge pages where the kernel has some: to write from so few costs it an eighth.
Of what was compressed: at most `WORKERS + AHEAD` parts, what the frame refers back to, and the
blocks that wait to be hashed.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

from agent.snapshots.archive import Archive
from agent.snapshots.course import Fetched
from agent.snapshots.hashing import Block, HashLane, let_be
from agent.snapshots.landing import Landing
from agent.snapshots.parts import side_by_side
from agent.snapshots.patience import Retrying
from agent.snapshots.unpacking import unpacked
from agent.snapshots.values import Head

PART_BYTES: Final = 8 << 20
WORKERS: Final = 4
AHEAD: Final = 2
BUFFERS: Final = WORKERS + AHEAD + 2
"""Two are hashed, or are next, while the others are filled, written, or wait for their turn."""

T = TypeVar("T")
R = TypeVar("R")
Bounds = tuple[int, int]
HashBlock = Callable[[Block, Callable[[], None]], None]
OnProgress = Callable[[int], None]
"""Told how many of the stored bytes are there."""


class Fetching:
    """Fetches versions of one archive."""

    def __init__(self, archive: Archive, retrying: Retrying, on_progress: OnProgress) -> None:
        self._archive = archive
        self._retrying = retrying
        self._on_progress = on_progress

    def fetch(self, head: Head, landing: Landing, *, checked: bool) -> Fetched:
        """Fetch a version, decompressed.

        Raises:
            SnapshotError: as `Archive.read`, after all retries; or what is stored is damaged.
            OSError: the file beside the target cannot be written.
        """
        landing.restart()
        with ExitStack() as stack:
            lane = stack.enter_context(HashLane()) if checked else None
            hash_block = lane.update if lane is not None else _not_asked_for
            take = self._take_packed if head.metadata.compression else self._take
            size_bytes = take(head, landing, hash_block)
            over_s = time.perf_counter()
            if lane is None:
                return Fetched(None, size_bytes)
            checksum = lane.finish()
            return Fetched(checksum, size_bytes, lane.busy_s, time.perf_counter() - over_s)

    def _take(self, head: Head, landing: Landing, hash_block: HashBlock) -> int:
        """Bytes as they are stored: each part is written as soon as it is there."""

        def part(lent: tuple[Bounds, memoryview]) -> tuple[memoryview, int]:
            bounds, buffer = lent
            filled = 0
            for block in self._read(head, bounds):
                buffer[filled : filled + len(block)] = block
                filled += len(block)
            landing.write_aligned(buffer[:filled], bounds[0])
            return buffer, filled

        free = _buffers()
        # Lent in the order of the parts: none waits for those behind it.
        lent = ((bounds, free.get()) for bounds in _parts(head))
        size_bytes = 0
        with closing(self._side_by_side(part, lent)) as parts:
            for buffer, filled in parts:
                hash_block(buffer[:filled], partial(free.put, buffer))
                size_bytes += filled
                self._on_progress(size_bytes)
        return size_bytes

    def _take_packed(self, head: Head, landing: Landing, hash_block: HashBlock) -> int:
        """What is stored was compressed: parts come side by side, and are unpacked in order."""

        def part(bounds: Bounds) -> list[bytes]:
            return list(self._read(head, bounds))

        def stored() -> Generator[bytes]:
            done_bytes = 0
            with closing(self._side_by_side(part, _parts(head))) as parts:
                for blocks in parts:
                    yield from blocks
                    done_bytes += sum(map(len, blocks))
                    self._on_progress(done_bytes)

        size_bytes = 0
        with closing(stored()) as blocks:
            for block in unpacked(blocks, head.metadata.size_bytes):
                hash_block(block, let_be)
                landing.write(block, size_bytes)
                size_bytes += len(block)
        return size_bytes

    def _side_by_side(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
        return side_by_side(
            work, items, workers=WORKERS, ahead=AHEAD, abandon=self._retrying.give_up
        )

    def _read(self, head: Head, bounds: Bounds) -> Iterator[bytes]:
        return self._retrying.read(self._archive, head.version, *bounds)


def _parts(head: Head) -> Iterator[Bounds]:
    for start in range(0, head.stored_bytes, PART_BYTES):
        yield start, min(start + PART_BYTES, head.stored_bytes)


def _buffers() -> SimpleQueue[memoryview]:
    free: SimpleQueue[memoryview] = SimpleQueue()
    for _ in range(BUFFERS):
        # Private: memory that could be shared is given no huge pages.
        buffer = mmap.mmap(-1, PART_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel that has none
            buffer.madvise(mmap.MADV_HUGEPAGE)
        free.put(memoryview(buffer))
    return free


def _not_asked_for(_block: Block, then: Callable[[], None]) -> None:
    """Nobody asked for the hash."""
    then()
