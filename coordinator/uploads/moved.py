"""How much uploads have moved: what tells one that is slow from one that stands still."""

from __future__ import annotations


class Moved:
    """Counts bytes that arrived, were fetched, or were read in order to be verified and staged.

    Several threads count here without a lock: that it rises says something, by how much does not.
    """

    def __init__(self) -> None:
        self.count_bytes = 0

    def __call__(self, count_bytes: int) -> None:
        """So many bytes more."""
        self.count_bytes += count_bytes
