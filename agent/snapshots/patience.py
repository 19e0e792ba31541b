"""How often, and after which pauses, an archive that does not answer is asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from threading import Event, Lock
from typing import TypeVar

from agent.snapshots.archive import Archive
from agent.snapshots.errors import Mismatch, SnapshotError, Unreachable
from agent.snapshots.values import Version

T = TypeVar("T")
OnFailure = Callable[[Unreachable, float], None]
"""Told of what failed and how many seconds later it is tried again; from any thread."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Pure: which pause follows which failure.

    Attributes:
        attempts: how often in a row something may fail.
        first_s: the pause after the first failure; each is twice as long as the one before.
        longest_s: the longest pause.
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 10.0

    def pause_s(self, failures: int, luck: float) -> float | None:
        """How long to wait after so many failures in a row; None to give up.

        Args:
            failures: at least 1.
            luck: from 0 to 1, so that nodes that start together do not come back together.
        """
        if failures >= self.attempts:
            return None
        pause_s = min(self.first_s * 2.0 ** (failures - 1), self.longest_s)
        return pause_s * (0.5 + 0.5 * luck)


class Retrying:
    """Asks again, and from where it was; in any number of threads, until one of them gives up."""

    def __init__(
        self, patience: Patience, on_failure: OnFailure, *, luck: Random | None = None
    ) -> None:
        self._patience = patience
        self._on_failure = on_failure
        self._luck = luck or Random()
        self._over = Event()
        self._why: SnapshotError | None = None
        self._lock = Lock()

    def give_up(self, why: SnapshotError | None = None) -> None:
        """Have all the others end, too, for the same reason; the first one counts."""
        with self._lock:
            self._why = self._why or why or Unreachable("given up")
            self._over.set()

    def call(self, call: Callable[[], T]) -> T:
        """Call until it is answered.

        Raises:
            Unreachable: it never was; and whatever else the call raises, at once.
        """
        failures = 0
        while True:
            try:
                return call()
            except Unreachable as error:
                failures += 1
                self._wait_after(error, failures)

    def read(self, archive: Archive, version: Version, start: int, stop: int) -> Iterator[bytes]:
        """Read as `Archive.read` does; a read that breaks goes on where it was.

        What arrived is progress: only failures with nothing in between count together.
        """
        failures = 0
        while start < stop:
            try:
                for block in archive.read(version, start, stop):
                    if not block:
                        continue  # no progress: or an answer of nothing but these goes on for ever
                    if len(block) > stop - start:
                        raise Mismatch(f"{archive.url}: gives more than it was asked for")
                    failures, start = 0, start + len(block)
                    yield block
                    self._go_on()
                if start < stop:
                    raise Unreachable(f"{archive.url}: ended {stop - start} bytes early")
            except Unreachable as error:
                failures += 1
                self._wait_after(error, failures)
            except SnapshotError as error:
                self.give_up(error)
                raise

    def _wait_after(self, error: Unreachable, failures: int) -> None:
        self._go_on()
        pause_s = self._patience.pause_s(failures, self._luck.random())
        if pause_s is None:
            self.give_up(error)
            raise error
        self._on_failure(error, pause_s)
        self._over.wait(pause_s)
        self._go_on()

    def _go_on(self) -> None:
        if self._over.is_set():
            assert self._why is not None
            raise self._why
