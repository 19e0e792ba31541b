"""What memory has of a file, for whoever must not wait for a device.

`openat2` with RESOLVE_CACHED finds only what was looked up before. `cachestat` says whether all of
a file is in the page cache: to read what is not there would ask the device for it ahead, and a
device in trouble takes no such request either. A read with RWF_NOWAIT waits for no page that is on
its way, and with O_NOATIME nothing notes the access, which might wait for the filesystem's journal.
Whatever is not certain to be had at once is not had here. That holds where opening a file asks
nobody else: see `filesystem.has_page_cache`.

The two system calls that Python has no function for let no other thread go on, because that takes
longer than they do: if one of them had to wait after all, all of the process would. The others do,
and may take half a millisecond to have the interpreter back from a thread that computes.

Sources: openat2(2), preadv2(2); cachestat is Linux 6.5 and newer (Documentation of the kernel).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import sys
from functools import cache
from typing import Final

import structlog

log = structlog.get_logger("depot.dataset")

MOST_BYTES: Final = 64 << 10
# These numbers are the same on all of them.
_MACHINES: Final = frozenset({"aarch64", "riscv64", "x86_64"})
_OPENAT2: Final = 437
_CACHESTAT: Final = 451
_NO_FD: Final = -1
_AT_FDCWD: Final = -100
_RESOLVE_CACHED: Final = 0x20
_FLAGS: Final = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_NOATIME", 0)
)
# struct open_how: flags, mode, resolve.
_HOW: Final = struct.pack("=QQQ", _FLAGS, 0, _RESOLVE_CACHED)
# struct cachestat_range: offset, length. struct cachestat: five counts, of cached pages first.
_RANGE: Final = struct.Struct("=QQ")
_Counts: Final = ctypes.c_uint64 * 5


class CachedFile:
    """One small file, read from memory alone; by one thread at a time.

    Args:
        size_bytes: what it must have, at most `MOST_BYTES`.
        device_id: of the filesystem that it must be on, as `stat` gives it.
    """

    def __init__(self, path: str, size_bytes: int, device_id: int) -> None:
        self._path = os.fsencode(path)
        self._size_bytes = size_bytes
        self._device_id = device_id
        self._pages = -(-size_bytes // mmap.PAGESIZE)
        self._range = _RANGE.pack(0, max(size_bytes, 1))
        self._open, self._count = _open_call(), _count_call()

    def read(self) -> bytes | None:
        """All of it; None: it is no file of that size there, or not to be had at once."""
        fd: int = self._open(_OPENAT2, _AT_FDCWD, self._path, _HOW, len(_HOW))
        if fd < 0:
            return None
        try:
            return self._read(fd) if self._is_expected(os.fstat(fd)) else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def _is_expected(self, found: os.stat_result) -> bool:
        # Of a longer one a page that is there may have the device asked for more ahead.
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_size == self._size_bytes
            and found.st_dev == self._device_id
        )

    def _read(self, fd: int) -> bytes | None:
        counts = _Counts()
        self._count(_CACHESTAT, fd, self._range, counts, 0)
        if counts[0] < self._pages:
            return None
        content = bytearray(self._size_bytes)
        count = os.preadv(fd, [content], 0, os.RWF_NOWAIT)
        return bytes(content) if count == self._size_bytes else None


def holds(fd: int, offset: int, length_bytes: int) -> bool:
    """Tell whether memory has a part of an open file; no, where the kernel does not tell."""
    if not available():
        return False
    counts = _Counts()
    _count_call()(_CACHESTAT, fd, _RANGE.pack(offset, length_bytes), counts, 0)
    pages = (offset + length_bytes - 1) // mmap.PAGESIZE - offset // mmap.PAGESIZE + 1
    return int(counts[0]) >= pages


@cache
def available() -> bool:
    """Tell whether this process can make these calls.

    To be asked where `filesystem.has_page_cache` says that the kernel has them. Then it is a filter
    of system calls, older than `cachestat`, that refuses what it does not know; that is told once.
    """
    if sys.platform != "linux" or os.uname().machine not in _MACHINES:
        return False
    # Nothing that could be done: how it is refused tells whether there is such a call.
    return _exists("openat2", errno.EINVAL, _open_call(), _OPENAT2, _NO_FD, b"", _HOW, 0) and (
        _exists("cachestat", errno.EBADF, _count_call(), _CACHESTAT, _NO_FD, b"", None, 0)
    )


def _exists(
    name: str, expected: int, call: ctypes._NamedFuncPointer, *arguments: int | bytes | None
) -> bool:
    call(*arguments)
    number = ctypes.get_errno()
    if number != expected:
        log.info("page_cache.refused", call=name, error=os.strerror(number))
    return number == expected


@cache
def _open_call() -> ctypes._NamedFuncPointer:
    return _system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


@cache
def _count_call() -> ctypes._NamedFuncPointer:
    return _system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint)


def _system_call(*arguments: type) -> ctypes._NamedFuncPointer:
    # It keeps the interpreter: to get that back can take longer than the call.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    call.argtypes = [ctypes.c_long, *arguments]
    call.restype = ctypes.c_long
    return call
