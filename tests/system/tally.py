"""How often everything happened to a fleet that is mistreated; what never did proves nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What is done to a fleet, or with it."""

    UPLOADED = "uploaded"
    UPLOADED_ANEW = "of these after a deletion"
    UPLOADED_AGAIN = "uploaded while it was there"
    DELETED = "deleted"
    COORDINATOR_KILLED = "coordinator killed"
    COORDINATOR_PAUSED = "coordinator paused for longer than a pass"
    DATABASE_CUT = "cut off from the database"
    SLED_KILLED = "sled killed and started"
    SLED_RESTARTED = "sled stopped and started"
    SLED_PAUSED = "sled paused"
    DATASET_LOST = "dataset lost"
    SLED_EMPTIED = "all datasets of a sled lost"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    LOOKED = "F2 looked at"


BY_EACH: Final = (Kind.UPLOADED, Kind.UPLOADED_ANEW, Kind.UPLOADED_AGAIN, Kind.DELETED)
"""What each of the coordinators must have been asked for."""


class Tally:
    """Counts, by kind and by whom it was done with; any thread may add to them."""

    def __init__(self, coordinators: Sequence[str], at_least: int) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Kind, str]] = Counter()
        self._coordinators = coordinators
        self._at_least = at_least

    def add(self, kind: Kind, who: str = "") -> None:
        """It happened once more."""
        with self._lock:
            self._counts[kind, who] += 1

    def of(self, kind: Kind, who: str | None = None) -> int:
        """How often it happened, with one or with all."""
        with self._lock:
            return sum(n for (k, w), n in self._counts.items() if k is kind and who in (None, w))

    def lacking(self) -> list[str]:
        """What has not happened often enough, and with whom."""
        by_each = [(kind, who) for kind in BY_EACH for who in self._coordinators]
        by_any = [(kind, None) for kind in Kind if kind not in BY_EACH]
        return [
            f"{kind} {who or ''}".strip()
            for kind, who in (*by_each, *by_any)
            if self.of(kind, who) < self._at_least
        ]

    def __str__(self) -> str:
        return ", ".join(f"{kind} {self._shown(kind)}" for kind in Kind)

    def _shown(self, kind: Kind) -> str:
        if kind in BY_EACH:
            return "+".join(str(self.of(kind, who)) for who in self._coordinators)
        return str(self.of(kind))
