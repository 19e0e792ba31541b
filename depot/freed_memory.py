"""Having the C library give freed memory back to the system.

It does so with what is large, but each time that something larger is freed it takes even that for
small: after one list of a hundred thousand artifacts a process would keep as much again for ever.
Where it is another library than glibc, nothing is done about it.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# Above the blocks that bodies are read in, which are wanted again at once.
_LARGE_BYTES: Final = 2 << 20


def give_back_large() -> None:
    """From now on, have whatever is large returned as soon as it is free."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Return what is free now, after much was done that is not done again."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
