"""A coordinator that stands still at a call, for as long as a test wants."""

from __future__ import annotations

import asyncio
from typing import Any


class Stalling:
    """Lets a coordinator stand still: no request leaves it, and no answer is seen.

    Attributes:
        stop_before: a call by which it stops, before anything of it is sent.
        stop_after: a call by which it stops, before anything is made of its answer.
    """

    def __init__(self) -> None:
        self._runs = asyncio.Event()
        self._runs.set()
        self.stop_before: str | None = None
        self.stop_after: str | None = None

    def stop(self) -> None:
        self._runs.clear()

    def go_on(self) -> None:
        self.stop_before = self.stop_after = None
        self._runs.set()

    @property
    def stands_still(self) -> bool:
        return not self._runs.is_set()

    async def runs(self, call: str | None = None) -> None:
        if call is not None and call == self.stop_before:
            self.stop()
        await self._runs.wait()

    async def has_run(self, call: str) -> None:
        if call == self.stop_after:
            self.stop()
        await self._runs.wait()

    def around(self, target: object) -> Any:
        return _Stalled(target, self)


class _Stalled:
    def __init__(self, target: object, stalling: Stalling) -> None:
        self._target = target
        self._stalling = stalling

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **named: Any) -> Any:
            await self._stalling.runs(name)
            try:
                return await method(*args, **named)
            finally:
                await self._stalling.has_run(name)

        return call
