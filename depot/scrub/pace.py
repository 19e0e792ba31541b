"""How fast copies are read to verify them, and when: decided here, done by the scrubber. Pure.

Rates are bytes per second, times are Unix seconds. The *basis* of a copy is when it was last
verified or, if it never was, first seen; it is due one interval later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

FLOOR_BYTES_PER_S: Final = 20_000_000
"""The least rate of a pass: a small dataset is read soon and then left alone."""
_YOUNG_SHARE: Final = 0.5
"""What was verified within this part of the interval can wait."""
_BEGIN_SHARE: Final = 0.75
"""It begins when the oldest copy is this part of the interval old: the rest is for a busy node."""
_REST_SHARE: Final = 0.01


_MOST_AGES: Final = 1024


class Aged(NamedTuple):
    """A copy as far as its age goes."""

    basis_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ScrubPace:
    """What the configuration says about scrubbing.

    Attributes:
        interval_s: within which every copy is to be read.
        max_bytes_per_s: never read faster, whatever that does to the interval.
    """

    interval_s: float
    max_bytes_per_s: int

    def due_rate(self, copies: Iterable[Aged], now_s: float) -> float:
        """The least rate at which every copy is read before it is due, oldest first."""
        rate = read_bytes = 0.0
        for copy in sorted(copies, key=lambda copy: copy.basis_s):
            read_bytes += copy.size_bytes
            # One from the future was taken from a clock that was wrong.
            left_s = min(copy.basis_s, now_s) + self.interval_s - now_s
            rate = max(rate, read_bytes / max(left_s, 1.0))
        return rate

    def rate(self, due_rate: float, *, requested: bool, busy: bool) -> float:
        """The rate to read at.

        While the node is busy for others (`busy`), a pass takes what it needs in order to be in
        time, and no more; the nearer the end of the interval, the more that is. A pass that
        somebody `requested` reads as fast as it may, and as others do while the node is busy.
        """
        if requested and not busy:
            return float(self.max_bytes_per_s)
        if busy and not requested:
            return min(due_rate, self.max_bytes_per_s)
        return min(max(due_rate, FLOOR_BYTES_PER_S), self.max_bytes_per_s)

    def since_s(self, due_rate: float, now_s: float) -> float:
        """A pass that begins by itself reads what was last verified before this.

        What is young is left out, unless there is no time to wait until it is older.
        """
        return now_s if self._is_tight(due_rate) else now_s - _YOUNG_SHARE * self.interval_s

    def begins(self, oldest_s: float, due_rate: float, now_s: float) -> bool:
        """Tell whether it is time for a pass, by the basis of the oldest copy."""
        return self._is_tight(due_rate) or now_s - oldest_s >= _BEGIN_SHARE * self.interval_s

    def rest_s(self) -> float:
        """How long to wait between two passes at least, whatever is due."""
        return _REST_SHARE * self.interval_s

    def _is_tight(self, due_rate: float) -> bool:
        return due_rate * 2 >= self.max_bytes_per_s

    def problem(self, total_bytes: int) -> str | None:
        """Say so when the rate that is allowed is too low for the interval."""
        needed = total_bytes / self.interval_s
        if needed <= self.max_bytes_per_s:
            return None
        return (
            f"verifying {total_bytes} bytes takes {total_bytes / self.max_bytes_per_s / 3600:.1f} "
            f"hours at scrub.max_bytes_per_s, scrub.interval is {self.interval_s / 3600:.1f} hours"
        )


def condensed(bases_s: Sequence[float], sizes_bytes: Sequence[int]) -> list[Aged]:
    """Take copies of about the same age as one, a little older than they are, when there are many.

    Sorting a hundred thousand would keep every other thread from running meanwhile.
    """
    if len(bases_s) <= _MOST_AGES:
        return list(map(Aged, bases_s, sizes_bytes))
    oldest_s = min(bases_s)
    width_s = (max(bases_s) - oldest_s) / _MOST_AGES
    if width_s <= 0:
        return [Aged(oldest_s, sum(sizes_bytes))]
    together = [0] * (_MOST_AGES + 1)
    for basis_s, size_bytes in zip(bases_s, sizes_bytes, strict=True):
        together[int((basis_s - oldest_s) / width_s)] += size_bytes
    return [Aged(oldest_s + place * width_s, sum_) for place, sum_ in enumerate(together) if sum_]
