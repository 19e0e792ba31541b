"""A carrier that reads and checks the next block in a second thread while this one is sent.

Rules kept here: one block is ahead, never more; nothing is read past the end of the turn; and the
second thread ends with the carrier, which waits for it, so that nobody reads into a block of the
next turn.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from depot.blocks import BLOCK_SIZE_BYTES
from depot.http.carrier import Carrier, ReadInto, send_some
from depot.worker import DaemonThreads


class _Blocks(threading.local):
    """Two blocks for each thread that sends."""

    def __init__(self) -> None:
        self.pair = [memoryview(bytearray(BLOCK_SIZE_BYTES)) for _ in range(2)]


_blocks: Final = _Blocks()


@dataclass(frozen=True, slots=True)
class _Loading:
    offset: int
    content: Future[memoryview]


class _AheadCarrier:
    def __init__(self, read: ReadInto, end: int, reader: DaemonThreads) -> None:
        self._read = read
        self._end = end
        self._reader = reader
        self._spare, self._busy = _blocks.pair
        self._next: _Loading | None = None
        self._loaded = memoryview(b"")

    def load(self, fd: int, offset: int, _most_bytes: int) -> int:
        loading, self._next = self._next, None
        if loading is None or loading.offset != offset:
            loading = self._begin(fd, offset)
        self._loaded = loading.content.result()
        count = len(self._loaded)
        if count and offset + count < self._end:
            self._next = self._begin(fd, offset + count)
        return count

    def unload(self, sock: socket.socket) -> int:
        count = send_some(sock, self._loaded)
        self._loaded = self._loaded[count:]
        return count

    def wait(self) -> None:
        """Wait for what is read ahead."""
        if self._next is not None:
            self._next.content.exception()

    def _begin(self, fd: int, offset: int) -> _Loading:
        block = self._spare[: self._end - offset]
        self._spare, self._busy = self._busy, self._spare
        return _Loading(offset, self._reader.submit(self._load, fd, block, offset))

    def _load(self, fd: int, block: memoryview, offset: int) -> memoryview:
        return block[: self._read(fd, block, offset)]


@contextmanager
def open_ahead_carrier(read: ReadInto, end: int) -> Iterator[Carrier]:
    """Open a carrier for one thread, which reads no byte from `end` on."""
    reader = DaemonThreads("read-ahead", 1)
    carrier = _AheadCarrier(read, end, reader)
    try:
        yield carrier
    finally:
        carrier.wait()
        reader.close()
