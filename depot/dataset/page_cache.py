"""What memory has of a small file, for whoever must not wait for a device.

`openat2` with RESOLVE_CACHED finds only what was looked up before. `cachestat` says whether all of
a file is in the page cache: to read what is not there would ask the device for it ahead, and a
device in trouble takes no such request either. A read with RWF_NOWAIT waits for no page that is on
its way, and with O_NOATIME nothing notes the access, which might wait for the filesystem's journal.
Whatever is not certain to be had at once is not had here. That holds where opening a file asks
nobody else: see `filesystem.has_page_cache`.

Sources: openat2(2), preadv2(2); cachestat is Linux 6.5 and newer (Documentation of the kernel).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
from functools import cache
from typing import Final

MOST_BYTES: Final = 64 << 10
# On every architecture.
_OPENAT2: Final = 437
_CACHESTAT: Final = 451
_AT_FDCWD: Final = -100
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_CACHED: Final = 0x20
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME
# struct open_how: flags, mode, resolve.
_HOW: Final = struct.pack("=QQQ", _FLAGS, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_CACHED)
# struct cachestat_range: offset, length. struct cachestat: five counts, of cached pages first.
_RANGE: Final = struct.Struct("=QQ")
_COUNTS: Final = 5


class CachedFile:
    """One small file, read from memory alone. All of them together are for one thread.

    Args:
        size_bytes: what it must have, at most `MOST_BYTES`.
    """

    def __init__(self, path: str, size_bytes: int) -> None:
        self._path = os.fsencode(path)
        self._size_bytes = size_bytes
        self._pages = -(-size_bytes // mmap.PAGESIZE)
        self._range = _RANGE.pack(0, max(size_bytes, 1))
        self._room = [_buffer[:size_bytes]]
        self._open, self._count = _open_call(), _count_call()

    def read(self) -> bytes | None:
        """All of it; None: it is no file of that size, or not to be had at once."""
        fd: int = self._open(_OPENAT2, _AT_FDCWD, self._path, _HOW, len(_HOW))
        if fd < 0:
            return None
        try:
            found = os.fstat(fd)
            # Of a longer one a page that is there may have the device asked for more ahead.
            if not stat.S_ISREG(found.st_mode) or found.st_size != self._size_bytes:
                return None
            if self._count(_CACHESTAT, fd, self._range, _counts, 0) or _counts[0] < self._pages:
                return None
            count = os.preadv(fd, self._room, 0, os.RWF_NOWAIT)
            return bytes(self._room[0][:count]) if count == self._size_bytes else None
        except OSError:
            return None
        finally:
            os.close(fd)


_buffer: Final = memoryview(bytearray(MOST_BYTES))
_counts: Final = (ctypes.c_uint64 * _COUNTS)()


@cache
def _open_call() -> ctypes._NamedFuncPointer:
    return _system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


@cache
def _count_call() -> ctypes._NamedFuncPointer:
    return _system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint)


def _system_call(*arguments: type) -> ctypes._NamedFuncPointer:
    # It does not wait, so it keeps the interpreter: to get that back can take longer than the call.
    call = ctypes.PyDLL(None).syscall
    call.argtypes = [ctypes.c_long, *arguments]
    call.restype = ctypes.c_long
    return call
