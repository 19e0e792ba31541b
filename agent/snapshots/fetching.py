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
from agent.snapshots.hashing import Block, let_be
from agent.snapshots.landing import Landing
from agent.snapshots.parts import PART_BYTES, Bounds, parts_of, side_by_side
from agent.snapshots.patience import Retrying
from agent.snapshots.segments import hash_of
from agent.snapshots.unpacking import unpacked
from agent.snapshots.values import Head

WORKERS: Final = 4
AHEAD: Final = 2
BUFFERS: Final = WORKERS + AHEAD + 2
"""Two are hashed, or are next, while the others are filled, written, or wait for their turn."""

T = TypeVar("T")
R = TypeVar("R")
HashBlock = Callable[[int, Block, Callable[[], None]], None]
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
            running = stack.enter_context(hash_of(head)) if checked else None
            hash_block = running.update if running else _not_asked_for
            if head.metadata.compression:
                size_bytes = self._take_packed(head, landing, hash_block)
            else:
                order = running.parts() if running else parts_of(head.stored_bytes)
                size_bytes = self._take(head, landing, order, hash_block)
            if running is None:
                return Fetched(None, size_bytes)
            over_s = time.perf_counter()
            checksum = running.finish()
            check_s = running.busy_s
            if checksum is None:
                # Wrong bytes do not join, nor do right ones whose midstates are wrong.
                began_s = time.perf_counter()
                checksum = landing.checksum()
                check_s += time.perf_counter() - began_s
            return Fetched(checksum, size_bytes, check_s, time.perf_counter() - over_s)

    def _take(
        self, head: Head, landing: Landing, order: Iterator[Bounds], hash_block: HashBlock
    ) -> int:
        """Bytes as they are stored: each part is written as soon as it is there."""

        def part(lent: tuple[Bounds, memoryview]) -> tuple[int, memoryview, int]:
            bounds, buffer = lent
            filled = 0
            for block in self._read(head, bounds):
                buffer[filled : filled + len(block)] = block
                filled += len(block)
            landing.write_aligned(buffer[:filled], bounds[0])
            return bounds[0], buffer, filled

        free = _buffers()
        # Lent in the order of the parts: none waits for those behind it.
        lent = ((bounds, free.get()) for bounds in order)
        size_bytes = 0
        with closing(self._side_by_side(part, lent)) as parts:
            for start, buffer, filled in parts:
                hash_block(start, buffer[:filled], partial(free.put, buffer))
                size_bytes += filled
                self._on_progress(size_bytes)
        return size_bytes

    def _take_packed(self, head: Head, landing: Landing, hash_block: HashBlock) -> int:
        """What is stored was compressed: parts come side by side, and are unpacked in order."""

        def part(bounds: Bounds) -> list[bytes]:
            return list(self._read(head, bounds))

        def stored() -> Generator[bytes]:
            done_bytes = 0
            with closing(self._side_by_side(part, parts_of(head.stored_bytes))) as parts:
                for blocks in parts:
                    yield from blocks
                    done_bytes += sum(map(len, blocks))
                    self._on_progress(done_bytes)

        size_bytes = 0
        with closing(stored()) as blocks:
            for block in unpacked(blocks, head.metadata.size_bytes):
                hash_block(size_bytes, block, let_be)
                landing.write(block, size_bytes)
                size_bytes += len(block)
        return size_bytes

    def _side_by_side(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
        return side_by_side(
            work, items, workers=WORKERS, ahead=AHEAD, abandon=self._retrying.give_up
        )

    def _read(self, head: Head, bounds: Bounds) -> Iterator[bytes]:
        return self._retrying.read(self._archive, head.version, *bounds)


def _buffers() -> SimpleQueue[memoryview]:
    free: SimpleQueue[memoryview] = SimpleQueue()
    for _ in range(BUFFERS):
        # Private: memory that could be shared is given no huge pages.
        buffer = mmap.mmap(-1, PART_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel that has none
            buffer.madvise(mmap.MADV_HUGEPAGE)
        free.put(memoryview(buffer))
    return free


def _not_asked_for(_start: int, _block: Block, then: Callable[[], None]) -> None:
    """Nobody asked for the hash."""
    then()
