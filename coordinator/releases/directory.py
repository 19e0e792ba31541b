"""A release in a directory, with its `metadata` and `targets` in it or in its `repo`.

No symbolic link is followed below the directory: what is read is in it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from coordinator.errors import BadRelease
from coordinator.releases.repository import Body, Damaged, Repository
from coordinator.releases.zip_repository import PREFIXES

_STEP: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_THERE: Final = (errno.ENOENT, errno.ENAMETOOLONG)


class DirectoryRepository(Repository):
    """A directory on a disk.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        inside = any((path / each / "metadata").is_dir() for each in PREFIXES[:1])
        self._prefix = PREFIXES[0] if inside else PREFIXES[1]

    @property
    def file_name(self) -> str:
        """The directory's own name."""
        return self._path.resolve().name

    def fingerprint(self) -> None:
        """A directory is no one file."""

    def open(self, path: str, _most_bytes: int, /) -> Body | None:
        """See `Repository`."""
        try:
            fd = self._open(self._prefix + path)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise BadRelease(
                    f"{path}: expected a file in directories, found a symbolic link or a file in "
                    "one's place"
                ) from error
            raise BadRelease(f"{path} cannot be read: {error.strerror}") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise BadRelease(f"{path}: expected a file, found something else")
        return FileBody(fd, status.st_size)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._fd)

    def _open(self, path: str) -> int:
        *directories, name = path.split("/")
        fd = os.dup(self._fd)
        try:
            for directory in directories:
                inner = os.open(directory, _STEP, dir_fd=fd)
                os.close(fd)
                fd = inner
            return os.open(name, _FILE, dir_fd=fd)
        finally:
            os.close(fd)


class FileBody:
    """An open file as a body, which owns its descriptor."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self.size_bytes = size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        """See `Body`."""
        try:
            return os.read(self._fd, size_bytes)
        except OSError as error:
            raise Damaged(f"it cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
