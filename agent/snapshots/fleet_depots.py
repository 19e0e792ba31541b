"""Which sled is asked for which part of a snapshot. Decides alone; safe to use from threads.

Rules kept here:
- A sled that failed is asked after all others.
- Who is asked for a part once more did not believe what came: another sled is asked first then, so
  that one that is wrong about its bytes spoils one attempt at most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from threading import Lock

from agent.snapshots.values import Version

Part = tuple[Version, int]
"""A version, and where in it the part begins."""


class Depots:
    """The depots of a fleet, as far as they are known."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: tuple[str, ...] = ()
        self._failures: Counter[str] = Counter()
        self._gave: defaultdict[Part, set[str]] = defaultdict(set)

    def know(self, urls: Sequence[str]) -> None:
        """Ask these from now on, the first ones first."""
        with self._lock:
            self._known = tuple(urls)

    def in_turn(self, part: Part) -> list[str]:
        """Whom to ask, in this order."""
        with self._lock:
            gave = self._gave[part]
            return sorted(self._known, key=lambda url: (url in gave, self._failures[url]))

    def failed(self, url: str) -> None:
        """It did not answer, or not with what was asked for, or not to the end."""
        with self._lock:
            self._failures[url] += 1

    def gives(self, part: Part, url: str) -> None:
        """It has begun to answer."""
        with self._lock:
            self._gave[part].add(url)
