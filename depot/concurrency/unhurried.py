"""Going through many things without keeping the event loop, or its thread, from everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PART: Final = 4096
STEP_S: Final = 0.005
"""How long others wait at most for one who goes through a hundred thousand of something."""
_LEISURELY_PART: Final = 1024
_RESTS: Final = 9
"""A rest is so many times as long as the work before it, unless somebody waits for the result."""
_MOST_REST_S: Final = 2.0
"""All rests together: even ten million of something are gone through."""


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


def leisurely(
    items: Iterable[T],
    *,
    rests: int = _RESTS,
    clock: Callable[[], float] = time.thread_time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[T]]:
    """Give the items in parts, in a thread whose work can wait, and rest after each of them.

    A thread that computes takes turns with the event loop, which then has half of the interpreter,
    less the more such threads there are. One that rests leaves it nearly all. A few are one part.
    """
    left, rest_s = iter(items), _MOST_REST_S
    begun_s = clock()
    while part := list(islice(left, _LEISURELY_PART)):
        yield part
        if len(part) < _LEISURELY_PART:
            return
        pause_s = min(rests * (clock() - begun_s), rest_s)
        if pause_s > 0:
            sleep(pause_s)
            rest_s -= pause_s
        begun_s = clock()


def gently_sorted(items: Sequence[T], *, key: Callable[[T], Any]) -> list[T]:
    """Sort in a thread: one sort of many would keep the others from running for as long."""
    parts = [sorted(items[at : at + _PART], key=key) for at in range(0, len(items), _PART)]
    return parts[0] if len(parts) == 1 else list(merge(*parts, key=key))
