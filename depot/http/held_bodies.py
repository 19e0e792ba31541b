"""JSON bodies in memory, bounded in sum (S1): each may be large, and many may come at once.

What is counted is what has arrived beyond the first part of a body, which every request may have:
so a client that announces much and sends little takes nothing from others, and small requests are
answered also while large ones have all there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from depot.errors import TooManyBodies

FREE_BYTES: Final = 64 << 10


class HeldBodies:
    """The bodies of one server.

    Attributes:
        held_bytes: counted now, of all bodies together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.held_bytes = 0
        self._limit_bytes = limit_bytes

    @contextmanager
    def request(self) -> Iterator[HeldBody]:
        """Hold the body of one request for the block."""
        body = HeldBody(self)
        try:
            yield body
        finally:
            self.held_bytes -= body.counted_bytes

    def count(self, more_bytes: int) -> None:
        """Count some more.

        Raises:
            TooManyBodies: all together would be too many.
        """
        if self.held_bytes + more_bytes > self._limit_bytes:
            raise TooManyBodies(
                f"JSON bodies of {self.held_bytes} bytes are being worked on, at most "
                f"{self._limit_bytes} may be"
            )
        self.held_bytes += more_bytes


class HeldBody:
    """One body, as far as it has arrived.

    Attributes:
        counted_bytes: its part of the sum.
    """

    def __init__(self, bodies: HeldBodies) -> None:
        self._bodies = bodies
        self._size_bytes = 0
        self.counted_bytes = 0

    def arrived(self, count_bytes: int) -> None:
        """Count what has arrived.

        Raises:
            TooManyBodies: there is no room for it.
        """
        self._size_bytes += count_bytes
        more_bytes = max(0, self._size_bytes - FREE_BYTES) - self.counted_bytes
        if more_bytes > 0:
            self._bodies.count(more_bytes)
            self.counted_bytes += more_bytes
