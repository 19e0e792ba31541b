"""Accounting of one dataset's bytes: reserve before the first byte, release on every way out.

Pure numbers: no path, no clock. Keeps Q1: `used + reserved` never passes the limit. Calls may come
from the event loop and from ingest threads, so each step is atomic.
"""

from __future__ import annotations

import threading


class Quota:
    """The bytes a dataset may hold, holds, and has promised.

    Attributes:
        limit_bytes: artifacts, staged and reserved bytes together stay within this.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._used_bytes = 0
        self._reserved_bytes = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes of the artifacts that are there."""
        return self._used_bytes

    @property
    def reserved_bytes(self) -> int:
        """Bytes promised to running writes, whether already staged or not."""
        return self._reserved_bytes

    @property
    def available_bytes(self) -> int:
        """What could still be reserved; never negative, also after the limit was lowered."""
        return max(0, self.limit_bytes - self._used_bytes - self._reserved_bytes)

    def reserve(self, size_bytes: int) -> Reservation | None:
        """Promise `size_bytes` to a write; None when there is no room."""
        reservation = Reservation(self)
        return reservation if reservation.grow(size_bytes) else None

    def set_used(self, used_bytes: int) -> None:
        """Start over from what a scan found."""
        with self._lock:
            self._used_bytes = used_bytes

    def add_used(self, change_bytes: int) -> None:
        """Count an artifact that appeared (positive) or left (negative)."""
        with self._lock:
            self._used_bytes += change_bytes

    def _move_reserved(self, change_bytes: int) -> bool:
        with self._lock:
            if change_bytes > self.available_bytes:
                return False
            self._reserved_bytes += change_bytes
            return True


class Reservation:
    """A write's promised bytes.

    When the write lands, its bytes are first counted as used and then released here, so that the
    sum is never too low in between.
    """

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self.size_bytes = 0

    def grow(self, by_bytes: int) -> bool:
        """Ask for more; False, and unchanged, when there is no room."""
        if by_bytes > 0 and not self._quota._move_reserved(by_bytes):
            return False
        self.size_bytes += by_bytes
        return True

    def release(self) -> None:
        """End the promise; a second call changes nothing."""
        size_bytes, self.size_bytes = self.size_bytes, 0
        self._quota._move_reserved(-size_bytes)
