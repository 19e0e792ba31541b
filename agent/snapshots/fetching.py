"""One version of an archive into the file beside a target: in parts side by side, hashed meanwhile.

Memory: at most `WORKERS + AHEAD` parts of PART_BYTES wait for those before them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from typing import Final

from agent.snapshots.archive import Archive
from agent.snapshots.course import Fetched
from agent.snapshots.hashing import HashLane
from agent.snapshots.landing import Landing
from agent.snapshots.parts import side_by_side
from agent.snapshots.patience import Retrying
from agent.snapshots.unpacking import unpacked
from agent.snapshots.values import Head

PART_BYTES: Final = 8 << 20
WORKERS: Final = 4
AHEAD: Final = 2

Part = tuple[int, int]
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
            hash_block = lane.update if lane is not None else _let_be
            take = self._take_packed if head.metadata.compression else self._take
            size_bytes = take(head, landing, hash_block)
            over_s = time.perf_counter()
            if lane is None:
                return Fetched(None, size_bytes)
            checksum = lane.finish()
            return Fetched(checksum, size_bytes, lane.busy_s, time.perf_counter() - over_s)

    def _take(self, head: Head, landing: Landing, hash_block: Callable[[bytes], None]) -> int:
        """Bytes as they are stored: each part is written as soon as it comes."""

        def part(bounds: Part) -> list[bytes]:
            blocks, at = [], bounds[0]
            for block in self._read(head, bounds):
                landing.write(block, at)
                at += len(block)
                blocks.append(block)
            landing.begin_to_sync(bounds[0], at - bounds[0])
            return blocks

        size_bytes = 0
        with closing(self._parts(head, part)) as parts:
            for blocks in parts:
                for block in blocks:
                    hash_block(block)
                    size_bytes += len(block)
                self._on_progress(size_bytes)
        return size_bytes

    def _take_packed(
        self, head: Head, landing: Landing, hash_block: Callable[[bytes], None]
    ) -> int:
        """What is stored was compressed: parts come side by side, and are unpacked in order."""

        def part(bounds: Part) -> list[bytes]:
            return list(self._read(head, bounds))

        def stored() -> Generator[bytes]:
            done_bytes = 0
            with closing(self._parts(head, part)) as parts:
                for blocks in parts:
                    yield from blocks
                    done_bytes += sum(map(len, blocks))
                    self._on_progress(done_bytes)

        size_bytes = 0
        with closing(stored()) as blocks:
            for block in unpacked(blocks, head.metadata.size_bytes):
                hash_block(block)
                landing.write(block, size_bytes)
                size_bytes += len(block)
        return size_bytes

    def _parts(self, head: Head, work: Callable[[Part], list[bytes]]) -> Generator[list[bytes]]:
        bounds = (
            (start, min(start + PART_BYTES, head.stored_bytes))
            for start in range(0, head.stored_bytes, PART_BYTES)
        )
        return side_by_side(
            work, bounds, workers=WORKERS, ahead=AHEAD, abandon=self._retrying.give_up
        )

    def _read(self, head: Head, bounds: Part) -> Iterator[bytes]:
        return self._retrying.read(self._archive, head.version, *bounds)


def _let_be(_block: bytes) -> None:
    """Nobody asked for the hash."""
