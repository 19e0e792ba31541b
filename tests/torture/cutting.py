"""A disk that counts its calls and, at a chosen one, has something happen: the power goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from depot.dataset.disk import Disk


class CutPoint:
    """Strikes once, at a call of the disks that share it, counted from when it is armed.

    Args:
        after: right after that call instead of right before it.
    """

    def __init__(self, strike: Callable[[], object], *, after: bool) -> None:
        self.struck = False
        self._left: int | None = None
        self._strike = strike
        self._after = after
        self._lock = threading.Lock()

    def arm(self, at_call: int) -> None:
        """Strike at the `at_call`th call from now."""
        self._left = at_call

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call, which is the block; one that fails counts as well."""
        due = self._count()
        if due and not self._after:
            self._strike()
        try:
            yield
        finally:
            if due and self._after:
                self._strike()

    def _count(self) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left -= 1
            if self._left > 0:
                return False
            self._left = None
            self.struck = True
            return True


class CuttingDisk(Disk):
    """The operating system's calls; those that change something are counted."""

    def __init__(self, point: CutPoint | None) -> None:
        self._point = point or CutPoint(lambda: None, after=False)

    def open(self, name: str, flags: int, mode: int = 0o600, *, dir_fd: int) -> int:
        with self._point.call():
            return super().open(name, flags, mode, dir_fd=dir_fd)

    def write(self, fd: int, content: memoryview) -> int:
        with self._point.call():
            return super().write(fd, content)

    def write_several(self, fd: int, contents: Sequence[memoryview]) -> int:
        with self._point.call():
            return super().write_several(fd, contents)

    def fsync(self, fd: int) -> None:
        with self._point.call():
            super().fsync(fd)

    def fsync_directory(self, fd: int) -> None:
        with self._point.call():
            super().fsync_directory(fd)

    def sync_whole(self, fd: int) -> None:
        with self._point.call():
            super().sync_whole(fd)

    def fallocate(self, fd: int, size_bytes: int) -> None:
        with self._point.call():
            super().fallocate(fd, size_bytes)

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        with self._point.call():
            super().rename(source, target, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        with self._point.call():
            super().unlink(name, dir_fd=dir_fd)
