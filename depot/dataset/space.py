"""The room on a dataset's filesystem: what is free, and a reserve for when nothing is.

The reserve is a file that takes the room which a document, or a delete on some filesystems, may
need on a full disk. It is given up for that one call and refilled after it: at once, or by the
watch where what is being deleted makes the room. Where there is no room for it, there is none.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from depot.dataset.disk import Disk
from depot.dataset.small_files import METADATA

RESERVE: Final = f"{METADATA}/reserve"
RESERVE_BYTES: Final = 32 << 20
"""More than the ledger of the largest config that can be sent."""


@dataclass(frozen=True, slots=True)
class Space:
    """What the filesystem says: bytes free to us, bytes in all, inodes free (None: no limit)."""

    free_bytes: int
    total_bytes: int
    free_inodes: int | None


def ask_space(root_fd: int, disk: Disk) -> Space:
    """Ask the filesystem."""
    found = disk.statvfs(root_fd)
    unit = found.f_frsize
    # btrfs makes inodes as it needs them, and says that of 0 inodes 0 are free.
    free_inodes = found.f_favail if found.f_files else None
    return Space(found.f_bavail * unit, found.f_blocks * unit, free_inodes)


def give_up_reserve(root_fd: int, disk: Disk) -> None:
    """Free the room of the reserve, if there is one."""
    with suppress(FileNotFoundError):
        disk.unlink(RESERVE, dir_fd=root_fd)


def refill_reserve(root_fd: int, disk: Disk) -> None:
    """Take the room that metadata may need on a full disk; as much as there is, if need be."""
    size_bytes = min(RESERVE_BYTES, ask_space(root_fd, disk).total_bytes // 16)
    try:
        fd = disk.open(RESERVE, os.O_WRONLY | os.O_CREAT, dir_fd=root_fd)
        try:
            if os.fstat(fd).st_blocks * 512 < size_bytes:
                disk.fallocate(fd, size_bytes)
        finally:
            os.close(fd)
    except OSError as error:  # a reserve is help, not a condition
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, errno.EINVAL):
            raise
