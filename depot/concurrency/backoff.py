"""When something that failed is worth another try: later each time. Pure: no clock."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_S: Final = 5.0
LONGEST_S: Final = 900.0


class Backoff(Generic[K]):
    """Pauses after failures, one for each key."""

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._pauses: dict[K, tuple[float, float]] = {}

    def is_due(self, key: K, now_s: float) -> bool:
        """Tell whether it may be tried now."""
        return key not in self._pauses or self._pauses[key][1] <= now_s

    def next_due_s(self) -> float | None:
        """When the next of those that failed may be tried; None when none failed."""
        return min((due_s for _, due_s in self._pauses.values()), default=None)

    def failed(self, key: K, now_s: float) -> None:
        """Wait with it, twice as long as the last time."""
        last_s, _ = self._pauses.get(key, (0.0, 0.0))
        pause_s = min(2 * last_s, self._longest_s) if last_s else self._first_s
        self._pauses[key] = (pause_s, now_s + pause_s)

    def forget(self, key: K) -> None:
        """It went well, or does not matter any more."""
        self._pauses.pop(key, None)

    def clear(self) -> None:
        """Everything may be tried at once: what stood in the way may be gone."""
        self._pauses.clear()

    def keep_only(self, keys: frozenset[K]) -> None:
        """Forget everything else (S1)."""
        for key in self._pauses.keys() - keys:
            del self._pauses[key]
