"""What tells that a file is not, or is no longer, what it is taken for."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple, Self

from depot.os_errors import FileChanged, WrongBytes


class FileState(NamedTuple):
    """What changes with a file's bytes, if whoever changes them does not hide it."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, fd: int) -> Self:
        """Ask the filesystem."""
        status = os.fstat(fd)
        return cls(status.st_size, status.st_mtime_ns)

    def check(self, fd: int) -> None:
        """Compare with what the file is now.

        Raises:
            FileChanged: it was cut short, or written to.
        """
        now = self.of(fd)
        if now.size_bytes != self.size_bytes:
            sizes = f"it had {self.size_bytes} bytes and has {now.size_bytes}"
            raise FileChanged(errno.EIO, f"the file was changed while it was read: {sizes}")
        if now != self:
            raise FileChanged(errno.EIO, "the file was written to while it was read")


def too_short(offset: int, expected_bytes: int) -> WrongBytes:
    """Make the error of a file that has nothing at `offset`."""
    return WrongBytes(
        errno.EIO, f"the file has nothing at byte {offset}, expected at least {expected_bytes}"
    )
