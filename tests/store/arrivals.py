"""Puts that stop on the way, and what can be read of them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from depot.store import ArtifactStore
from depot.writing.arriving import Arrival
from depot.writing.stored import Stored
from tests.store.builders import GatedSource, hash_of, put
from tests.store.faulty import WAIT_S


@asynccontextmanager
async def putting(
    store: ArtifactStore, content: bytes, source: GatedSource
) -> AsyncIterator[asyncio.Task[Stored]]:
    """A put that has come as far as its source's gate, which is opened at the end."""
    task = asyncio.create_task(put(store, content, source=source), name="put")
    try:
        await source.reached()
        yield task
    finally:
        source.open_gate()
        await asyncio.wait((task,), timeout=WAIT_S)


def found(store: ArtifactStore, content: bytes) -> Arrival:
    """What can be read of it now."""
    arrival = store.arrivals.find(hash_of(content))
    assert arrival is not None
    return arrival


async def until(arrival: Arrival, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that depends on how far it is."""
    with arrival.reading():
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await arrival.changes(0.1)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that nobody tells of."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)
