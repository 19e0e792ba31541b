"""How many sources a copy reads from at once. Pure: the caller measures and supplies the time.

One source is enough until it has shown that it is not. Nobody tells what the network would allow,
so it is tried out: while the copy waits for its source most of the time, one more is taken, and it
stays only if the copy got faster by more than chance explains. The first that does not help is
given back, and no further one is tried: the limit is elsewhere, and others need those sources too.

What the copy itself is the limit of (its disks, its hash, its budget of bytes per second) is no
reason for another source.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WideningPolicy:
    """When another source is worth a try.

    Attributes:
        max_sources: read from at once; 1: never another.
        window_s: how long the rate is measured before each decision.
        waiting_share: of the time, that has to be spent waiting for the sources.
        gain: by which factor the rate has to rise for the new source to stay.
        enough_bytes_per_s: a rate that needs no help.
        small_bytes: with no more than this left, it is not worth it.
        short_s: nor when the rest takes no longer than this.
        silence_s: after which a lone source is left for another that has done no worse.
    """

    max_sources: int = 4
    window_s: float = 0.5
    waiting_share: float = 0.6
    gain: float = 1.15
    enough_bytes_per_s: float = 512 * MIB
    small_bytes: int = 8 * MIB
    short_s: float = 2.0
    silence_s: float = 2.5


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a copy is.

    Attributes:
        now_s: any clock that goes forward.
        position_bytes: what has been taken in.
        waited_s: time spent waiting for sources, in all.
        left_bytes: what is still to come.
    """

    now_s: float
    position_bytes: int
    waited_s: float
    left_bytes: int


class Widening:
    """The decisions of one copy.

    Attributes:
        sources: how many there should be.
    """

    def __init__(self, policy: WideningPolicy, start: Reading) -> None:
        self.sources = 1
        self._policy = policy
        self._mark = start
        self._rate_before: float | None = None
        self._settling = False
        self._settled = policy.max_sources <= 1

    def look(self, reading: Reading) -> int:
        """Decide anew, at the end of a window; how many sources there should be."""
        elapsed_s = reading.now_s - self._mark.now_s
        if self._settled or elapsed_s < self._policy.window_s:
            return self.sources
        rate = (reading.position_bytes - self._mark.position_bytes) / max(elapsed_s, 1e-9)
        waiting = (reading.waited_s - self._mark.waited_s) / max(elapsed_s, 1e-9)
        self._mark = reading
        if self._settling:
            self._settling = False  # the new one has only just begun
        elif self._rate_before is not None and rate < self._policy.gain * self._rate_before:
            self.sources -= 1
            self._settled = True
        elif self._is_worth_a_try(rate, waiting, reading.left_bytes):
            self._rate_before, self._settling = rate, True
            self.sources += 1
        else:
            self._rate_before = None
        return self.sources

    def begun(self, sources: int, reading: Reading) -> None:
        """Note that as of now so many are read from."""
        self.sources, self._mark = sources, reading

    def lost(self, sources: int) -> None:
        """Note that only `sources` are left, or that no other is to be had."""
        self.sources = max(1, sources)
        self._rate_before, self._settling = None, False
        self._settled = True

    def _is_worth_a_try(self, rate: float, waiting: float, left_bytes: int) -> bool:
        policy = self._policy
        return (
            self.sources < policy.max_sources
            and waiting >= policy.waiting_share
            and rate < policy.enough_bytes_per_s
            and left_bytes > max(policy.small_bytes, rate * policy.short_s)
        )
