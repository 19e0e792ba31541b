"""Memory that the agent and its worker processes share: the blocks of running transfers.

One mapping of a fixed number of blocks, so its size is bounded whatever runs (S1); pages that
nobody uses are given back to the system. A worker maps it once, when it starts.
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress

from depot.streams.blocks import BLOCK_SIZE_BYTES


class Arena:
    """Blocks of `BLOCK_SIZE_BYTES`, by number.

    Args:
        keep_warm: how many free blocks keep their memory for the next transfer.
    """

    def __init__(self, blocks: int, keep_warm: int = 8) -> None:
        self.fd = os.memfd_create("blocks", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, blocks * BLOCK_SIZE_BYTES)
        self._memory = mmap.mmap(self.fd, blocks * BLOCK_SIZE_BYTES)
        self._view = memoryview(self._memory)
        self._cold = list(range(blocks))
        self._warm: list[int] = []
        self._keep_warm = keep_warm
        self._lock = threading.Lock()

    def take(self) -> int:
        """Take a free block; IndexError when more are taken than there are."""
        with self._lock:
            return self._warm.pop() if self._warm else self._cold.pop()

    def give_back(self, number: int) -> None:
        """End the use of a block."""
        with self._lock:
            if len(self._warm) < self._keep_warm:
                self._warm.append(number)
                return
        start = number * BLOCK_SIZE_BYTES
        with suppress(OSError):
            self._memory.madvise(mmap.MADV_REMOVE, start, BLOCK_SIZE_BYTES)
        with self._lock:
            self._cold.append(number)

    def view(self, number: int) -> memoryview:
        """The memory of a block."""
        return self._view[number * BLOCK_SIZE_BYTES :][:BLOCK_SIZE_BYTES]

    def close(self) -> None:
        """Give up the descriptor; the mapping goes when the last view of it does."""
        os.close(self.fd)


_shared: memoryview | None = None


def share(fd: int) -> None:
    """Map, in a worker process, the arena of its agent."""
    global _shared
    _shared = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
    os.close(fd)


def shared_block(number: int) -> memoryview:
    """Return the memory of a block, in a worker process."""
    assert _shared is not None, "this process has no arena"
    return _shared[number * BLOCK_SIZE_BYTES :][:BLOCK_SIZE_BYTES]
