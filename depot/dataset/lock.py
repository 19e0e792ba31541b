"""The lock of a dataset: one process at a time uses it, and the lock's file says which one.

All calls block.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from depot.dataset.small_files import METADATA
from depot.device.resident import agent_pid
from depot.errors import DatasetBusy

LOCK: Final = f"{METADATA}/lock"


def take_lock(root_fd: int, path: Path) -> int:
    """Lock the dataset at `path`; the descriptor that holds the lock until it is closed.

    Raises:
        DatasetBusy: another process uses it.
        OSError: the device fails.
    """
    # Held open for reading only: a file open for writing would keep an operator, and the shutdown
    # of the machine, from remounting the disk read-only.
    fd = os.open(LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=root_fd)
    try:
        _flock(fd, path)
    except BaseException:
        os.close(fd)
        raise
    with suppress(OSError):  # the number is help for people; a read-only disk cannot hold it
        _leave_number(root_fd)
    return fd


def require_unused(root_fd: int, path: Path) -> None:
    """Raise DatasetBusy when a process uses the dataset at `path`; changes nothing there."""
    try:
        fd = os.open(LOCK, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root_fd)
    except FileNotFoundError:
        return
    try:
        _flock(fd, path)
    finally:
        os.close(fd)


def _flock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        numbers = os.pread(fd, 32, 0).decode(errors="replace").split()
        holder = ", its worker ".join(numbers) or "unknown"
        raise DatasetBusy(f"{path} is in use by another process (pid {holder})") from error


def _leave_number(root_fd: int) -> None:
    fd = os.open(LOCK, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        numbers = [number for number in (agent_pid(), os.getpid()) if number is not None]
        os.write(fd, "".join(f"{number}\n" for number in numbers).encode())
    finally:
        os.close(fd)
