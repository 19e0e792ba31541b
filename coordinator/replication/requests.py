"""Requests to agents: so many at once, each within its time, each with an outcome for a value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from coordinator.replication.ports import Agent
from coordinator.replication.request_log import Request, RequestLog
from coordinator.replication.verdict import Kind, OutOfDate, Verdict, judge
from coordinator.values import Sled
from depot.errors import BadSource, InvalidRequest, Refused, Unreachable

MAX_CONCURRENT_REQUESTS: Final = 8
MAX_PROBES: Final = 64
"""Small questions to sleds that may be down, which cost little but time."""
Answer = TypeVar("Answer")
AgentOf = Callable[[Sled], Agent]


async def _nothing() -> None:
    """There is nothing to be done before a request."""


class Requests:
    """Asks agents, `max_concurrent` at once.

    Args:
        agent_of: how to reach a sled's agent; raises BadSource when it may not be asked there.
    """

    def __init__(
        self,
        agent_of: AgentOf,
        log: RequestLog,
        *,
        max_concurrent: int = MAX_CONCURRENT_REQUESTS,
    ) -> None:
        self._agent_of = agent_of
        self._slots = asyncio.Semaphore(max_concurrent)
        self._probes = asyncio.Semaphore(MAX_PROBES)
        self.log = log
        self.max_concurrent = max_concurrent
        self.waiting = 0
        """Requests that wait until others have ended."""

    async def ask(
        self,
        request: Request,
        call: Callable[[Agent], Awaitable[Answer]],
        *,
        timeout_s: float,
    ) -> Answer | Verdict:
        """Make a request and note how it ended."""
        answer = await self.ask_quietly(request, call, timeout_s=timeout_s)
        self.note(request, answer if isinstance(answer, Verdict) else None)
        return answer

    def note(self, request: Request, verdict: Verdict | None, *, too_early: bool = False) -> None:
        """Note how a request ended; None: well. One that was only `too_early` is put off."""
        if verdict is None:
            self.log.ended(request)
        else:
            put_off = too_early or verdict.kind is Kind.BUSY
            self.log.ended(request, verdict.reason, put_off=put_off)

    async def ask_quietly(
        self,
        request: Request,
        call: Callable[[Agent], Awaitable[Answer]],
        *,
        timeout_s: float,
        before: Callable[[], Awaitable[None]] = _nothing,
        probe: bool = False,
    ) -> Answer | Verdict:
        """Make a request that is part of another one, or of which the end is known later.

        A `probe` takes no slot: many sleds that may be down can be asked at once.

        `before` is awaited when it is its turn: it takes none of the sled's time, and may raise
        OutOfDate.
        """
        async with self._probes if probe else self._slot():
            try:
                await before()
                async with asyncio.timeout(timeout_s):
                    return await call(self._agent_of(request.sled))
            except (Refused, Unreachable, BadSource, InvalidRequest, OutOfDate, OSError) as error:
                return judge(error, request.generation)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
