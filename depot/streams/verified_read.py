"""Reads that hand out only bytes of blocks that match their digest.

Each read takes the whole 1 MiB block, hashes it, and gives the part that was asked for; one that
does not match is an I/O error of the copy, like one that the disk reports, so whoever reads goes on
with the other mirror at the very same byte (B2). Nothing is believed from one read to the next.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from typing import Final, TypeVar

from depot.os_errors import WrongBytes
from depot.streams.block_digests import BlockDigests
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.file_state import too_short

R = TypeVar("R")

AHEAD_BYTES: Final = 4 * BLOCK_SIZE_BYTES


class _Scratch(threading.local):
    """One block for each thread, for reads that begin or end inside a block."""

    def __init__(self) -> None:
        self.block = memoryview(bytearray(BLOCK_SIZE_BYTES))


_scratch = _Scratch()


class VerifiedRead:
    """Reads one artifact's file; callable as (descriptor, buffer, offset) -> number of bytes."""

    def __init__(self, digests: BlockDigests) -> None:
        self._digests = digests

    def __call__(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Fill some of `buffer` from verified bytes at `offset`; 0 at the end.

        Raises:
            WrongBytes: the file is short, or its block does not match.
            OSError: it cannot be read.
        """
        if offset >= self._digests.size_bytes:
            return 0
        start, end = self._digests.block_bounds(offset)
        if offset == start and len(buffer) >= end - start:
            self._load(fd, buffer[: end - start], start, ahead_bytes=AHEAD_BYTES)
            return end - start
        block = _scratch.block[: end - start]
        self._load(fd, block, start)
        part = block[offset - start :][: len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def only_for(self, start: int, end: int) -> VerifiedRead:
        """Make one that reads bytes `start` to `end` only, and takes little to send elsewhere."""
        return VerifiedRead(self._digests.part(start, end))

    def check_whole(self, content: bytes) -> None:
        """Check all of an artifact of one block that was read already.

        Raises:
            WrongBytes: it is another.
        """
        whole = len(content) == self._digests.size_bytes
        if not whole or (content and not self._digests.matches(0, memoryview(content))):
            raise WrongBytes(errno.EIO, "the content does not match its digest")

    def _load(self, fd: int, block: memoryview, start: int, ahead_bytes: int = 0) -> None:
        filled = 0
        while filled < len(block):
            count = os.preadv(fd, [block[filled:]], start + filled)
            if not count:
                raise too_short(start + filled, self._digests.size_bytes)
            filled += count
        if ahead_bytes:
            # Whoever takes whole blocks goes on: the disk works while this one is hashed and sent.
            # Only what the reads before have not asked for: to ask again takes time as well.
            with suppress(OSError):
                last = start + filled + ahead_bytes - BLOCK_SIZE_BYTES
                os.posix_fadvise(fd, last, BLOCK_SIZE_BYTES, os.POSIX_FADV_WILLNEED)
        if not self._digests.matches(start, block):
            raise WrongBytes(errno.EIO, f"the block at byte {start} does not match its digest")


def only_for(read: R, start: int, end: int) -> R | VerifiedRead:
    """What of a way to read is needed for bytes `start` to `end`, to be sent to another process.

    The digests of a long artifact would be megabytes for each turn.
    """
    return read.only_for(start, end) if isinstance(read, VerifiedRead) else read
