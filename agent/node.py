"""The machine under the agent: CPU, memory, load, the agent's own process, the datasets' disks.

Rules kept here:
- A request reads the last sample and never waits for one.
- Sampling happens in daemon threads, one for the machine and one for each dataset: a device that
  hangs makes its own figures missing, not the others, and holds one thread, not one more each time.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from depot.concurrency.threads import DaemonThreads
from depot.os_errors import describe_error

INTERVAL_S: Final = 5.0
TIMEOUT_S: Final = 2.0


class Partition(Protocol):
    """A mounted filesystem, as psutil lists it."""

    @property
    def mountpoint(self) -> str: ...  # noqa: D102

    @property
    def device(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """The agent's own process."""

    rss_bytes: int
    open_files: int
    threads: int
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class DiskSample:
    """The filesystem under a dataset's path, or why it is not known."""

    dataset: str
    device: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MachineSample:
    """What is measured in one go for the whole machine; percentages since the last sample."""

    cpu_count: int
    cpu_percent: float
    load: tuple[float, float, float]
    memory_total_bytes: int
    memory_available_bytes: int
    process: ProcessSample


@dataclass(frozen=True, slots=True)
class NodeSample:
    """One sample; `sampled_at` is in Unix seconds."""

    sampled_at: float
    machine: MachineSample
    disks: tuple[DiskSample, ...]


class NodeSampler:
    """Takes samples and keeps the last one."""

    def __init__(
        self,
        datasets: Sequence[Path],
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
        read_disk: Callable[[Path], DiskSample] | None = None,
    ) -> None:
        self._process: psutil.Process | None = None
        self._threads = DaemonThreads("node-sampler", 1)
        self._timeout_s = timeout_s
        self._disks = [_Disk(path, read_disk or sample_disk) for path in datasets]
        self._clock = clock
        self._latest: NodeSample | None = None

    def latest(self) -> NodeSample | None:
        """The last sample; None before the first."""
        return self._latest

    async def sample(self) -> None:
        """Take a sample, within the timeout whatever the disks do.

        Raises:
            OSError, psutil.Error: the machine's own figures cannot be had.
        """
        for disk in self._disks:
            disk.ask()
        machine = await self._threads.call(self._timeout_s, self._sample_machine)
        disks = tuple([await disk.answer(self._timeout_s) for disk in self._disks])
        self._latest = NodeSample(self._clock(), machine, disks)

    def _sample_machine(self) -> MachineSample:
        # Kept, because it knows the CPU time of the sample before; made here, because that blocks.
        self._process = self._process or psutil.Process()
        return sample_machine(self._process)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()
        for disk in self._disks:
            disk.close()


class _Disk:
    """One dataset's disk and the one question that may be under way about it."""

    def __init__(self, path: Path, read: Callable[[Path], DiskSample]) -> None:
        self._path = path
        self._read = read
        self._threads = DaemonThreads("disk-sampler", 1)
        # One future, however often it is waited for: each would have to be told how it ended.
        self._pending: asyncio.Future[DiskSample] | None = None

    def ask(self) -> None:
        """Begin a question, unless the one before still waits for the device."""
        if self._pending is None:
            self._pending = asyncio.wrap_future(self._threads.submit(self._read, self._path))

    async def answer(self, timeout_s: float) -> DiskSample:
        """The answer, or that there is none in time."""
        pending = self._pending
        assert pending is not None, "ask comes first"
        done, _ = await asyncio.wait((pending,), timeout=timeout_s)
        if not done:
            return DiskSample(str(self._path), error=f"no answer within {timeout_s:g} s")
        self._pending = None
        try:
            return pending.result()
        except OSError as error:
            return DiskSample(str(self._path), error=describe_error(error))

    def close(self) -> None:
        """Let the thread end."""
        self._threads.close()


def sample_machine(process: psutil.Process) -> MachineSample:
    """Read what does not touch a disk."""
    memory = psutil.virtual_memory()
    return MachineSample(
        cpu_count=psutil.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(),
        load=psutil.getloadavg(),
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        process=sample_process(process),
    )


def sample_process(process: psutil.Process) -> ProcessSample:
    """Read the agent's own figures."""
    with process.oneshot():
        return ProcessSample(
            rss_bytes=process.memory_info().rss,
            open_files=process.num_fds(),
            threads=process.num_threads(),
            cpu_percent=process.cpu_percent(),
        )


def sample_disk(path: Path) -> DiskSample:
    """Ask the device under `path`. May hang with it."""
    usage = psutil.disk_usage(str(path))
    device = device_of(os.path.realpath(path), psutil.disk_partitions(all=True))
    return DiskSample(str(path), device, usage.total, usage.free)


def device_of(path: str, partitions: Sequence[Partition]) -> str | None:
    """The device of the innermost mount that `path` is in."""
    mounts = [p for p in partitions if Path(path).is_relative_to(p.mountpoint)]
    innermost = max(mounts, key=lambda p: len(p.mountpoint), default=None)
    return innermost.device if innermost else None
