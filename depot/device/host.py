"""Where the calls on one dataset run: in threads of this process, or in a process of their own.

Threads are enough for a program that may hang with its disk. The agent uses a process: a call in
uninterruptible sleep survives SIGKILL, and would keep all locks of the process that made it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Final, ParamSpec, Protocol, TypeVar

from depot.concurrency.threads import DaemonThreads
from depot.errors import DatasetUnusable

P = ParamSpec("P")
T = TypeVar("T")

CALLS_AT_ONCE: Final = 8
FEEDS_AT_ONCE: Final = 4


class DeviceWorkers(StrEnum):
    """What the calls on a dataset run in."""

    THREAD = "thread"
    PROCESS = "process"


class Lane(StrEnum):
    """Calls of one kind; those of the others do not wait for them."""

    CALLS = "calls"
    FEEDS = "feeds"
    WRITES = "writes"


class Host(Protocol):
    """Runs calls on one dataset."""

    @property
    def pid(self) -> int | None:
        """Of the worker process; None: there is none."""

    @property
    def left_behind(self) -> tuple[int, ...]:
        """Process ids of workers that were given up and have not ended yet."""

    @property
    def remote(self) -> bool:
        """Arguments and results cross to another process."""

    def start(self) -> None:
        """Be ready for calls; again after a worker has ended."""

    async def ready(self) -> None:
        """Wait until calls can begin: what starting takes is not the device's time."""

    def hangs(self) -> bool:
        """Tell whether a call is running that has had its time long ago."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; its result or exception arrives in the future."""

    def submit_in(self, lane: Lane, function: Callable[..., T], /, *args: object) -> Future[T]:
        """Queue a call of a certain kind."""

    async def close(self) -> None:
        """Let what is idle end; what hangs is left behind."""


HostOf = Callable[[str, Callable[[DatasetUnusable], None]], Host]
"""Makes the host of a dataset, of that name; it tells when a worker process has ended."""


class ThreadHost:
    """Daemon threads of this process; what `Host` asks of processes has simple answers."""

    pid: int | None = None
    left_behind: tuple[int, ...] = ()
    remote = False

    def __init__(self, name: str) -> None:
        self._threads = DaemonThreads(name, CALLS_AT_ONCE)

    def start(self) -> None:
        """Threads start when they are needed."""

    async def ready(self) -> None:
        """Threads are ready at once."""

    def hangs(self) -> bool:
        """Nobody knows: another call may find out."""
        return False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call."""
        return self._threads.submit(function, *args, **kwargs)

    def submit_in(self, lane: Lane, function: Callable[..., T], /, *args: object) -> Future[T]:
        """Queue a call; all kinds share the threads."""
        return self._threads.submit(function, *args)

    async def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()


def thread_host(name: str, _on_end: Callable[[DatasetUnusable], None]) -> Host:
    """Make a host of threads, which never ends by itself."""
    return ThreadHost(name)
