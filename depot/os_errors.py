"""What an error of the operating system says, beyond its number."""

from __future__ import annotations

import errno
import os
from typing import Final


class SyncFailed(OSError):
    """A sync failed: memory may hold, and give back, what the device never got.

    Whatever was to be made durable is worthless now, and no second sync tells otherwise.
    """


class WrongBytes(OSError):
    """The device gave bytes, without an error, that are not what the artifact is known to be.

    For whoever reads on it is an I/O error of the copy; for people it is told by its own words,
    which hold no path: nobody is to look for an error of the device where there was none.
    """


def full_disk(error: OSError) -> bool:
    """Tell whether an error means "no room" (bytes, quota or inodes), not "broken"."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


_SHORTAGES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS}
)


def is_shortage(error: OSError) -> bool:
    """Tell whether a process had no descriptor or memory left: no fault of what it was to touch."""
    return error.errno in _SHORTAGES


def describe_error(error: OSError) -> str:
    """Name an OS error without the path it carries: `EIO: Input/output error`."""
    if isinstance(error, WrongBytes):
        return str(error.strerror)
    if error.errno is None:
        return type(error).__name__
    return f"{errno.errorcode.get(error.errno, error.errno)}: {os.strerror(error.errno)}"
