"""Letting go of every file that this process has open on a filesystem, so that it can be unmounted.

A running read or write holds its own descriptor, for as long as its client is slow. Each one is
made to refer to nothing instead: the number stays its owner's, to be closed as ever, and the next
use of it fails with EBADF, upon which a read goes on from the other dataset.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_OPEN: Final = Path("/proc/self/fd")


def revoke(path: Path, device_id: int) -> int:
    """Let go of every open file below `path` on the device; the number of them."""
    whole_device = path.is_mount()
    nothing = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        numbers = [int(name) for name in os.listdir(_OPEN)]
        found = [
            fd for fd in numbers if fd != nothing and _is_on(fd, path, device_id, whole_device)
        ]
        for fd in found:
            # Between the look and this the owner may have closed it; then whatever has the number
            # now fails once, with an error, and is tried again like after any other failure.
            os.dup2(nothing, fd, inheritable=False)
        return len(found)
    finally:
        os.close(nothing)


def _is_on(fd: int, path: Path, device_id: int, whole_device: bool) -> bool:
    with suppress(OSError):
        if os.fstat(fd).st_dev != device_id:
            return False
        # Several datasets may be directories of one filesystem, beside files that are not ours.
        return whole_device or Path(os.readlink(_OPEN / str(fd))).is_relative_to(path.resolve())
    return False
