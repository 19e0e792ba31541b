"""What a server process costs: CPU time of a run, and peak memory, sampled from outside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psutil

SAMPLE_EVERY_S: Final = 0.02


@dataclass(slots=True)
class CpuMeter:
    """CPU seconds (user and system) that passed while a block ran."""

    seconds: float = 0.0


@contextmanager
def cpu_of(pid: int) -> Iterator[CpuMeter]:
    """Measure a process and its children during a block."""
    meter = CpuMeter()
    before_s = _cpu_s(pid)
    yield meter
    meter.seconds = _cpu_s(pid) - before_s


def _cpu_s(pid: int) -> float:
    times = [process.cpu_times() for process in _family(pid)]
    return sum(time.user + time.system for time in times)


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


class MemoryWatch:
    """A thread that keeps the largest resident size of each process it is told of."""

    def __init__(self) -> None:
        self._peaks: dict[str, dict[str, int]] = {}
        self._watched: dict[str, int] = {}
        self._phase = "start"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def watch(self, name: str, pid: int) -> None:
        self._watched[name] = pid

    def phase(self, name: str) -> None:
        """From now on, peaks are counted for this part of the work."""
        self._phase = name

    def peaks_bytes(self) -> dict[str, dict[str, int]]:
        """By phase and process."""
        return {phase: dict(peaks) for phase, peaks in self._peaks.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            for name, pid in list(self._watched.items()):
                with suppress(psutil.NoSuchProcess):
                    self._count(name, sum(one.memory_info().rss for one in _family(pid)))

    def _count(self, name: str, rss_bytes: int) -> None:
        peaks = self._peaks.setdefault(self._phase, {})
        peaks[name] = max(peaks.get(name, 0), rss_bytes)
