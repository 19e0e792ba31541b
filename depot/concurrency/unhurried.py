"""Going through many things without keeping the event loop, or its thread, from everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from heapq import merge
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PART: Final = 4096
STEP_S: Final = 0.005
"""How long others wait at most for one who goes through a hundred thousand of something."""


async def unhurried(
    items: Iterable[T], *, step_s: float = STEP_S, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[T]:
    """Give the items one by one, and let the event loop turn whenever that took `step_s`.

    They are not copied: give it what nobody changes meanwhile.
    """
    begun_s = clock()
    for item in items:
        yield item
        if clock() - begun_s >= step_s:
            await asyncio.sleep(0)
            begun_s = clock()


def gently_sorted(items: Sequence[T], *, key: Callable[[T], Any]) -> list[T]:
    """Sort in a thread: one sort of many would keep the others from running for as long."""
    parts = [sorted(items[at : at + _PART], key=key) for at in range(0, len(items), _PART)]
    return parts[0] if len(parts) == 1 else list(merge(*parts, key=key))
