"""The system calls that a dataset's files see, one method each: the seam at which a disk fails.

Everything a `Dataset` does to its device goes through one `Disk`, so that a test can hand it one
that fails, fills up or hangs at a chosen call. Names are relative to a directory descriptor. All
calls block and raise OSError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from depot.dataset import filesystem


class Disk:
    """The operating system's calls, unchanged."""

    def open(self, name: str, flags: int, mode: int = 0o600, *, dir_fd: int) -> int:
        """Open or create a file; the descriptor is not inherited."""
        return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        """Read at an offset."""
        return os.pread(fd, size_bytes, offset_bytes)

    def pread_into(self, fd: int, buffer: memoryview, offset_bytes: int) -> int:
        """Read some bytes at an offset; how many."""
        return os.preadv(fd, [buffer], offset_bytes)

    def write(self, fd: int, content: memoryview) -> int:
        """Append some of `content`; the number of bytes."""
        return os.write(fd, content)

    def write_several(self, fd: int, contents: Sequence[memoryview]) -> int:
        """Append some of `contents`, one after the other; the number of bytes."""
        return os.writev(fd, contents)

    def fsync(self, fd: int) -> None:
        """Make a file durable."""
        os.fsync(fd)

    def fsync_directory(self, fd: int) -> None:
        """Make the names in a directory durable."""
        os.fsync(fd)
        # XFS that has shut down (its disk died) says that a directory was synced all the same, but
        # it fails to look at it. A shutdown is for good: what is well now was well at the fsync.
        os.fstat(fd)

    def sync_whole(self, fd: int) -> None:
        """Make everything on the filesystem of an open directory durable."""
        filesystem.sync_whole(fd)
        os.fstat(fd)  # as after a directory's fsync

    def dirty_bytes(self) -> int:
        """How much waits to be written back, on all disks together."""
        return filesystem.dirty_bytes()

    def fallocate(self, fd: int, size_bytes: int) -> None:
        """Take room for a file's first `size_bytes`."""
        os.posix_fallocate(fd, 0, size_bytes)

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        """Move a file onto a name, replacing what stands there."""
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int) -> None:
        """Make a directory that is ours alone."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        """Look at what has a name, without following it."""
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def stat_path(self, path: Path) -> os.stat_result:
        """Look at what a path leads to now."""
        return path.stat()

    def listdir(self, fd: int) -> list[str]:
        """Name everything in a directory; `fd` is of the caller alone, since it has a position."""
        return os.listdir(fd)

    def forget(self, fd: int) -> None:
        """Have memory let go of a file's contents, so that they are read from the device next."""
        with suppress(OSError):  # a filesystem without it reads what it reads
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def statvfs(self, fd: int) -> os.statvfs_result:
        """Ask the filesystem for its room."""
        return os.fstatvfs(fd)

    def checksums_data(self, path: Path) -> bool:
        """Tell whether what is read there was checked by the filesystem."""
        return filesystem.checksums_data(path)

    def is_exempt(self, fd: int) -> bool:
        """Tell whether the filesystem checks its data, but not that of an open file."""
        return filesystem.is_exempt(fd)

    def syncs_whole(self, path: Path) -> bool:
        """Tell whether `sync_whole` carries out what it says there, and reports what failed."""
        return filesystem.syncs_whole(path)

    def has_page_cache(self, path: Path) -> bool:
        """Tell whether files there can be read from memory without asking the device."""
        return filesystem.has_page_cache(path)


SYSTEM: Final = Disk()

DiskOf = Callable[[Path], Disk]
"""The disk behind a dataset path."""


def system_disk(_path: Path) -> Disk:
    """Every dataset is on the operating system's disks."""
    return SYSTEM
