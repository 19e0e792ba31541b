"""What a server is doing: the requests that run, and whether new ones are taken (S3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """The running requests of one server."""

    def __init__(self) -> None:
        self.draining = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._without_task: set[Callable[[], None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._tasks) + len(self._without_task)

    def begin(self, give_up: Callable[[], None]) -> None:
        """Count a request that no task answers, until `end`; `cancel` has it given up."""
        self._without_task.add(give_up)
        self._idle.clear()

    def end(self, give_up: Callable[[], None]) -> None:
        """Count it no longer."""
        self._without_task.discard(give_up)
        self._look_if_idle()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count the current task as a running request."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._idle.clear()
        try:
            yield
        finally:
            self._tasks.discard(task)
            self._look_if_idle()

    async def idle(self) -> None:
        """Wait until no request runs."""
        await self._idle.wait()

    def cancel(self) -> None:
        """Cancel what still runs; `idle` then waits for its cleaning up."""
        for task in self._tasks:
            task.cancel()
        for give_up in tuple(self._without_task):
            give_up()

    def _look_if_idle(self) -> None:
        if not self.running:
            self._idle.set()
