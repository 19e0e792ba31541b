"""What a server costs: processor time of a run, and peak memory, sampled from outside.

How memory is counted: a server's processes may share memory (an agent maps one arena of blocks into
the worker of each dataset), and all of them map the same program and libraries. Its memory is what
the machine would have free without it: the anonymous memory of every process, and shared memory and
mapped files once, as much as the one process has that maps most of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

SAMPLE_EVERY_S: Final = 0.01
# Looking for children goes through all processes of the machine.
FAMILY_EVERY_S: Final = 2.0


@dataclass(slots=True)
class CpuMeter:
    """CPU seconds (user and system) that passed while a block ran."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Block:
    """From when to when (s, on the monotonic clock) which processes were measured."""

    pids: tuple[int, ...]
    began_s: float
    ended_s: float


measured: Final[list[Block]] = []
"""What was measured since somebody emptied it."""


@contextmanager
def cpu_of(*pids: int) -> Iterator[CpuMeter]:
    """Measure processes and their children during a block."""
    meter = CpuMeter()
    began_s, (before_s, _) = time.monotonic(), _cpu_s(pids)
    yield meter
    after_s, every = _cpu_s(pids)
    meter.seconds = after_s - before_s
    measured.append(Block(every, began_s, time.monotonic()))


def _cpu_s(pids: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    every = tuple(each for pid in pids for each in family(pid))
    times = [psutil.Process(each).cpu_times() for each in every]
    return sum(time.user + time.system for time in times), every


def family(pid: int) -> list[int]:
    """A process and everything it started."""
    children = psutil.Process(pid).children(recursive=True)
    return [pid, *(child.pid for child in children)]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a server in memory: of all its processes, and of the main one alone (its RSS)."""

    all_bytes: int = 0
    main_bytes: int = 0

    def most(self, other: Memory) -> Memory:
        """The larger of each."""
        return Memory(max(self.all_bytes, other.all_bytes), max(self.main_bytes, other.main_bytes))


def memory_of(pids: list[int]) -> Memory:
    """What a server has now; `pids` begins with its main process, which has to live."""
    main = _resident(pids[0])
    shares = [main]
    for pid in pids[1:]:
        with suppress(ProcessLookupError, FileNotFoundError):
            shares.append(_resident(pid))
    anonymous = sum(share["RssAnon"] for share in shares)
    once = (max(share[kind] for share in shares) for kind in ("RssShmem", "RssFile"))
    return Memory(anonymous + sum(once), sum(main.values()))


def _resident(pid: int) -> dict[str, int]:
    """Bytes by kind; a process that has just ended has none."""
    found = {"RssAnon": 0, "RssFile": 0, "RssShmem": 0}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) << 10
    return found


@dataclass(slots=True)
class _Watched:
    pids: list[int]
    looked_s: float
    peak: Memory = Memory()

    def sample(self) -> None:
        if time.monotonic() - self.looked_s > FAMILY_EVERY_S:
            self.pids, self.looked_s = family(self.pids[0]), time.monotonic()
        self.peak = self.peak.most(memory_of(self.pids))


class MemoryWatch:
    """A thread that keeps the peak of each server it is told of, from one `phase` to the next."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._names: dict[int, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def phase(self) -> None:
        """Forget what was watched so far."""
        self._watched, self._names = {}, {}

    def watch(self, name: str, pid: int) -> None:
        """Watch a server; the memory of another one with its name is not looked at."""
        self._names[pid] = name
        if name not in self._watched:
            self._watched = {**self._watched, name: _Watched(family(pid), time.monotonic())}

    def peaks(self) -> dict[str, Memory]:
        """Of each server in this phase."""
        return {name: each.peak for name, each in self._watched.items()}

    def names(self) -> dict[int, str]:
        """The servers of this phase, by their main process."""
        return dict(self._names)

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
        pause_s = SAMPLE_EVERY_S
        while not self._ended.wait(pause_s):
            watched = list(self._watched.values())
            for each in watched:
                # It may end at any time, and then has had its peak.
                with suppress(psutil.Error, OSError):
                    each.sample()
            # Many servers are looked at less often, so that this stays small beside them.
            pause_s = SAMPLE_EVERY_S * max(1, len(watched))
