"""How a call on a connection takes it when its task is cancelled.

A statement that SQLite has begun cannot be taken back: it goes on in a thread of its own, and its
connection keeps the write lock until the statement is read to its end, or found to be garbage. So
the call is waited for, and the cancellation comes right after it. It lasts as long as one statement
at most, or one wait for the lock. PostgreSQL's driver breaks a statement off, and the server rolls
back whatever a connection leaves behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Calls(Protocol):
    """Awaits a call on a connection."""

    async def __call__(self, call: Coroutine[Any, Any, _T], /) -> _T:
        """Return what it does, and raise what it does."""


async def at_once(call: Coroutine[Any, Any, _T]) -> _T:
    """Await a call that can be cancelled at any time."""
    return await call


async def to_its_end(call: Coroutine[Any, Any, _T]) -> _T:
    """Await a call until it is over; who is cancelled meanwhile hears of it then."""
    task = asyncio.ensure_future(call)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # nobody hears of it any more
        raise cancelled
    return task.result()
