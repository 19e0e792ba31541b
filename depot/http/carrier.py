"""Carries a file to a socket, a block at a time: through a pipe, or through memory.

Rules kept here:
- Loading is the disk's part: it may fail or hang, and touches no socket. Unloading is the client's:
  it never blocks, and touches no file. `os.sendfile` does both in one call: a device that hangs
  could then neither be told from a slow client nor be kept from sending late.
- What was loaded and not unloaded is forgotten when the carrier is closed.

A pipe takes references to the page cache, and no byte is copied: an eighth of the processor time
of reading into memory and sending from there. Artifacts never change in place, so what is on its
way stays what was read. Whatever has to look at the bytes goes through memory.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

# Reads from a descriptor into a buffer at an offset; the number of bytes, 0 at the end.
ReadInto = Callable[[int, memoryview, int], int]

BLOCK_BYTES: Final = 1 << 20
PIPE_BYTES: Final = 1 << 20
# The filesystem cannot, the system cannot, or a sandbox forbids it.
_NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})


class Carrier(Protocol):
    """Holds at most one block; loaded again only when that is gone."""

    def load(self, fd: int, offset: int, most_bytes: int) -> int:
        """Take a block from a file; the number of bytes, 0 at the file's end."""

    def unload(self, sock: socket.socket) -> int:
        """Send some of the block; the number of bytes, 0 when the socket is full."""


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Read from the file itself."""
    return os.preadv(fd, [buffer], offset)


@contextmanager
def open_carrier(read: ReadInto | None) -> Iterator[Carrier]:
    """Open a carrier for one thread; with `read`, one that reads through memory with it."""
    pipe = _open_pipe() if read is None else None
    if pipe is None:
        yield _MemoryCarrier(read or read_into)
        return
    try:
        yield _PipeCarrier(*pipe)
    finally:
        for end in pipe:
            os.close(end)


class _Buffers(threading.local):
    """One block buffer for each thread, however many files it carries.

    Mapped, so that its memory is given back when the thread ends.
    """

    def __init__(self) -> None:
        self.block = memoryview(mmap.mmap(-1, BLOCK_BYTES))


_buffers = _Buffers()


class _MemoryCarrier:
    def __init__(self, read: ReadInto) -> None:
        self._read = read
        self._loaded = memoryview(b"")

    def load(self, fd: int, offset: int, most_bytes: int) -> int:
        buffer = _buffers.block[:most_bytes]
        count = self._read(fd, buffer, offset)
        self._loaded = buffer[:count]
        return count

    def unload(self, sock: socket.socket) -> int:
        count = send_some(sock, self._loaded)
        self._loaded = self._loaded[count:]
        return count


def send_some(sock: socket.socket, content: memoryview) -> int:
    """Send from memory; the number of bytes, 0 when the socket is full."""
    try:
        return sock.send(content)
    except BlockingIOError:
        return 0


class _PipeCarrier:
    def __init__(self, outlet: int, inlet: int) -> None:
        self._outlet = outlet
        self._inlet = inlet
        self._loaded_bytes = 0
        self._instead: _MemoryCarrier | None = None

    def load(self, fd: int, offset: int, most_bytes: int) -> int:
        if self._instead is None:
            try:
                # It takes what the pipe has room for, which is never less than a page.
                count = os.splice(fd, self._inlet, most_bytes, offset_src=offset)
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    raise
                self._instead = _MemoryCarrier(read_into)
            else:
                self._loaded_bytes = count
                return count
        return self._instead.load(fd, offset, most_bytes)

    def unload(self, sock: socket.socket) -> int:
        if self._instead is not None:
            return self._instead.unload(sock)
        try:
            count = os.splice(self._outlet, sock.fileno(), self._loaded_bytes)
        except BlockingIOError:
            return 0
        self._loaded_bytes -= count
        return count


def _open_pipe() -> tuple[int, int] | None:
    """Both ends of an empty pipe; None where there is no such way or no descriptor left."""
    if sys.platform != "linux":
        return None
    try:
        outlet, inlet = os.pipe()
    except OSError:
        return None
    with suppress(OSError):  # a user's pipes have a quota; a small pipe only takes more rounds
        fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return outlet, inlet
