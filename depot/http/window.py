"""Carries a file to a socket out of a mapping of it, a window at a time.

Rules kept here:
- A window is locked in memory before any of it is sent. However short memory is, none of its pages
  is taken away then, so to send them does not wait for the device: a page that had to be read in
  the `send` would be waited for with the connection's lock held, and whoever touches the
  connection, the agent's event loop included, would wait as well (B4).
- Only what memory has is mapped. What the device has to be asked for, and what cannot be mapped or
  locked, is carried another way, which also tells why it cannot be read.
- A page whose file was cut short meanwhile fails the `send` with EFAULT, and nothing else.

The bytes are copied once, by the sender, and the client finds them in the processor's cache: on one
machine that is faster for both than references to pages, as long as each has a core. To a network
card the references are free.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from depot.dataset import page_cache
from depot.http.carrier import Carrier, open_carrier, send_some

WINDOW_BYTES: Final = 4 << 20
"""An ordinary user may lock 8 MiB."""
_Window: Final = ctypes.c_char * (WINDOW_BYTES + mmap.PAGESIZE)
_FAILED: Final = ctypes.c_void_p(-1).value
_libc: Final = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
for _call in (_libc.mlock, _libc.munmap):
    _call.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


@contextmanager
def open_window_carrier() -> Iterator[Carrier]:
    """Open a carrier for one thread."""
    with open_carrier(None) as instead:
        carrier = _WindowCarrier(instead)
        try:
            yield carrier
        finally:
            carrier.close()


class _WindowCarrier:
    def __init__(self, instead: Carrier) -> None:
        self._instead: Carrier = instead
        self._mapped: tuple[int, int] | None = None
        self._loaded = memoryview(b"")

    def load(self, fd: int, offset: int, most_bytes: int) -> int:
        self.close()
        length_bytes = min(most_bytes, WINDOW_BYTES)
        if self._map(fd, offset, length_bytes):
            return length_bytes
        return self._instead.load(fd, offset, most_bytes)

    def unload(self, sock: socket.socket) -> int:
        if self._mapped is None:
            return self._instead.unload(sock)
        count = send_some(sock, self._loaded)
        self._loaded = self._loaded[count:]
        return count

    def close(self) -> None:
        """Unmap what was loaded."""
        self._loaded = memoryview(b"")
        if self._mapped is not None:
            _libc.munmap(*self._mapped)
            self._mapped = None

    def _map(self, fd: int, offset: int, length_bytes: int) -> bool:
        # The rest of a file's last page reads as zeros, what is behind that not at all.
        if not offset + length_bytes <= min(os.fstat(fd).st_size, sys.maxsize):
            return False
        if not page_cache.holds(fd, offset, length_bytes):
            return False
        before_bytes = offset % mmap.PAGESIZE
        size_bytes = before_bytes + length_bytes
        address = _libc.mmap(
            None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset - before_bytes
        )
        if address == _FAILED:
            return False
        self._mapped = address, size_bytes
        if _libc.mlock(*self._mapped):
            self.close()
            return False
        content = memoryview(_Window.from_address(address)).cast("B")
        self._loaded = content[before_bytes:size_bytes]
        return True
