"""What an error of the operating system says, beyond its number."""

from __future__ import annotations

import errno
import os
from typing import Final


class SyncFailed(OSError):
    """A sync failed: memory may hold, and give back, what the device never got.

    Whatever was to be made durable is worthless now, and no second sync tells otherwise.
    """


class OwnWords(OSError):
    """Found by this program, and told by its own words, which hold no path.

    Whoever handles it goes by its number; nobody is to look for what the kernel would mean by that.
    """


class WrongBytes(OwnWords):
    """The device gave bytes, without an error, that are not what the artifact is known to be.

    For whoever reads on it is an I/O error of the copy.
    """


class FileChanged(WrongBytes):
    """Somebody changed a file that is never changed, while it was read.

    What was taken from it by reference, and is still on its way, may have changed with it.
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
    if isinstance(error, OwnWords):
        return str(error.strerror)
    if error.errno is None:
        return type(error).__name__
    return f"{errno.errorcode.get(error.errno, error.errno)}: {os.strerror(error.errno)}"
