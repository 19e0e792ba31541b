"""Long blocking work in daemon threads, which stops when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from depot.concurrency.threads import DaemonThreads, waiting_for

T = TypeVar("T")


async def run_until_over(
    threads: DaemonThreads, work: Callable[[], T], stop: Callable[[], None]
) -> T:
    """Run `work` in a thread and wait until it is over, also when that is cancelled.

    Whatever it uses can be closed afterwards: nobody is at it any more.

    Args:
        threads: where it runs.
        work: what blocks.
        stop: makes `work` raise soon; called when the wait is cancelled.
    """
    waiting = waiting_for(threads.submit(work))
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        stop()
        with suppress(Exception):  # what stopping it led to
            await waiting
        raise
