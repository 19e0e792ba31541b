"""SHA-256 beside other work: in a thread of its own, in the order in which blocks are given."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Final, Protocol, Self

from agent.snapshots.values import Checksum

BLOCK_BYTES: Final = 1 << 20
# What waits to be hashed is in memory: a hash that falls behind holds up who gives the blocks.
_MOST_WAITING: Final = 16

Block = bytes | memoryview


def let_be() -> None:
    """What there is to do with most blocks when they were hashed."""


class Digest(Protocol):
    """A SHA-256 on its way."""

    def update(self, content: memoryview, /) -> None:
        """Hash more."""


class HashLane:
    """A thread that hashes one block after the other. `busy_s` is how long it took so far."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self._waiting: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="snapshot-hash")

    def update(self, digest: Digest, block: Block, then: Callable[[], None] = let_be) -> None:
        """Give the next block; it must not change until `then` is called, in that thread."""
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._hash, digest, block, then))

    def finish(self) -> None:
        """Wait for what is left."""
        while self._waiting:
            self._waiting.popleft().result()

    def _hash(self, digest: Digest, block: Block, then: Callable[[], None]) -> None:
        began_s = time.perf_counter()
        try:
            digest.update(memoryview(block))
        finally:
            # Also when it failed: who waits for the block would wait for ever.
            self.busy_s += time.perf_counter() - began_s
            then()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def checksum_of(path: Path, size_bytes: int | None = None) -> Checksum | None:
    """Hash a file; None if it is none, or not of that size.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file() or (size_bytes is not None and path.stat().st_size != size_bytes):
        return None
    with path.open("rb", buffering=0) as file:
        return checksum_of_file(file)


def checksum_of_file(file: FileIO) -> Checksum:
    """Hash what is left of an open file.

    Raises:
        OSError: it cannot be read.
    """
    return Checksum(hashlib.file_digest(file, "sha256").digest())
