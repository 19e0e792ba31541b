"""Small files (marker, ledger, pins, witness), read whole and replaced whole and durably.

A reader never sees half a file and is never held by what somebody put in its place: a directory, a
FIFO and a symbolic link are errors. Everything is relative to a directory descriptor.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from depot.dataset.disk import SYSTEM, Disk
from depot.errors import DatasetUnusable
from depot.os_errors import SyncFailed

METADATA: Final = ".sled-depot"
STAGING: Final = f"{METADATA}/staging"
MAX_DOCUMENT_BYTES: Final = 64 << 20


@contextmanager
def open_root(path: Path) -> Iterator[int]:
    """Open a dataset directory for the block.

    Raises:
        DatasetUnusable: there is no such directory.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetUnusable(f"{path}: {os.strerror(error.errno or 0)}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def read_document(root_fd: int, name: str, disk: Disk = SYSTEM) -> bytes | None:
    """Read a small file; None when there is none.

    Raises:
        OSError: it is not a regular file, too large, or the device fails.
    """
    # O_NONBLOCK: a FIFO in the file's place must not hang the reader.
    try:
        fd = disk.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root_fd)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, f"{name} is not a regular file")
        if found.st_size > MAX_DOCUMENT_BYTES:
            raise OSError(errno.EFBIG, f"{name} has over {MAX_DOCUMENT_BYTES} bytes")
        # After a failed sync, memory may hold what the device never got.
        disk.forget(fd)
        return _read_whole(fd, found.st_size, disk)
    finally:
        os.close(fd)


def _read_whole(fd: int, size_bytes: int, disk: Disk) -> bytes:
    content = b""
    while part := disk.pread(fd, size_bytes - len(content), len(content)):
        content += part
    return content


def write_document(root_fd: int, name: str, content: bytes, disk: Disk = SYSTEM) -> None:
    """Stage, write, sync, rename, sync the directory: all or nothing.

    Raises:
        OSError: the old contents stand, unless only the last sync failed.
    """
    staged = f"{STAGING}/{secrets.token_hex(16)}"
    fd = disk.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root_fd)
    try:
        try:
            write_all(fd, memoryview(content), disk)
            sync_file(fd, disk)
        finally:
            os.close(fd)
        disk.rename(staged, name, dir_fd=root_fd)
    except OSError:
        with suppress(OSError):
            disk.unlink(staged, dir_fd=root_fd)
        raise
    sync_directory(root_fd, os.path.dirname(name) or ".", disk)


def write_all(fd: int, content: memoryview, disk: Disk = SYSTEM) -> None:
    """Write everything, however short each write is."""
    while content:
        content = content[disk.write(fd, content) :]


def sync_file(fd: int, disk: Disk = SYSTEM) -> None:
    """Make a file durable.

    Raises:
        SyncFailed: it is not.
    """
    try:
        disk.fsync(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


def sync_whole(fd: int, disk: Disk = SYSTEM) -> None:
    """Make everything durable that is on the filesystem of an open directory.

    Raises:
        SyncFailed: it is not, or something else is not.
    """
    try:
        disk.sync_whole(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


def sync_directory(root_fd: int, name: str, disk: Disk = SYSTEM) -> None:
    """Make the names in a directory durable.

    Raises:
        SyncFailed: they are not.
    """
    with directory(root_fd, name, disk) as fd:
        sync_names(fd, disk)


def sync_names(fd: int, disk: Disk = SYSTEM) -> None:
    """Make the names in an open directory durable; see `sync_directory`."""
    try:
        disk.fsync_directory(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


@contextmanager
def directory(root_fd: int, name: str, disk: Disk = SYSTEM) -> Iterator[int]:
    """Open a subdirectory for the block."""
    fd = disk.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def make_directory(root_fd: int, name: str, disk: Disk = SYSTEM) -> None:
    """Make a directory unless it is there."""
    with suppress(FileExistsError):
        disk.mkdir(name, dir_fd=root_fd)


def exists(root_fd: int, name: str, disk: Disk = SYSTEM) -> bool:
    """Tell whether anything has that name."""
    try:
        disk.stat(name, dir_fd=root_fd)
    except FileNotFoundError:
        return False
    return True
